"""SAM 3's detector: for each name, the masks that it means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmseg.registry import MODELS
from mmseg.utils import ConfigType, SampleList

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.names import choose
from zs3_mmseg.utils.transformers_models import load_pretrained, transformers_module

from .mask_scores import MaskScores
from .zero_shot_head import ScoreKind, ZeroShotHead

#: What a name's masks are.
KINDS = ('semantic', 'instances')
#: Logit of a mask that is not there; finite, as masks are resized.
NOWHERE = -1e4


@MODELS.register_module()
class SAM3Head(ZeroShotHead):
    r"""Prompts SAM 3 with each name (arXiv 2511.16719), through ``transformers``.

    For each name :math:`q`, the detector gives object queries :math:`i` with masks
    :math:`m_{qi}` and probabilities :math:`o_{qi}`, one mask :math:`u_q` of all that
    the name means, and the probability :math:`p_q` that this is in the picture at all.
    A pixel scores for the class of the name

    .. math:: \text{semantic: } p_q\, u_{qp}, \qquad
        \text{instances: } \sum_{i:\, p_q o_{qi} > \theta} p_q\, o_{qi}\, m_{qip}.

    Of the names of a class the one with the largest :math:`p_q` counts. Pixels whose
    best score is below ``prob_thd`` are background. Nothing is trained.

    Its class embeddings come from ``dict(type='sam3_text')`` with
    ``token_features=True``, its maps from ``SAM3Backbone``.

    Args:
        in_channels: of each of the maps.
        weights: see ``SAM3Backbone``; the same.
        kind: ``'semantic'`` or ``'instances'``.
        score_thr: :math:`\theta` in 0..1, of instances.
        use_presence: False: :math:`p_q` is 1, but for the choice among names.
        names_at_once: how many names run at once, >= 1.
        prob_thd: of the background, in 0..1; None: no background.
        bg_index: the class that is the background.
        in_index: which maps of the backbone are read, fine to coarse.
        **kwargs: see :class:`ZeroShotHead`.

    Raises:
        ModuleNotFoundError: without ``transformers``.
        ValueError: for numbers out of range.
    """

    score_kind: ScoreKind = 'mask_sum'

    def __init__(
        self,
        in_channels: int,
        *,
        weights: str | Path = 'facebook/sam3',
        kind: str = 'semantic',
        score_thr: float = 0.3,
        use_presence: bool = True,
        names_at_once: int = 4,
        prob_thd: float | None = None,
        bg_index: int = 0,
        in_index: Sequence[int] = (0, 1, 2),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            [in_channels] * len(in_index),
            in_index=in_index,
            input_transform='multiple_select',
            **kwargs,
        )
        if not 0 <= score_thr <= 1 or not 0 <= (prob_thd or 0) <= 1:
            raise ValueError(
                f'SAM3Head needs score_thr and prob_thd in 0..1, not {score_thr} and '
                f'{prob_thd}'
            )
        if names_at_once < 1:
            raise ValueError(f'names_at_once must be >= 1, not {names_at_once}')
        self.kind = choose('kind', kind, KINDS)
        self.score_thr = score_thr
        self.use_presence = use_presence
        self.names_at_once = names_at_once
        self.prob_thd = prob_thd
        self.bg_index = bg_index
        model = load_pretrained('Sam3Model', weights, 'SAM3Head.weights').eval()
        self.positions: Any = model.vision_encoder.neck.position_encoding
        # The backbone and the bank have these.
        del model.vision_encoder, model.text_encoder
        self.detector = model.requires_grad_(False)

    def train(self, mode: bool = True) -> SAM3Head:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def predict(  # type: ignore[override]
        self,
        inputs: Sequence[Tensor],
        batch_img_metas: list[dict],
        test_cfg: ConfigType | None,
        *,
        queries: ClassQueries,
    ) -> MaskScores:
        """Ask for each name.

        Args:
            inputs: feature maps ``(N, C, h, w)``, fine to coarse.
            batch_img_metas: not read.
            test_cfg: not read.
            queries: rows of ``K`` classes, with token features.

        Returns:
            mask logits ``(N, M, h, w)`` and class scores ``(N, M, K)``; pictures with
            fewer masks than others are filled up with masks that cover nothing.
        """
        maps = self._transform_inputs(inputs)
        if queries.token_features is None:
            raise ConfigError(
                'SAM3Head reads the tokens of names: set model.class_embeddings='
                "dict(type='ClassEmbeddingBank', source=dict(type='sam3_text'), "
                'token_features=True)'
            )
        masks, scores = [], []
        for image in range(len(maps[0])):
            found = self._of_image([each[image : image + 1] for each in maps], queries)
            masks.append(found[0])
            scores.append(found[1])
        return MaskScores(
            pad_sequence(masks, batch_first=True, padding_value=NOWHERE),
            pad_sequence(scores, batch_first=True),
        )

    def _of_image(
        self, maps: Sequence[Tensor], queries: ClassQueries
    ) -> tuple[Tensor, Tensor]:
        """Return mask logits ``(M, h, w)`` and scores ``(M, K)`` of one picture."""
        tokens = queries.token_features
        assert tokens is not None
        parts = [self._asked(maps, t) for t in tokens.split(self.names_at_once)]
        presence = torch.cat([present for _, _, present in parts])
        best = self._best_names(presence, queries)
        masks, scores = [], []
        for query, (own, sure) in enumerate(
            pair for m, s, _ in parts for pair in zip(m, s, strict=True)
        ):
            if not best[query]:
                continue
            if self.use_presence:
                sure = sure * presence[query]
            if self.kind == 'instances':
                own, sure = own[sure > self.score_thr], sure[sure > self.score_thr]
            row = sure.new_zeros(len(sure), queries.num_classes)
            row[:, queries.query_to_class[query]] = sure
            masks.append(own)
            scores.append(row)
        return torch.cat(masks), torch.cat(scores)

    def _asked(
        self, maps: Sequence[Tensor], tokens: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return masks ``(Q, M, h, w)``, their scores, and the presence of names."""
        module = transformers_module('SAM3Head')
        count = len(tokens)
        spread = [each.expand(count, -1, -1, -1) for each in maps]
        places = [self.positions(m.shape, m.device, m.dtype) for m in spread]
        # The last map of the encoder, which is cut off, is for tracking.
        seen = module.models.sam3.modeling_sam3.Sam3VisionEncoderOutput(
            fpn_hidden_states=(*spread, spread[-1]),
            fpn_position_encoding=(*places, places[-1]),
        )
        asked = module.modeling_outputs.BaseModelOutputWithPooling(pooler_output=tokens)
        found = self.detector(
            vision_embeds=seen,
            text_embeds=asked,
            attention_mask=tokens.any(dim=2).long(),
        )
        presence = found.presence_logits.sigmoid().flatten()
        if self.kind == 'semantic':
            masks = found.semantic_seg
            return masks, masks.new_ones(count, 1), presence
        return found.pred_masks, found.pred_logits.sigmoid(), presence

    @staticmethod
    def _best_names(presence: Tensor, queries: ClassQueries) -> Tensor:
        """Return which queries ``(Q,)`` count: of each class the likeliest one."""
        best = torch.zeros_like(presence, dtype=torch.bool)
        start = 0
        for count in queries.queries_per_class:
            best[start + int(presence[start : start + count].argmax())] = True
            start += count
        return best

    def query_logits(self, inputs: Sequence[Tensor], **given: Any) -> Tensor:
        """Refuse: names have masks of their own, not one map each."""
        raise NotImplementedError('SAM3Head has predict in place of query_logits')

    def loss_by_feat(
        self, outputs: Any, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Refuse to train.

        Raises:
            ValueError: always.
        """
        raise ValueError('SAM3Head trains nothing: test it with tools/test.py')

    def training_outputs(self, inputs: Sequence[Tensor], **given: Any) -> None:
        """Return nothing, see :meth:`loss_by_feat`."""
