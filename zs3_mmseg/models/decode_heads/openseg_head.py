"""OpenSeg: masks that know no class, named by the words of captions."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmengine.logging import print_log
from mmseg.registry import MODELS
from mmseg.utils import ConfigType, SampleList

from zs3_mmseg.datasets.splits import NameFinder, ZeroShotSplit
from zs3_mmseg.datasets.splits.name_files import read_names
from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.losses import GroundingLoss, best_dice_loss, mask_targets
from zs3_mmseg.models.proposers import Proposer
from zs3_mmseg.models.region_classifiers import mask_shares
from zs3_mmseg.utils.captions import WordFinder
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.names import as_list, synonyms_of

from .mask_scores import MaskScores
from .proposal_head import built_part, proposed
from .query_mask_head import require_divisible
from .query_masks import MLP, FPNPixelDecoder, QueryDecoder, resized
from .zero_shot_head import ScoreKind, ZeroShotHead, reduce_queries, single_rows


@dataclass(frozen=True)
class GroundedMasks:
    """What the queries found.

    Attributes:
        masks: ``(N, M, h, w)``, logits, or bool ones of a proposer.
        pixels: ``(N, D, h', w')``, in the space of the texts.
        embeddings: ``(N, M, D)`` of the masks, in the same; 0 of empty masks.
        class_scores: ``(N, M, K)``, 0..1.
    """

    masks: Tensor
    pixels: Tensor
    embeddings: Tensor
    class_scores: Tensor


@MODELS.register_module()
class OpenSegHead(ZeroShotHead):
    r"""Query masks, grounded in the words of captions (OpenSeg, arXiv 2112.12143).

    A pixel decoder makes mask features :math:`F^s` and pixel embeddings :math:`F^z` in
    the space of the texts, a query decoder :math:`M` queries :math:`q_i`. With
    :math:`m_{ip} = \sigma(\mathrm{MLP}(q_i) \cdot F^s_p)`, the embedding of a mask is
    (section 3.2)

    .. math:: z_i = \sum_p m_{ip} F^z_p \big/ \sum_p m_{ip},

    and pixel :math:`p` scores for class :math:`k` with text rows :math:`T_k`

    .. math:: \sum_i m_{ip}\, \mathrm{softmax}_k\bigl(s \max_{t \in T_k}
        \cos(z_i, t)\bigr).

    **Training** reads no class of any mask: ``best_dice_loss`` teaches masks (section
    3.1), and :class:`~zs3_mmseg.models.losses.GroundingLoss` names, by the words that
    the images' captions hold. Captions are the ``caption`` of the samples, see
    ``LoadCaptions``. Words that mean an unseen class are left out, unless
    ``unseen_words``.

    **With a proposer**, which is ours, its masks :math:`m_i` take the place of queries,
    only the pixel embeddings learn, and only from captions. Pixels then score the
    logarithm of the mean over the masks that lie on them (``'log_mean'``, see
    :class:`MaskScores`), and as themselves where none does.

    The head is what the paper describes where its formulas are given; the decoders are
    those of ZegFormer, as the paper's own code was not released for training.

    Args:
        in_channels: of the maps, fine to coarse.
        channels: of the query decoder.
        embed_dim: ``D``, length of a text row.
        words: what to look for in captions: a list, or a file with a word on each line;
            ``'a|b'`` are two words. None: the class names of the split.
        unseen_words: in zero-shot training, keep words that mean an unseen class. The
            paper does; results are weakly supervised then, and no longer inductive.
        proposer: config of a :class:`~zs3_mmseg.models.proposers.Proposer`, or one; see
            above. Images of a training are distorted anew each time, so that masks are
            not worth keeping: ``cache=False``. None: query masks.
        text_index: which map of the backbone is in the space of the texts already;
            :math:`F^z` is that map, plus what is learned, which begins at 0. None, as
            published: :math:`F^z` is learned from nothing.
        pixel_channels: of the pixel decoder's maps; ``channels`` if None.
        mask_channels: of :math:`F^s`; ``channels`` if None.
        num_queries: ``M``.
        num_layers: of the query decoder.
        num_heads: of its attentions; it divides ``channels``.
        feedforward_channels: inside its layers.
        dropout: in its layers.
        num_groups: of the pixel decoder's group norms; it divides its channels.
        scale: :math:`s`, a constant > 0.
        loss_grounding: options of :class:`~zs3_mmseg.models.losses.GroundingLoss`.
        mask_weight: of the loss of masks, >= 0; that of words counts 1.
        in_index: which maps of the backbone are read, fine to coarse.
        **kwargs: see :class:`ZeroShotHead`.

    Raises:
        ValueError: for numbers out of range, and widths that heads or groups do not
            divide.
        FileNotFoundError: if the file of words does not exist.
    """

    score_kind: ScoreKind = 'mask_sum'

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        *,
        embed_dim: int,
        words: Sequence[str] | str | os.PathLike | None = None,
        unseen_words: bool = False,
        proposer: ConfigType | Proposer | None = None,
        text_index: int | None = None,
        pixel_channels: int | None = None,
        mask_channels: int | None = None,
        num_queries: int = 128,
        num_layers: int = 6,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
        dropout: float = 0.1,
        num_groups: int = 32,
        scale: float = 100.0,
        loss_grounding: ConfigType | None = None,
        mask_weight: float = 1.0,
        in_index: Sequence[int] = (0, 1, 2, 3),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels,
            channels,
            in_index=in_index,
            input_transform='multiple_select',
            **kwargs,
        )
        pixel_channels = pixel_channels or channels
        require_divisible(
            num_heads=(num_heads, channels), num_groups=(num_groups, pixel_channels)
        )
        # Positions: rows and columns, sine and cosine.
        if channels % 4:
            raise ValueError(f'channels={channels} must be a multiple of 4')
        if not scale > 0 or mask_weight < 0:
            raise ValueError(
                f'OpenSegHead needs scale > 0 and mask_weight >= 0, got {scale=} and '
                f'{mask_weight=}'
            )
        self.words = None if words is None else listed_words(words)
        self.unseen_words = unseen_words
        self.proposer: Proposer | None = built_part(proposer)
        self.text_index = text_index
        self.scale = scale
        self.mask_weight = mask_weight
        self.loss_grounding = GroundingLoss(**(loss_grounding or {}))
        # Of the mask features, and of the pixel embeddings.
        self.widths = [0 if self.proposer else mask_channels or channels, embed_dim]
        self.pixel_decoder = FPNPixelDecoder(
            in_channels, pixel_channels, sum(self.widths), num_groups=num_groups
        )
        if self.proposer is None:
            self.query_decoder = QueryDecoder(
                in_channels[-1],
                channels,
                num_queries=num_queries,
                num_layers=num_layers,
                num_heads=num_heads,
                feedforward_channels=feedforward_channels,
                dropout=dropout,
            )
            self.mask_embed = MLP(channels, channels, channels, self.widths[0])
        self._known: tuple[tuple[str, ...], WordFinder, Tensor] | None = None
        self._draw()

    def _draw(self) -> None:
        self.pixel_decoder.draw()
        if self.proposer is None:
            self.query_decoder.draw()
        if self.text_index is not None:
            conv = self.pixel_decoder.mask_features
            for parameter in (conv.weight, conv.bias):
                assert parameter is not None
                nn.init.zeros_(parameter.data[self.widths[0] :])

    def init_weights(self) -> None:
        """Draw weights as for ZegFormer, unless ``init_cfg`` says otherwise."""
        super().init_weights()
        if self.init_cfg is None:
            self._draw()

    # -- what is found -------------------------------------------------------------

    def training_outputs(  # type: ignore[override]
        self, inputs: Sequence[Tensor], *, queries: ClassQueries, image: Any = None
    ) -> GroundedMasks:
        """Return masks, their embeddings and their class scores."""
        maps = self._transform_inputs(inputs)
        features, pixels = self.pixel_decoder(maps)[0].split(self.widths, dim=1)
        if self.text_index is not None:
            pixels = pixels + resized(inputs[self.text_index], pixels.shape[-2:])
        grid = (pixels.shape[2], pixels.shape[3])
        if self.proposer is None:
            found = self.query_decoder(maps[-1])[-1]
            masks = self.mask_embed(found) @ features.flatten(2)
            # The weights sum to 1 however small the masks are.
            shares = F.logsigmoid(masks).softmax(dim=2)
            masks = masks.unflatten(2, grid)
        else:
            masks = proposed(self.proposer, image, image.covered.shape[-2:])[0]
            covered = torch.stack([mask_shares(own, grid) for own in masks])
            # An empty mask has no weights, and no embedding.
            shares = covered / covered.sum(dim=2, keepdim=True).clamp(min=1e-8)
        embeddings = shares.to(pixels) @ pixels.flatten(2).transpose(1, 2)
        scores = self._class_scores(embeddings, queries)
        return GroundedMasks(masks, pixels, embeddings, scores)

    def _class_scores(self, embeddings: Tensor, queries: ClassQueries) -> Tensor:
        """Return the softmax ``(N, M, K)`` over classes, each with its best row."""
        rows = F.normalize(single_rows(queries, type(self).__name__), dim=-1)
        logits = self.scale * F.normalize(embeddings, dim=-1) @ rows.T
        return (
            reduce_queries(logits.flatten(0, 1), queries.queries_per_class, 'max')
            .unflatten(0, embeddings.shape[:2])
            .softmax(dim=-1)
        )

    def class_logits(self, outputs: GroundedMasks) -> Tensor:
        """Return the scores ``(N, K, h, w)`` of pixels, at mask resolution."""
        masks = outputs.masks
        masks = masks.sigmoid() if self.proposer is None else masks.float()
        sums = outputs.class_scores.transpose(1, 2) @ masks.flatten(2)
        return sums.unflatten(2, masks.shape[-2:])

    def forward(  # type: ignore[override]
        self, inputs: Sequence[Tensor], *, queries: ClassQueries, image: Any = None
    ) -> Tensor:
        """Return scores ``(N, K, h, w)`` at mask resolution."""
        given = dict(queries=queries, image=image)
        return self.class_logits(self.training_outputs(inputs, **given))

    def predict(  # type: ignore[override]
        self,
        inputs: Sequence[Tensor],
        batch_img_metas: list[dict],
        test_cfg: ConfigType | None,
        *,
        queries: ClassQueries | None = None,
        image: Any = None,
    ) -> MaskScores:
        """Return masks ``(N, M, h, w)`` and class scores ``(N, M, K)``."""
        queries = self._given_queries(queries)
        found = self.training_outputs(inputs, queries=queries, image=image)
        if self.proposer is None:
            return MaskScores(found.masks, found.class_scores)
        flat = found.pixels.flatten(2).transpose(1, 2)
        scores = self._class_scores(flat, queries).transpose(1, 2)
        fallback = scores.log().unflatten(2, found.pixels.shape[-2:])
        return MaskScores(
            found.masks,
            found.class_scores,
            mask_kind='prob',
            output='log_mean',
            fallback=fallback,
        )

    def query_logits(self, inputs: Sequence[Tensor], **given: Any) -> Tensor:
        """Refuse: there is one score per mask, not one map per row."""
        raise NotImplementedError('OpenSegHead has predict in place of query_logits')

    # -- training ------------------------------------------------------------------

    def loss_by_feat(  # type: ignore[override]
        self,
        outputs: GroundedMasks,
        batch_data_samples: SampleList,
        *,
        queries: ClassQueries,
        split: ZeroShotSplit,
        encode: Callable[[Sequence[str]], Tensor],
    ) -> dict[str, Tensor]:
        """Return ``loss_grounding``, and without a proposer ``loss_mask``.

        Args:
            outputs: what :meth:`training_outputs` returned.
            batch_data_samples: samples with ``caption`` in their metainfo, and
                ``gt_sem_seg`` ``(1, H, W)``; each label but ``ignore_index`` is one
                target mask, whichever it is, or one in each of the segments of
                ``gt_segments`` ``(1, H, W)``, if there are any.
            queries: rows of the training's classes.
            split: all classes.
            encode: gives the rows ``(W, D)`` of words.

        Raises:
            ConfigError: if samples have no caption, or no word is left to look for.
        """
        captions = [self._caption(sample) for sample in batch_data_samples]
        if self._known is None:
            self._known = self._words_of(queries, split, encode)
        words, finder, rows = self._known
        said = torch.zeros(len(captions), len(words), dtype=torch.bool)
        for own, caption in zip(said, captions, strict=True):
            own[finder.find(caption)] = True
        device = outputs.masks.device
        losses = dict(
            loss_grounding=self.loss_grounding(
                outputs.embeddings, rows.to(device), said.to(device)
            )
        )
        if self.proposer is None:
            maps = self._stack_batch_gt(batch_data_samples).squeeze(1)
            targets = mask_targets(maps, batch_data_samples, self.ignore_index)
            loss = best_dice_loss(outputs.masks, targets)
            losses['loss_mask'] = self.mask_weight * loss
        return losses

    def _caption(self, sample: Any) -> str:
        caption = sample.metainfo.get('caption')
        if not isinstance(caption, str):
            path = sample.metainfo.get('img_path', 'a training sample')
            raise ConfigError(
                f'{path} comes without a caption, which OpenSegHead learns from: add '
                "'caption' to meta_keys of PackSegInputs, and LoadCaptions before it "
                'if the data set has none (FolderSegDataset: captions/train.json)'
            )
        return caption

    def _words_of(
        self,
        queries: ClassQueries,
        split: ZeroShotSplit,
        encode: Callable[[Sequence[str]], Tensor],
    ) -> tuple[tuple[str, ...], WordFinder, Tensor]:
        """Return the words that may be read, what finds them, and their rows."""
        every = self.words or listed_words(split.classes)
        known = zip(queries.names, queries.seen_mask.tolist(), strict=True)
        trained = {name for name, seen in known if seen}
        hidden = [name for name in split.unseen if name not in trained]
        names = WordFinder(listed_words(hidden))
        # 'tvs' and 'tv set' tell of a 'tv', too.
        finder = NameFinder(hidden)
        told = [w for w in every if finder.find(w) is not None or names.find(w)]
        if told and self.unseen_words:
            print_log(
                f'OpenSegHead(unseen_words=True): captions tell of images that show '
                f'{as_list(told)}, which are unseen. Results are weakly supervised.',
                logger='current',
                level=logging.WARNING,
            )
        words = tuple(w for w in every if self.unseen_words or w not in told)
        if not words:
            raise ConfigError(
                'model.decode_head.words: every word means an unseen class, so that '
                'captions have nothing to tell'
            )
        return words, WordFinder(words), encode(words)


def listed_words(words: Sequence[str] | str | os.PathLike) -> tuple[str, ...]:
    """Return the words of a list or a file, each once; ``'a|b'`` are two."""
    if isinstance(words, str | os.PathLike):
        words = read_names(Path(words))
    return tuple(dict.fromkeys(each for word in words for each in synonyms_of(word)))
