"""Convolutional image towers of open_clip as backbones: four maps, at any size."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmengine.model import BaseModule
from mmseg.registry import MODELS

from zs3_mmseg.models.towers import Architecture, load_clip
from zs3_mmseg.utils.config_check import ConfigError


class ConvTower(BaseModule):
    """Base of backbones made of the image tower of a convolutional CLIP.

    The tower is registered as ``visual`` with open_clip's names below it, without what
    makes one vector of the last map: that is ``ConvCLIPClassifier``'s. Images are
    expected as the data preprocessor leaves them: RGB, normalised with :attr:`mean` and
    :attr:`std`.

    Args:
        arch: an open_clip model name, the path of an open_clip JSON model config, or
            such a config as a dict.
        pretrained: a tag of open_clip, a local file, or None for random weights. Loaded
            here and now; ``init_weights()`` never overwrites it.
        frozen: parameters get no gradient and the module stays in evaluation mode.
        trust: open a TorchScript archive even if it is none of OpenAI's.

    Raises:
        ConfigError: if the tower is of another kind.
    """

    def __init__(
        self,
        arch: str | Mapping | Architecture,
        pretrained: str | Path | None = None,
        *,
        frozen: bool = True,
        trust: bool = False,
    ) -> None:
        super().__init__()
        self.frozen = frozen
        clip = load_clip(arch, pretrained, trust=trust, need='image')
        # A copy: the model is shared with whoever needs the text tower.
        self.visual: Any = copy.deepcopy(clip.model.visual)
        self._require(clip.arch_name)
        self._behead()
        self.content_hash = clip.content_hash
        #: Statistics of the images, for RGB values in 0..255.
        self.mean = tuple(255 * value for value in clip.mean)
        self.std = tuple(255 * value for value in clip.std)
        if frozen:
            self.visual.requires_grad_(False)
        self.train(self.training)

    @abstractmethod
    def _require(self, arch: str) -> None:
        """Refuse a tower of another kind."""

    @abstractmethod
    def _behead(self) -> None:
        """Take away what makes one vector of the last map."""

    @property
    @abstractmethod
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the maps, fine to coarse."""

    @abstractmethod
    def _maps(self, img: Tensor) -> list[Tensor]:
        """Return the maps of images."""

    def init_weights(self) -> None:
        """Keep the weights loaded at construction."""
        self._is_init = True

    def train(self, mode: bool = True) -> ConvTower:
        """Switch the mode; a frozen tower stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.visual.eval()
        return self

    def forward(self, img: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of images.

        Args:
            img: ``(N, 3, H, W)``, normalised RGB, of any size.

        Returns:
            four maps ``(N, C, h, w)`` at strides 4, 8, 16 and 32.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return tuple(self._maps(img))


@MODELS.register_module()
class OpenCLIPConvNeXt(ConvTower):
    """The ConvNeXt of an open_clip CLIP, such as ``'convnext_large_d_320'``.

    See :class:`ConvTower`, whose options it has.
    """

    def _require(self, arch: str) -> None:
        require_convnext(self.visual, arch, type(self).__name__)

    def _behead(self) -> None:
        self.visual.trunk.head = nn.Identity()
        self.visual.head = nn.Identity()

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the maps, fine to coarse."""
        return tuple(info['num_chs'] for info in self.visual.trunk.feature_info)

    def _maps(self, img: Tensor) -> list[Tensor]:
        return self.visual.trunk.forward_intermediates(img, intermediates_only=True)


@MODELS.register_module()
class OpenCLIPResNet(ConvTower):
    """The ResNet of an open_clip CLIP, such as ``'RN50-quickgelu'``.

    See :class:`ConvTower`, whose options it has.
    """

    def _require(self, arch: str) -> None:
        if not is_resnet(self.visual):
            raise other_tower(self.visual, arch, type(self).__name__)

    def _behead(self) -> None:
        self.visual.attnpool = None

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the maps, fine to coarse."""
        visual = self.visual
        stages = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
        return tuple(stage[-1].conv3.out_channels for stage in stages)

    def _maps(self, img: Tensor) -> list[Tensor]:
        stages = [1, 2, 3, 4]  # 0 is the stem
        return self.visual.forward_intermediates(
            img, indices=stages, intermediates_only=True
        )['image_intermediates']


def is_resnet(visual: Any) -> bool:
    """Tell whether an image tower is one of OpenAI's ResNets."""
    from open_clip.modified_resnet import ModifiedResNet

    return isinstance(visual, ModifiedResNet)


def require_convnext(visual: Any, arch: str, reader: str) -> None:
    """Refuse an image tower that is no ConvNeXt with pooling by the mean."""
    from open_clip.timm_model import TimmModel
    from timm.models.convnext import ConvNeXt

    if (
        not isinstance(visual, TimmModel)
        or not isinstance(visual.trunk, ConvNeXt)
        or 'pool' in visual.head._modules
    ):
        raise other_tower(visual, arch, reader)


def other_tower(visual: Any, arch: str, reader: str) -> ConfigError:
    """Return the error about a tower that a part cannot read."""
    tower = getattr(visual, 'trunk', visual)
    return ConfigError(
        f'arch={arch!r} has a {type(tower).__name__} for images, which {reader} cannot '
        'read: OpenCLIPConvNeXt takes ConvNeXts with mean pooling, such as '
        "'convnext_large_d_320', OpenCLIPResNet OpenAI's ResNets, such as "
        "'RN50-quickgelu', and OpenCLIPViT vision transformers"
    )
