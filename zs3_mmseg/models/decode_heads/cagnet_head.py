"""The contextual module and classifier of CaGNet (ACM MM 2020, arXiv 2008.06893)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmengine.model import BaseModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from mmseg.utils import ConfigType

from zs3_mmseg.utils.shared_draws import SharedDropout

#: Of the pyramid of DeepLabv2.
PYRAMID_DILATIONS = (6, 12, 18, 24)
#: Of the three scales of the contextual module.
CONTEXT_DILATIONS = (1, 2, 5)
#: Beyond it a variance or its inverse is no number to learn from.
LOGVAR_LIMIT = 10.0


@dataclass(frozen=True)
class Context:
    """What the contextual module makes of a feature map.

    Attributes:
        features: ``(N, C, h, w)`` in (0, 1), what the classifier reads.
        code: ``(N, C, h, w)``, the latent code of each pixel.
        kl: ``(N, h, w)``, the mean over channels of the divergence of the code's
            distribution from N(0, 1).
    """

    features: Tensor
    code: Tensor
    kl: Tensor


class ContextualModule(BaseModule):
    r"""A latent code for each pixel from its surroundings (3.2 of the paper).

    Of the feature map :math:`h`, with 3 x 3 convolutions of growing dilation and
    without bias in ReLU(conv) each:

    .. math::
        c_1 = f_1(\sigma(h)),\ c_2 = f_2(c_1),\ c_3 = f_3(c_2),\quad
        w = \sigma(f_w[c_1, c_2, c_3]),\quad q = f_q[w_1 c_1, w_2 c_2, w_3 c_3] \\
        \mu = g_\mu(q),\ \log v = g_v(q),\quad
        z = \mu + \epsilon\, e^{\log v / 2},\quad x = \sigma(h + h\, \sigma(z))

    Args:
        channels: ``C``.
        mid_channels: of each scale.
        dilations: of the scales.
        selector_relu: a ReLU within :math:`w`, as released: weights lie in [0.5, 1),
            and no scale is ever switched off.
        logvar_relu: a ReLU on :math:`\log v`, as released: codes are at least as noisy
            as :math:`N(\mu, 1)`. False bounds it by 10 on both sides.
        train_selector: let the convolution of :math:`w` learn. The released code gives
            it to no optimiser.
        init_cfg: see mmengine's ``BaseModule``.
    """

    def __init__(
        self,
        channels: int,
        mid_channels: int = 256,
        *,
        dilations: Sequence[int] = CONTEXT_DILATIONS,
        selector_relu: bool = False,
        logvar_relu: bool = False,
        train_selector: bool = True,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        self.selector_relu = selector_relu
        self.logvar_relu = logvar_relu
        self.scales = nn.ModuleList(
            _conv3(mid_channels if index else channels, mid_channels, dilation)
            for index, dilation in enumerate(dilations)
        )
        wide = mid_channels * len(dilations)
        self.selector = _conv3(wide, len(dilations))
        self.selector.requires_grad_(train_selector)
        self.pool = nn.Conv2d(wide, channels, 1, bias=False)
        self.mean = _conv3(channels, channels)
        self.logvar = _conv3(channels, channels)

    def forward(self, features: Tensor, noise: Tensor | None = None) -> Context:
        """Make codes and augmented features.

        Args:
            features: ``(N, C, h, w)`` before any activation.
            noise: of N(0, 1), of the same shape; None: the code is its mean.
        """
        maps, last = [], features.sigmoid()
        for scale in self.scales:
            last = scale(last).relu()
            maps.append(last)
        weights = self.selector(torch.cat(maps, dim=1))
        weights = (weights.relu() if self.selector_relu else weights).sigmoid()
        weighted = [
            maps[index] * weights[:, index : index + 1] for index in range(len(maps))
        ]
        pooled = self.pool(torch.cat(weighted, dim=1)).relu()
        mean, logvar = self.mean(pooled), self.logvar(pooled)
        logvar = logvar.relu() if self.logvar_relu else logvar
        logvar = logvar.float().clamp(-LOGVAR_LIMIT, LOGVAR_LIMIT)
        code = mean if noise is None else mean + noise * (logvar / 2).exp()
        divergence = -(1 + logvar - mean.square() - logvar.exp()) / 2
        augmented = (features + features * code.sigmoid()).sigmoid()
        return Context(augmented, code, divergence.mean(dim=1))


def _conv3(inputs: int, outputs: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False
    )


class NoContext(nn.Module):
    """In place of the contextual module: codes are noise, features ``sigmoid(h)``."""

    def forward(self, features: Tensor, noise: Tensor | None = None) -> Context:
        """Return noise, or zeros without any, as codes."""
        code = torch.zeros_like(features) if noise is None else noise
        return Context(features.sigmoid(), code, features.new_zeros(code[:, 0].shape))


class ClassifyingDiscriminator(BaseModule):
    """A discriminator and a classifier that share a layer.

    ``conv 1 x 1 -> ReLU -> dropout``, then a 1 x 1 convolution each.

    Args:
        channels: of features.
        hidden_channels: of the layer that is shared.
        outputs: of the classifier.
        dropout: probability, in [0, 1).
        init_cfg: see mmengine's ``BaseModule``.
    """

    def __init__(
        self,
        channels: int,
        hidden_channels: int,
        outputs: int,
        *,
        dropout: float = 0.5,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        self.shared = nn.Conv2d(channels, hidden_channels, 1)
        self.dropout = SharedDropout(dropout)
        self.real_fake = nn.Conv2d(hidden_channels, 1, 1)
        self.classes = nn.Conv2d(hidden_channels, outputs, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of being real, ``(N, 1, h, w)``, and of classes."""
        hidden = self.dropout(self.shared(features).relu())
        return self.real_fake(hidden), self.classes(hidden)


@MODELS.register_module()
class CaGNetHead(BaseDecodeHead):
    """Pyramid, contextual module and classifier of CaGNet.

    The logits of a test are those of the classifier for the augmented features, whose
    codes are then their means. What trains it is :class:`CaGNet`, the segmentor that it
    belongs to; there is no loss of its own.

    Args:
        in_channels: channels of the map that it reads.
        channels: ``C``, channels of features.
        num_classes: ``K``, seen and unseen classes.
        dilations: of the pyramid, a *sum* of 3 x 3 convolutions as in DeepLabv2;
            ``()``: the map itself, which then has ``channels`` channels, is the feature
            map.
        context: options of :class:`ContextualModule`; None: codes are noise, and
            features the sigmoid of the feature map.
        hidden_channels: of the layer that discriminator and classifier share.
        dropout_ratio: behind it, in [0, 1).
        background_output: one output more than classes, which is never a target, as
            released. There it may be predicted, and then spoils the counts of the next
            class; here it never is.
        init_cfg: mmengine's weight initialisation.
        **kwargs: ``in_index``, ``ignore_index`` and others of mmseg's
            ``BaseDecodeHead``.

    Raises:
        ValueError: if there is no pyramid and ``channels`` are not those of the map.
    """

    #: Type of the segmentor that it belongs to.
    segmentor: str = 'CaGNet'

    def __init__(
        self,
        in_channels: int,
        channels: int = 600,
        *,
        num_classes: int,
        dilations: Sequence[int] = PYRAMID_DILATIONS,
        context: Mapping[str, Any] | None = {},
        hidden_channels: int = 1024,
        dropout_ratio: float = 0.5,
        background_output: bool = False,
        init_cfg: ConfigType | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels,
            channels,
            num_classes=num_classes,
            out_channels=num_classes,
            dropout_ratio=0,
            # Never called; without avg_non_ignore mmseg warns.
            loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
            init_cfg=init_cfg,
            **kwargs,
        )
        del self.conv_seg
        if not dilations and channels != in_channels:
            raise ValueError(
                f'model.decode_head.channels is {channels}, but without a pyramid '
                f'(dilations=()) features are the {in_channels} channels of the map'
            )
        layers = [
            nn.Conv2d(in_channels, channels, 3, padding=d, dilation=d)
            for d in dilations
        ]
        for layer in layers:
            nn.init.normal_(layer.weight, std=0.01)
        self.pyramid = nn.ModuleList(layers)
        self.context: nn.Module = (
            NoContext() if context is None else ContextualModule(channels, **context)
        )
        self.discriminator = ClassifyingDiscriminator(
            channels,
            hidden_channels,
            num_classes + background_output,
            dropout=dropout_ratio,
        )

    def embed(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the feature map ``(N, C, h, w)``, without an activation."""
        x = self._transform_inputs(inputs)
        if not self.pyramid:
            return x
        return torch.stack([layer(x) for layer in self.pyramid]).sum(dim=0)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return all logits ``(N, K or K + 1, h, w)`` for codes that are means."""
        features = self.context(self.embed(inputs)).features
        return self.discriminator(features)[1]

    def predict(
        self,
        inputs: Sequence[Tensor],
        batch_img_metas: list[dict],
        test_cfg: ConfigType | None,
    ) -> Tensor:
        """Return the logits of classes ``(N, K, h, w)``, at the size of features."""
        return self.forward(inputs)[:, : self.num_classes]

    def loss(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Refuse: its parts learn in steps of several optimisers."""
        raise RuntimeError(
            'CaGNetHead has no loss of its own: its parts learn in the steps of the '
            "segmentor, set model.type='CaGNet'"
        )


def nearest(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Resize label maps ``(N, H, W)`` to ``size``, each pixel to the nearest one."""
    return F.interpolate(labels[:, None].float(), tuple(size), mode='nearest')[:, 0].to(
        labels.dtype
    )
