"""The contract of heads that read class embeddings at run time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.utils import ConfigType, SampleList

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.losses import Divisor, pixel_cross_entropy
from zs3_mmseg.models.resize import resize_by_products, resize_maps
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.labels import IGNORE_INDEX
from zs3_mmseg.utils.names import choose


class RunningArgmax:
    """The best class of each pixel, over classes that come in slices.

    Of equal scores the first wins, as in ``argmax`` over all of them at once, and
    where any score is NaN, so is the best. ``num_classes`` counts the classes taken in.
    """

    def __init__(self) -> None:
        self.num_classes = 0
        self._best: tuple[Tensor, Tensor] | None = None

    def update(self, scores: Tensor, classes: Tensor | None = None) -> None:
        """Take in the scores ``(K', H, W)`` of the next classes, one at least.

        ``classes`` ``(K',)`` are their numbers, ascending; by default those that follow
        the classes taken in so far. ``scores`` may be written over afterwards.
        """
        if classes is None:
            first = self.num_classes
            classes = torch.arange(first, first + len(scores), device=scores.device)
        self.num_classes += len(scores)
        if self._best is None:
            best, index = scores.max(dim=0)
            self._best = best.contiguous(), classes[index].contiguous()
            return
        known, known_index = self._best
        # Which class is best is asked where one is better than all before, which
        # becomes rarer with every slice: on a CPU, asking takes far longer than amax.
        better = (scores.amax(dim=0) > known).flatten().nonzero().flatten()
        best, index = scores.flatten(1)[:, better].max(dim=0)
        known.view(-1)[better] = best
        known_index.view(-1)[better] = classes[index]

    def best(self) -> tuple[Tensor, Tensor] | None:
        """Return the best scores and their classes, ``(H, W)`` each; None if none."""
        return self._best


@dataclass(frozen=True)
class GatedLogits:
    """What a head returns that knows, besides, where pixels are of no seen class.

    Attributes:
        logits: ``(N, Q, h, w)``, as any head returns them.
        gate: ``(N, 1, h, w)``; its sigmoid is near 1 where a pixel looks unseen.
            Calibrators with ``needs_gate`` get it, see :class:`TrustGate
            <zs3_mmseg.models.calibrators.TrustGate>`.
    """

    logits: Tensor
    gate: Tensor

    def split(self, size: int) -> list[GatedLogits]:
        """Return parts of ``size`` images each, as ``Tensor.split`` does."""
        parts = zip(self.logits.split(size), self.gate.split(size), strict=True)
        return [GatedLogits(*part) for part in parts]


#: How the queries of a class (its synonyms) become one logit. ``max`` takes the best
#: synonym; ``sum`` adds their probabilities, which is a log-sum-exp of logits.
REDUCTIONS = ('max', 'sum')


def reduce_queries(
    logits: Tensor, queries_per_class: Sequence[int], how: str
) -> Tensor:
    """Reduce query logits ``(N, Q, ...)`` to class logits ``(N, K, ...)``.

    The queries of a class stand side by side; ``how`` is one of :data:`REDUCTIONS`. If
    every class has one query, ``logits`` itself is returned.
    """
    if not queries_per_class or len(queries_per_class) == logits.shape[1]:
        return logits
    parts = logits.split(list(queries_per_class), dim=1)
    if how == 'max':
        return torch.stack([part.amax(dim=1) for part in parts], dim=1)
    return torch.stack([part.logsumexp(dim=1) for part in parts], dim=1)


def single_rows(queries: ClassQueries, reader: str) -> Tensor:
    """Return the embeddings for a reader that knows one row per query."""
    prompts = getattr(queries, 'prompts_per_row', 1)
    if prompts > 1:
        raise ConfigError(
            f'{reader} reads one row per query, and here prompts_per_row={prompts}: '
            'let model.class_embeddings average the prompts of a name'
        )
    return queries.embeddings


@torch.no_grad()
def pixel_accuracy(
    logits: Tensor,
    labels: Tensor,
    *,
    ignore_index: int,
    align_corners: bool = False,
    class_chunk: int = 32,
) -> Tensor:
    """Percentage of labelled pixels whose class has the largest logit.

    Logits ``(N, K, h, w)`` are resized to the labels ``(N, H, W)`` image by image and
    ``class_chunk`` classes at a time; 0 if no pixel is labelled.
    """
    hits = torch.zeros((), device=logits.device)
    for image, truth in zip(logits.float().split(1), labels.split(1), strict=True):
        running = RunningArgmax()
        for part in image.split(class_chunk, dim=1):
            full = resize_by_products(part, truth.shape[-2:], align_corners)
            running.update(full[0])
        found = running.best()
        assert found is not None  # there is at least one class
        # An ignored label equals no class index, so it counts as no hit.
        hits += (found[1] == truth[0]).sum()
    return 100 * hits / (labels != ignore_index).sum().clamp(min=1)


ScoreKind = Literal['logit', 'sigmoid', 'softmax', 'mask_sum']


class ZeroShotHead(BaseDecodeHead):
    """Base of heads whose classes are rows of embeddings given with every call.

    It has four entry points, in the order in which they are called:

    - :meth:`query_logits` (maps, queries) -> ``(N, Q, h, w)``, one map per query at
      patch resolution. The method itself, and all that a subclass has to write. Called
      by the three below.
    - :meth:`training_outputs` (maps, queries) -> whatever the losses read; here the
      class logits ``(N, K, h, w)``. Override it to supervise more than the result, and
      :meth:`class_logits` with it, which finds the result in there. Called by the
      segmentor once per training step, and for a teacher.
    - :meth:`loss_by_feat` (training outputs, samples) -> losses; here softmax
      cross-entropy. Override it for another loss. Called by the segmentor after
      :meth:`training_outputs`; in between, in transductive training,
      :meth:`resolve_unlabelled` fills labels from the same outputs.
    - :meth:`predict` (maps, metas, test_cfg, queries) -> class logits ``(N, K, h, w)``,
      or ``MaskScores``. Override it if testing differs from training. Called by the
      segmentor in ``predict``, for whole images and windows.

    :meth:`forward` and :meth:`loss`, which ``BaseDecodeHead`` and direct callers have,
    only put these together. A subclass that overrides :meth:`loss` alone would be
    bypassed, and the segmentor refuses it. Methods get the keywords that they declare:
    ``queries`` and ``global_token``, or others that the segmentor offers.

    The class is a ``BaseDecodeHead`` so that mmseg's tools know it for a head, without
    ``conv_seg`` unless it sets ``uses_conv_seg``. ``num_classes`` and ``out_channels``
    only say how many classes there are now; the segmentor keeps them up to date.

    Args:
        in_channels: channels of the feature map(s) it reads.
        channels: inner width; ``in_channels`` if None.
        num_classes: initial number of classes.
        query_reduce: how a class's queries become one logit: ``'max'`` or ``'sum'``.
        in_index: which feature map(s) to read.
        input_transform: as in mmseg's ``BaseDecodeHead``.
        ignore_index: label that no loss counts.
        align_corners: of every bilinear resize of this head's maps.
        init_cfg: mmengine's weight initialisation.

    Raises:
        ValueError: for an unknown ``query_reduce``, or ``'sum'`` without a softmax.
    """

    #: What the mask logits turn into: ``'logit'`` stays as it is, ``'sigmoid'`` is one
    #: probability per class, ``'softmax'`` one distribution over all classes.
    score_kind: ScoreKind = 'softmax'
    #: Whether the head cannot do without the global token of the image.
    needs_global_token: bool = False
    #: Whether the head cannot do without the picture.
    needs_image: bool = False
    #: Type of the segmentor that it belongs to.
    segmentor: str = 'ZeroShotEncoderDecoder'
    #: Whether the head ends in mmseg's classifier.
    uses_conv_seg: bool = False
    #: What is in the place of options that other heads of mmseg take, for messages.
    instead_of: Mapping[str, str] = {
        'loss_decode': 'its loss is part of it and weighs all classes alike; losses of '
        'their own and class weights are for heads of mmseg, such as FCNHead, which '
        'the segmentor takes, too',
        'sampler': 'all labelled pixels count in its loss; hard ones are for heads of '
        'mmseg, such as FCNHead, which the segmentor takes, too',
        **dict.fromkeys(
            ('norm_cfg', 'conv_cfg', 'act_cfg', 'dropout_ratio'),
            'it has no layers of that kind: leave it out',
        ),
        'threshold': 'set model.test_cfg.score_thr',
        'out_channels': 'it has one channel for each class: leave it out',
    }
    #: What it reads of a pair of an image and a name: 1 row, of the name, or 2, that of
    #: anything else before it; see ``ClassPromptedSegmentor``.
    pair_rows: int = 1

    def __init__(
        self,
        in_channels: int | Sequence[int],
        channels: int | None = None,
        *,
        num_classes: int = 1,
        query_reduce: str = 'max',
        in_index: int | Sequence[int] = -1,
        input_transform: str | None = None,
        ignore_index: int = IGNORE_INDEX,
        align_corners: bool = False,
        init_cfg: ConfigType | None = None,
    ) -> None:
        self.check_reduction(query_reduce)
        if channels is None:
            channels = in_channels if isinstance(in_channels, int) else in_channels[-1]
        super().__init__(
            in_channels,
            channels,
            num_classes=num_classes,
            # Said explicitly, as mmseg warns about 1 and 2 classes otherwise.
            out_channels=num_classes,
            threshold=0.5,
            dropout_ratio=0,
            in_index=in_index,
            input_transform=input_transform,
            # Never called by this class; without avg_non_ignore mmseg warns.
            loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
            ignore_index=ignore_index,
            align_corners=align_corners,
            init_cfg=init_cfg,
        )
        if not self.uses_conv_seg:
            del self.conv_seg
        self.query_reduce = query_reduce

    def check_reduction(self, how: str) -> None:
        """Refuse a ``query_reduce`` that is unknown, or needs a joint softmax."""
        if choose('query_reduce', how, REDUCTIONS) == 'sum' and (
            self.score_kind != 'softmax'
        ):
            raise ValueError(
                "query_reduce='sum' adds probabilities of one softmax over all "
                f"queries; a head with score_kind={self.score_kind!r} needs 'max'"
            )

    @abstractmethod
    def query_logits(
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        global_token: Tensor | None = None,
    ) -> Tensor | GatedLogits:
        """Return mask logits at patch resolution, one map per query.

        Args:
            inputs: feature maps ``(N, C, h, w)``.
            queries: the ``Q`` rows and their classes.
            global_token: ``(N, E)`` token of the whole image, if there is one.

        Returns:
            ``(N, Q, h, w)``, also as :class:`GatedLogits`.
        """

    def forward(
        self, inputs: Sequence[Tensor], *, queries: ClassQueries, **given: Any
    ) -> Tensor:
        """Return class logits ``(N, K, h, w)``: query logits, reduced over synonyms.

        Like the others below, it hands on what :meth:`query_logits` declares.
        """
        logits = self.query_logits(inputs, queries=queries, **given)
        if isinstance(logits, GatedLogits):
            logits = logits.logits
        return reduce_queries(logits, queries.queries_per_class, self.query_reduce)

    def training_outputs(
        self, inputs: Sequence[Tensor], *, queries: ClassQueries, **given: Any
    ) -> Any:
        """Return what losses and pseudo-labels are made of: here the class logits."""
        return self.forward(inputs, queries=queries, **given)

    def loss_by_feat(
        self, outputs: Any, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Softmax cross-entropy at label resolution, see :func:`pixel_cross_entropy`.

        Args:
            outputs: what :meth:`training_outputs` returned, ``(N, K, h, w)``.
            batch_data_samples: samples with ``gt_sem_seg`` ``(1, H, W)``, indices into
                the classes of the queries or ``ignore_index``.

        Returns:
            ``loss_ce``, and ``acc_seg`` in percent, which is logged but not a loss.
        """
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)
        return {
            'loss_ce': pixel_cross_entropy(outputs, labels, **self._label_options),
            'acc_seg': pixel_accuracy(outputs, labels, **self._label_options),
        }

    def loss_divisors(self, batch_data_samples: SampleList) -> dict[str, Divisor]:
        """Return what each loss is divided by, by its name, and accuracy, too.

        Whoever overrides :meth:`loss_by_feat` overrides this, too, if the new losses
        are to be those of a whole step of the optimiser; see ``StepTrainLoop``.

        Args:
            batch_data_samples: as in :meth:`loss_by_feat`.
        """
        return dict.fromkeys(('loss_ce', 'acc_seg'), self._labelled(batch_data_samples))

    def _labelled(self, batch_data_samples: SampleList) -> Divisor:
        """Return the divisor of means over labelled pixels."""
        labels = self._stack_batch_gt(batch_data_samples)
        return Divisor((labels != self.ignore_index).sum())

    @property
    def _label_options(self) -> dict[str, Any]:
        """How logits and labels come together, for every loss."""
        return dict(ignore_index=self.ignore_index, align_corners=self.align_corners)

    def loss(
        self,
        inputs: Sequence[Tensor],
        batch_data_samples: SampleList,
        train_cfg: ConfigType | None,
        *,
        queries: ClassQueries | None = None,
        **given: Any,
    ) -> dict[str, Tensor]:
        """Return :meth:`loss_by_feat` of :meth:`training_outputs`."""
        queries = self._given_queries(queries)
        outputs = self.training_outputs(inputs, queries=queries, **given)
        return self.loss_by_feat(outputs, batch_data_samples)

    def predict(
        self,
        inputs: Sequence[Tensor],
        batch_img_metas: list[dict],
        test_cfg: ConfigType | None,
        *,
        queries: ClassQueries | None = None,
        **given: Any,
    ) -> Tensor:
        """Return class logits ``(N, K, h, w)`` at patch resolution.

        Unlike mmseg's heads it does not resize: the segmentor does, class chunk by
        class chunk.
        """
        return self.forward(inputs, queries=self._given_queries(queries), **given)

    def _given_queries(self, queries: ClassQueries | None) -> ClassQueries:
        """Return the queries, which mmseg's own segmentors do not give."""
        if queries is None:
            raise ConfigError(
                f'{type(self).__name__} reads class embeddings, and the segmentor '
                f'gives none: set model.type={self.segmentor!r}, with '
                'model.class_embeddings, split and setting'
            )
        return queries

    def class_logits(self, outputs: Any) -> Tensor:
        """Return the class logits ``(N, K, h, w)`` in :meth:`training_outputs`."""
        return outputs

    @torch.no_grad()
    def resolve_unlabelled(
        self,
        outputs: Any,
        labels: Tensor,
        *,
        queries: ClassQueries,
        unlabelled_index: int,
        threshold: float | None = None,
    ) -> Tensor:
        """Give unlabelled pixels the unseen class with the largest logit.

        The self-training of ZegCLIP (arXiv 2212.03588) does the same: only pixels
        known to be of an unseen class are filled, and only with unseen classes.

        Args:
            outputs: what :meth:`training_outputs` returned.
            labels: ``(N, H, W)`` long.
            queries: the rows that ``outputs`` belong to.
            unlabelled_index: the label to replace.
            threshold: pixels whose best unseen class scores less than this become
                ``ignore_index`` instead. Scores are those of :attr:`score_kind`, before
                any calibration: 0..1 for ``'sigmoid'`` and ``'softmax'``. None: all
                pixels are filled, as in ZegCLIP.

        Returns:
            new labels ``(N, H, W)`` without ``unlabelled_index``.

        Raises:
            ValueError: if no class is unseen.
        """
        unseen = torch.nonzero(~queries.seen_mask).flatten()
        if not unseen.numel():
            raise ConfigError(
                'unlabelled pixels can only become an unseen class, and no class is '
                "unseen here: use setting='supervised' or a split with unseen classes"
            )
        filled = [
            self._best_unseen(logits, unseen, labels.shape[-2:], threshold)
            for logits in self.class_logits(outputs).split(1)
        ]
        return torch.where(labels == unlabelled_index, torch.cat(filled), labels)

    def _best_unseen(
        self, logits: Tensor, unseen: Tensor, size: torch.Size, threshold: float | None
    ) -> Tensor:
        """Return the best unseen class of each pixel of one image, ``(1, H, W)``."""

        def full(maps: Tensor) -> Tensor:
            return resize_maps(maps.float(), size, self.align_corners)

        candidates = full(logits[:, unseen])
        best = unseen[candidates.argmax(dim=1)]
        if threshold is None:
            return best
        score = candidates.amax(dim=1)
        if self.score_kind == 'sigmoid':
            score = score.sigmoid()
        elif self.score_kind == 'softmax':
            score = (score - full(logits).logsumexp(dim=1)).exp()
        return torch.where(score >= threshold, best, self.ignore_index)
