"""SAZS: pixels against text rows, with a head for edges beside them (CVPR 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.models.losses import BoundaryLoss
from mmseg.registry import MODELS
from mmseg.utils import SampleList

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.losses import EdgeAttentionLoss
from zs3_mmseg.utils.labels import IGNORE_INDEX
from zs3_mmseg.utils.names import choose

from .esda_head import BACKGROUND, VOID_PIXELS
from .zero_shot_head import ScoreKind, ZeroShotHead, pixel_accuracy, single_rows


class SAZSOutputs(NamedTuple):
    """What the losses read: ``logits`` ``(N, K, h, w)``, ``edges`` ``(N, 1, h, w)``."""

    logits: Tensor
    edges: Tensor


@MODELS.register_module()
class SAZSHead(ZeroShotHead):
    r"""Dot products of pixels and text rows, and a 1x1 convolution that finds edges.

    :math:`z_k = v \cdot t_k` of a pixel :math:`v` and a row :math:`t_k`, neither of
    them scaled, and the edge logit :math:`e = w \cdot v + b`. It trains with

    .. math:: L = L_{seg} + w_e L_{edge} + w_a L_{att}

    all at the resolution of the features, with every n-th label: cross-entropy of the
    scores, mmseg's ``BoundaryLoss`` of :math:`e`, and :class:`EdgeAttentionLoss`. The
    fourth term of the paper, an "inverse form" of the edges, is a constant without
    gradient in the released code, and is left out.

    In :class:`ClassPromptedSegmentor` each image has two rows, that of ``other_name``
    and that of its name, as in the released code. In :class:`ZeroShotEncoderDecoder`
    all classes compete, which is ours. The rows should be those of the text tower as
    they are: ``class_embeddings=dict(normalize=False)``.

    Args:
        in_channels: channels of the pixels.
        embed_dim: length of a text row; the same number.
        edge_weight: :math:`w_e`.
        attention_weight: :math:`w_a`.
        edge_threshold: of :class:`EdgeAttentionLoss`.
        void_pixels: ``'ignore'``, or ``'background'``, for pairs of an image and a name
            only: pixels without a label count as anything else, as in the released
            code.
        **kwargs: see :class:`ZeroShotHead`.

    Raises:
        ValueError: for negative weights, an unknown ``void_pixels``, or rows of another
            length than the pixels; in training, for samples without ``gt_edge_map``.
    """

    score_kind: ScoreKind = 'softmax'
    pair_rows = 2
    #: Data of training samples beside their labels, and the transform that makes it.
    needed_data = {'gt_edge_map': 'GenerateClassEdges'}

    def __init__(
        self,
        in_channels: int,
        *,
        embed_dim: int | None = None,
        edge_weight: float = 0.3,
        attention_weight: float = 0.1,
        edge_threshold: float = 0.8,
        void_pixels: str = 'ignore',
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, **kwargs)
        if edge_weight < 0 or attention_weight < 0:
            raise ValueError(
                'SAZSHead.edge_weight and attention_weight must be >= 0, got '
                f'{edge_weight} and {attention_weight}'
            )
        if embed_dim not in (None, in_channels):
            raise ValueError(
                f'SAZSHead multiplies pixels of {in_channels} channels with text rows '
                f'of {embed_dim} values: set model.backbone.out_channels={embed_dim}, '
                'or another text tower'
            )
        self.void_pixels = choose('void_pixels', void_pixels, VOID_PIXELS)
        self.edge = nn.Conv2d(in_channels, 1, 1)
        self.edge_loss = BoundaryLoss(loss_weight=edge_weight)
        self.attention_loss = EdgeAttentionLoss(
            threshold=edge_threshold, loss_weight=attention_weight
        )

    def query_logits(
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        global_token: Tensor | None = None,
    ) -> Tensor:
        """Return dot products ``(N, Q, h, w)``.

        Args:
            inputs: maps ``(N, D, h, w)``.
            queries: the rows of all images ``(Q, D)``, or of each ``(N, Q, D)``.
            global_token: not read.

        Raises:
            ValueError: if rows and pixels differ in length.
        """
        pixels = self._transform_inputs(inputs)
        rows = single_rows(queries, 'SAZSHead')
        if pixels.shape[1] != rows.shape[-1]:
            raise ValueError(
                f'SAZSHead: pixels have {pixels.shape[1]} channels and text rows '
                f'{rows.shape[-1]}: set model.backbone.out_channels={rows.shape[-1]}'
            )
        if self.void_pixels == 'background' and rows.ndim == 2:
            raise ValueError(
                "decode_head.void_pixels='background' is for pairs of an image and a "
                "name (ClassPromptedSegmentor): set it to 'ignore'"
            )
        with torch.autocast(pixels.device.type, enabled=False):
            maps = rows.float() @ pixels.flatten(2).float()  # (N, Q, hw)
        return maps.unflatten(2, pixels.shape[2:])

    def training_outputs(
        self, inputs: Sequence[Tensor], *, queries: ClassQueries, **given: Any
    ) -> SAZSOutputs:
        """Return the scores and the edge logits."""
        logits = self.forward(inputs, queries=queries, **given)
        return SAZSOutputs(logits, self.edge(self._transform_inputs(inputs)))

    def class_logits(self, outputs: SAZSOutputs) -> Tensor:
        """Return the scores, without the edges."""
        return outputs.logits

    def loss_by_feat(
        self, outputs: SAZSOutputs, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Compute the losses at the resolution of the features.

        Args:
            outputs: what :meth:`training_outputs` returned.
            batch_data_samples: samples with ``gt_sem_seg`` and ``gt_edge_map``
                ``(1, H, W)``; the latter has 1 near a contour, 0 elsewhere and anything
                above 1 where that is not known.

        Returns:
            ``loss_seg``, ``loss_edge`` and ``loss_attention``, weighted, and
            ``acc_seg`` in percent, which is logged but not a loss.
        """
        full = self._stack_batch_gt(batch_data_samples)  # (N, 1, H, W)
        edges = _edge_maps(batch_data_samples, full.shape[2:])
        if self.void_pixels == 'background':
            full = full.masked_fill(full == self.ignore_index, BACKGROUND)
        logits = outputs.logits.float()
        labels, targets = (_sampled(maps, logits.shape[2:]) for maps in (full, edges))
        ignore = self.ignore_index
        summed = F.cross_entropy(logits, labels, ignore_index=ignore, reduction='sum')
        return {
            'loss_seg': summed / (labels != ignore).sum().clamp(min=1),
            'loss_edge': self.edge_loss(outputs.edges.float(), targets),
            'loss_attention': self.attention_loss(
                logits, outputs.edges.float(), labels, ignore
            ),
            'acc_seg': pixel_accuracy(logits, full.squeeze(1), **self._label_options),
        }


def _edge_maps(samples: SampleList, size: Sequence[int]) -> Tensor:
    """Return the edge targets ``(N, 1, H, W)``, not known beyond the images."""
    maps = []
    for sample in samples:
        if 'gt_edge_map' not in sample:
            path = sample.metainfo.get('img_path', 'a training sample')
            raise ValueError(
                f"{path} has no gt_edge_map: put dict(type='GenerateClassEdges') "
                'before PackSegInputs in the training pipeline'
            )
        edges = sample.gt_edge_map.data
        missing = (0, size[1] - edges.shape[2], 0, size[0] - edges.shape[1])
        maps.append(F.pad(edges, missing, value=IGNORE_INDEX))
    return torch.stack(maps)


def _sampled(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Take every n-th pixel of maps ``(N, 1, H, W)``, from the first; ``(N, h, w)``."""
    return F.interpolate(maps.float(), size=tuple(size), mode='nearest')[:, 0].long()
