"""The decode head of ESDA (Image and Vision Computing 2025).

doi 10.1016/j.imavis.2025.105456. Known from its released code; the paper's own words
for the parts are not available here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS
from mmseg.utils import ConfigType, SampleList

from zs3_mmseg.models.backbones.blocks import run_block
from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.losses import Divisor, pixel_cross_entropy
from zs3_mmseg.models.precision import at_least_float32
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.labels import IGNORE_INDEX
from zs3_mmseg.utils.names import choose

from .zero_shot_head import (
    ScoreKind,
    ZeroShotHead,
    pixel_accuracy,
    single_rows,
)

#: What a prior near 1 stands for: ``'official'``, as the released code has it, for
#: background; ``'foreground'`` for the named class, as the word prior suggests.
PRIOR_TARGETS = ('official', 'foreground')


def prior_losses(
    priors: Tensor,
    labels: Tensor,
    *,
    target: str,
    ignore_index: int,
    align_corners: bool,
) -> tuple[Tensor, Tensor]:
    """Score prior maps ``p`` ``(N, P, h, w)`` in 0..1 as if they were logits.

    Cross-entropy of the channels ``(p, 1 - p)`` with the labels ``(N, H, W)``, 0
    background and 1 the named class: the official order, which scores ``p`` against
    background and so pushes the similarity of the named class down; ``(1 - p, p)`` for
    ``target='foreground'``. Returns the loss of the last map, and the mean loss of the
    others, 0 if there are none.
    """
    # The softmax of two values is the sigmoid of their difference, and a resize is
    # linear: one map stands for both channels.
    priors = at_least_float32(priors)
    odds = 1 - 2 * priors if target == 'official' else 2 * priors - 1
    counts = labels != ignore_index
    foreground = (labels == 1).to(odds)
    losses = []
    for prior_odds in odds.split(1, dim=1):
        full = F.interpolate(
            prior_odds,
            size=labels.shape[1:],
            mode='bilinear',
            align_corners=align_corners,
        ).squeeze(1)
        pixels = F.binary_cross_entropy_with_logits(full, foreground, counts.to(odds))
        losses.append(pixels * labels.numel() / counts.sum().clamp(min=1))
    *others, last = losses
    rest = torch.stack(others).mean() if others else last.new_zeros(())
    return last, rest


#: How tokens are put together after a layer, see :class:`VisionLanguageInteraction`.
TOKEN_ORDERS = ('official', 'fixed')


class VisionLanguageInteraction(nn.Module):
    """Layers of self-attention over all tokens, then over each kind by itself.

    A layer is a CLIP block (pre-norm, QuickGELU) over support and image tokens
    together, one over the image tokens (enhancement of the image), and in all layers
    but the last one over the support tokens (enhancement of the support).

    The released code joins the tokens as image, support after a layer, and takes the
    last ``h * w`` of them for the image again. From the second layer on the "image"
    is therefore shifted by the number of support tokens and ends with them, and so is
    the result. ``token_order='official'`` does the same, and is what official weights
    were trained with; ``'fixed'`` keeps the support in front.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        num_layers: int = 2,
        token_order: str = 'official',
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f'num_layers must be at least 1, not {num_layers}')
        if width % num_heads:
            raise ValueError(f'{width} channels do not divide into {num_heads} heads')
        self.token_order = choose('token_order', token_order, TOKEN_ORDERS)
        self.joint = _clip_blocks(num_layers, width, num_heads)
        self.image = _clip_blocks(num_layers, width, num_heads)
        self.support = _clip_blocks(num_layers - 1, width, num_heads)

    def forward(self, support: Tensor, image: Tensor) -> Tensor:
        """Return the image tokens ``(N, hw, D)`` after all layers.

        Support tokens are ``(N, S, D)``. With the official order what is returned are
        not all image tokens.
        """
        num_image = image.shape[1]
        tokens = torch.cat([support, image], dim=1)
        for index, joint in enumerate(self.joint):
            tokens = run_block(joint, tokens)
            support, image = tokens[:, :-num_image], tokens[:, -num_image:]
            image = run_block(self.image[index], image)
            if index < len(self.support):
                support = run_block(self.support[index], support)
            parts = [support, image]
            if self.token_order == 'official':
                parts.reverse()
            tokens = torch.cat(parts, dim=1)
        return tokens[:, -num_image:]


def _clip_blocks(count: int, width: int, num_heads: int) -> nn.ModuleList:
    from open_clip.transformer import QuickGELU, ResidualAttentionBlock

    return nn.ModuleList(
        ResidualAttentionBlock(width, num_heads, act_layer=QuickGELU)
        for _ in range(count)
    )


#: Labels of a class-prompted sample, and channels of the logits.
BACKGROUND, FOREGROUND = 0, 1
#: What the losses make of pixels without a label.
VOID_PIXELS = ('background', 'ignore')


@MODELS.register_module()
class ESDAHead(ZeroShotHead):
    """Foreground and background of one class name in each image (ESDA).

    The text of the name (its embedding and the outputs of all its tokens), text and
    image together, and the patches go through a
    :class:`VisionLanguageInteraction`; three convolutions and a
    classifier read the resulting map and the last prior of the backbone.

    It belongs to ``OpenCLIPViT(out_global=True, normalize=True, low_rank=2,
    replace_cls=..., priors=...)``, and everything comes in ``N`` pairs of an image and
    a name. Defaults are those of the released code.

    Args:
        in_channels: channels ``D`` of the patches.
        embed_dim: length ``E`` of text rows, token features and global token.
        num_heads: attention heads; None: one for each 64 channels.
        conv_channels: channels of the three convolutions.
        token_order: ``'official'`` or ``'fixed'``, see ``VisionLanguageInteraction``.
        prior_target: ``'official'`` trains priors to be small on the named class,
            ``'foreground'`` to be large.
        void_pixels: ``'background'``: the losses count pixels without a label as
            background, as the released code does by writing into the labels;
            ``'ignore'``: they do not count.
        prior_weights: weights of the losses of the last prior, and of the others.
        dropout_ratio: of whole channels, before the classifier.
        in_index: which of the backbone's maps holds the patches.
        prior_index: which holds the priors.
        ignore_index: label of pixels without a label.
        align_corners: of every bilinear resize of this head's maps.
        init_cfg: mmengine's weight initialisation.

    Raises:
        ValueError: for unknown options.
    """

    score_kind: ScoreKind = 'softmax'
    needs_global_token = True
    segmentor = 'ClassPromptedSegmentor'
    uses_conv_seg = True

    def __init__(
        self,
        in_channels: int,
        *,
        embed_dim: int,
        num_heads: int | None = None,
        conv_channels: Sequence[int] = (256, 128, 64),
        token_order: str = 'official',
        prior_target: str = 'official',
        void_pixels: str = 'background',
        prior_weights: Sequence[float] = (0.2, 0.1),
        dropout_ratio: float = 0.1,
        in_index: int = 0,
        prior_index: int = -1,
        ignore_index: int = IGNORE_INDEX,
        align_corners: bool = True,
        init_cfg: ConfigType | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            conv_channels[-1],
            num_classes=2,
            in_index=in_index,
            ignore_index=ignore_index,
            align_corners=align_corners,
            init_cfg=init_cfg,
        )
        if dropout_ratio > 0:
            self.dropout = nn.Dropout2d(dropout_ratio)
        if len(prior_weights) != 2:
            raise ValueError(
                'prior_weights are two, of the last prior and of the others, got '
                f'{tuple(prior_weights)}'
            )
        self.embed_dim = embed_dim
        self.prior_index = prior_index
        self.prior_target = choose('prior_target', prior_target, PRIOR_TARGETS)
        self.void_pixels = choose('void_pixels', void_pixels, VOID_PIXELS)
        self.last_prior_weight, self.other_prior_weight = prior_weights
        self.text_proj = nn.Linear(embed_dim, in_channels)
        self.joint_proj = nn.Linear(2 * embed_dim, in_channels)
        self.interaction = VisionLanguageInteraction(
            in_channels, num_heads or max(in_channels // 64, 1), token_order=token_order
        )
        self.convs = _convolutions(in_channels + 1, conv_channels)

    def query_logits(  # type: ignore[override]
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        text_tokens: Tensor,
        global_token: Tensor | None = None,
    ) -> Tensor:
        """Return logits of background and foreground at patch resolution.

        Args:
            inputs: maps of the backbone: patches ``(N, D, h, w)`` at ``in_index``,
                priors ``(N, P, h, w)`` at ``prior_index``.
            queries: ``embeddings`` ``(N, E)``: the row of each pair's name.
            text_tokens: ``(N, L, E)``, outputs of all tokens of each pair's name.
            global_token: ``(N, E)``, of the image prompted with the name.

        Returns:
            ``(N, 2, h, w)``.

        Raises:
            ValueError: if an input is missing or of another shape.
        """
        patches, priors = inputs[self.in_index], self._priors(inputs)
        rows = single_rows(queries, 'ESDAHead')
        if global_token is None:
            raise ConfigError(
                'ESDAHead needs the global token of the image: set '
                'backbone.out_global=True'
            )
        self._check_text(len(patches), rows, text_tokens, global_token)
        joined = torch.cat([rows, global_token], dim=-1)
        support = torch.cat(
            [
                self.text_proj(rows).unsqueeze(1),
                self.text_proj(text_tokens),
                self.joint_proj(joined).unsqueeze(1),
            ],
            dim=1,
        )  # (N, 1 + L + 1, D)
        image = self.interaction(support, patches.flatten(2).transpose(1, 2))
        features = image.transpose(1, 2).unflatten(2, patches.shape[-2:])
        return self.cls_seg(
            self.convs(torch.cat([features, priors[:, -1:].to(features)], dim=1))
        )

    # A pair has one row, so there are no synonyms to reduce.
    forward = query_logits  # type: ignore[assignment]

    def training_outputs(  # type: ignore[override]
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        text_tokens: Tensor,
        global_token: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the logits ``(N, 2, h, w)`` and the priors ``(N, P, h, w)``."""
        logits = self.forward(
            inputs, queries=queries, text_tokens=text_tokens, global_token=global_token
        )
        return logits, self._priors(inputs)

    def class_logits(self, outputs: tuple[Tensor, Tensor]) -> Tensor:
        """Return the logits, without the priors."""
        return outputs[0]

    def loss_by_feat(
        self, outputs: tuple[Tensor, Tensor], batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Cross-entropy of the logits and of the priors, at label resolution.

        ``CE(logits) + w_last CE(last prior) + w_rest mean CE(other priors)``, see
        :func:`prior_losses`.

        Args:
            outputs: what :meth:`training_outputs` returned.
            batch_data_samples: samples with ``gt_sem_seg`` ``(1, H, W)``: 1 on the
                named class, 0 elsewhere, ``ignore_index`` without a label. They are
                not changed.

        Returns:
            ``loss_ce``, ``loss_prior_last`` and ``loss_prior_rest``, weighted, and
            ``acc_seg`` in percent, which is logged but not a loss.
        """
        labels = self._targets(batch_data_samples)
        (logits, priors), options = outputs, self._label_options
        last, rest = prior_losses(priors, labels, target=self.prior_target, **options)
        return {
            'loss_ce': pixel_cross_entropy(logits, labels, **options),
            'loss_prior_last': self.last_prior_weight * last,
            'loss_prior_rest': self.other_prior_weight * rest,
            'acc_seg': pixel_accuracy(logits, labels, **options),
        }

    def loss_divisors(self, batch_data_samples: SampleList) -> dict[str, Divisor]:
        """Return what each loss is divided by: the pixels that count."""
        labels = self._targets(batch_data_samples)
        names = 'loss_ce', 'loss_prior_last', 'loss_prior_rest', 'acc_seg'
        return dict.fromkeys(names, Divisor((labels != self.ignore_index).sum()))

    def _targets(self, batch_data_samples: SampleList) -> Tensor:
        """Return the labels ``(N, H, W)`` of the losses, see ``void_pixels``."""
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)
        if self.void_pixels == 'background':
            labels = labels.masked_fill(labels == self.ignore_index, BACKGROUND)
        return labels

    def foreground(self, labels: Tensor) -> Tensor:
        """Return where the named class is, for the prototypes of the backbone.

        Labels ``(N, H, W)`` as in :meth:`loss_by_feat` give bools ``(N, H, W)``; pixels
        without a label are not foreground.
        """
        return labels == FOREGROUND

    def _priors(self, inputs: Sequence[Tensor]) -> Tensor:
        if len(inputs) < 2:
            raise ConfigError(
                'ESDAHead reads patches and priors, and the backbone gave one map: '
                'set backbone.priors'
            )
        return inputs[self.prior_index]

    def _check_text(
        self, num_pairs: int, rows: Tensor, tokens: Tensor, image: Tensor
    ) -> None:
        expected = {
            'queries.embeddings': (rows, (num_pairs, self.embed_dim)),
            'text_tokens': (tokens, (num_pairs, tokens.shape[1], self.embed_dim)),
            'global_token': (image, (num_pairs, self.embed_dim)),
        }
        for name, (tensor, shape) in expected.items():
            if tensor.shape != shape:
                raise ConfigError(
                    f'{name} is {tuple(tensor.shape)}, expected {shape} for '
                    f'{num_pairs} pairs of an image and a name; the text tower must be '
                    'as wide as its embeddings, and as model.decode_head.embed_dim'
                )


def _convolutions(in_channels: int, channels: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in channels:
        layers += [nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.ReLU()]
        in_channels = width
    return nn.Sequential(*layers)
