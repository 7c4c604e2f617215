"""All outputs of a text tower, not only that of the last word."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def text_features(model: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Run an open_clip text tower once for its embedding and all token outputs.

    Args:
        model: an open_clip model.
        tokens: token ids ``(T, L)``.

    Returns:
        the embeddings ``(T, E)``, not normalised, and the outputs of all ``L`` places
        ``(T, L, W)`` after the final norm and before the projection, those after the
        end of the text included.

    Raises:
        ValueError: if the tower gives no outputs of single tokens.
    """
    try:
        outputs = model.forward_intermediates(
            text=tokens, text_indices=1, normalize=False, normalize_intermediates=True
        )
    except (AttributeError, NotImplementedError) as error:
        raise ValueError(
            f'the text tower of {type(model).__name__} gives no outputs of single '
            "tokens: use one of open_clip's own text transformers, such as that of "
            "'ViT-B-16'"
        ) from error
    return outputs['text_features'], outputs['text_intermediates'][-1]
