"""Features of pairs of an image and a class name, sharing what names share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .backbone_outputs import split_token


class PromptedFeatures:
    """Runs a backbone for pairs; what does not depend on the name runs once per image.

    A backbone with ``forward_shared`` and ``forward_from``, as ``OpenCLIPViT``, reads
    the text row of the name if it has ``replace_cls``, and where the class is, in
    training, if it has ``priors``. Any other backbone knows nothing of names: all of
    it runs once per image.

    Args:
        backbone: the backbone.
        neck: run on the maps, or None.
    """

    def __init__(self, backbone: nn.Module, neck: Callable | None) -> None:
        self._backbone: Any = backbone
        self._neck = neck
        self._reads_names = hasattr(backbone, 'forward_from')

    def shared(self, images: Tensor) -> Any:
        """Return what :meth:`of_pairs` starts from, for images ``(B, 3, H, W)``."""
        if self._reads_names:
            return self._backbone.forward_shared(images)
        return self._backbone(images)

    def of_pairs(
        self,
        state: Any,
        rows: Tensor,
        *,
        image_index: Tensor | None = None,
        foreground: Tensor | None = None,
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Return maps ``(N, C, h, w)`` and global tokens ``(N, E)`` of ``N`` pairs.

        Args:
            state: what :meth:`shared` returned for ``B`` images.
            rows: ``(N, E)``, the text row of each pair.
            image_index: ``(N,)``, the image of each pair; None: the images in order.
            foreground: ``(N, H, W)``, where the named class is; in training only.
        """
        if self._reads_names:
            reads_text = bool(self._backbone.replace_cls)
            reads_mask = bool(self._backbone.priors)
            outputs = self._backbone.forward_from(
                state,
                rows if reads_text else None,
                image_index=image_index,
                foreground=foreground if reads_mask else None,
            )
        else:
            outputs = (state,) if isinstance(state, Tensor) else tuple(state)
            if image_index is not None:
                outputs = tuple(output[image_index] for output in outputs)
        maps, token = split_token(outputs)
        if self._neck is not None:
            maps = tuple(self._neck(maps))
        return maps, token
