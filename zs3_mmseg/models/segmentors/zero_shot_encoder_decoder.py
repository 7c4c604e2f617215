"""An mmseg encoder-decoder whose classes are rows of embeddings."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from torch import Tensor, nn

from mmengine.config import ConfigDict
from mmengine.logging import print_log
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.utils import ConfigType, OptConfigType, SampleList, add_prefix

from zs3_mmseg.datasets.splits import ZeroShotSplit, resolve_split
from zs3_mmseg.models.calibrators.base import SPACES
from zs3_mmseg.models.decode_heads.zero_shot_head import ScoreKind
from zs3_mmseg.utils.labels import special_labels

from .calls import call_with, declared, reads_queries
from .geometry import Size, covered_size
from .options import InferenceOptions
from .scored_inference import ScoredInference
from .self_training import SelfTraining
from .training_labels import LabelMapping, fill_up, stack_labels, with_labels
from .vocabulary import Vocabulary, new_vocabulary

SCORE_KINDS = get_args(ScoreKind)


@MODELS.register_module()
class ZeroShotEncoderDecoder(SelfTraining, ScoredInference, EncoderDecoder):
    """Encoder-decoder that is trained with some classes and tested with any.

    The decode head reads :class:`ClassQueries` at run time if its methods declare the
    keyword ``queries``, and the image's global token if they declare
    ``global_token``. Any other mmseg head works too; its classes are those it was
    built with, and the others of the split are never predicted.

    Labels arrive as indices into ``split.classes``. In inductive training only seen
    classes have rows, labels become positions among them, and all else is ignored. In
    transductive training all classes have rows, and the head fills the unlabelled
    pixels before any loss. In supervised training all classes have rows and labels.

    Args:
        backbone: config of the backbone. A last output ``(N, E)`` is the global token.
        decode_head: config of the decode head. ``in_channels`` and ``embed_dim`` are
            filled in from backbone and embeddings where a head that reads class
            embeddings leaves them out.
        class_embeddings: config of a ``ClassEmbeddingBank``, or a bank. None only if
            no head and no calibrator reads class embeddings.
        split: name of a split, a dict with ``classes`` and ``unseen``, or a split.
        setting: ``'inductive'``, ``'transductive'`` or ``'supervised'``.
        test_split: a split, as above, whose classes are the ones to predict, for
            cross-dataset testing; training and checkpoints keep ``split``. Their rows
            are those of ``class_embeddings``, also for names that a checkpoint has.
        pseudo_label_threshold: in transductive training, unlabelled pixels whose best
            unseen class scores less than this are ignored; None fills all of them.
        calibrators: configs of calibrators, or calibrators, in their order.
        neck: config of the neck; it gets the maps without the global token.
        auxiliary_head: config(s) of auxiliary heads.
        train_cfg: handed to the heads.
        test_cfg: see :class:`InferenceOptions`.
        data_preprocessor: as in mmseg.
        pretrained: as in mmseg.
        init_cfg: as in mmengine.

    Raises:
        ValueError: if options do not fit each other; the message names the key.
    """

    auxiliary_head: Any

    def __init__(
        self,
        backbone: ConfigType,
        decode_head: ConfigType,
        *,
        class_embeddings: ConfigType | Any | None,
        split: Any,
        setting: str,
        test_split: Any = None,
        pseudo_label_threshold: float | None = None,
        calibrators: Sequence[ConfigType | nn.Module] = (),
        neck: OptConfigType = None,
        auxiliary_head: Any = None,
        train_cfg: OptConfigType = None,
        test_cfg: OptConfigType = None,
        data_preprocessor: OptConfigType = None,
        pretrained: str | None = None,
        init_cfg: Any = None,
    ) -> None:
        self._init_classes(class_embeddings, split, setting)
        # mmengine's registries and mmseg write into configs: not into the caller's.
        super().__init__(
            backbone=ConfigDict(backbone),
            decode_head=ConfigDict(decode_head),
            neck=neck,
            auxiliary_head=auxiliary_head,
            train_cfg=train_cfg,
            test_cfg=ConfigDict(test_cfg or {}),
            data_preprocessor=data_preprocessor,
            pretrained=pretrained,
            init_cfg=init_cfg,
        )
        self.calibrators = nn.ModuleList(
            MODELS.build(c) if isinstance(c, Mapping) else c for c in calibrators
        )
        self._init_self_training(pseudo_label_threshold)
        self._check_options(class_embeddings)
        self._init_label_mappings()
        self.test_split = self.split
        self._use(self._trained_vocabulary, None)
        if test_split is not None:
            self._test_on(resolve_split(test_split))

    def _init_decode_head(self, decode_head: ConfigType) -> None:
        """Build the head, with widths that only backbone and rows know."""
        kind = decode_head.get('type')
        head_class = MODELS.get(kind) if isinstance(kind, str) else kind
        if head_class is not None and reads_queries(head_class):
            wanted = declared(head_class)
            if 'in_channels' in wanted and 'in_channels' not in decode_head:
                width = self._backbone_width(decode_head.get('in_index', -1))
                if width is not None:
                    decode_head['in_channels'] = width
            if 'embed_dim' in wanted and 'embed_dim' not in decode_head:
                decode_head['embed_dim'] = self._row_width()
        super()._init_decode_head(decode_head)

    def _row_width(self) -> int | None:
        try:
            return self._rows.width
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'{error}. If a checkpoint brings the rows, say how long they are: set '
                'model.decode_head.embed_dim'
            ) from error

    def _backbone_width(self, in_index: Any) -> int | None:
        channels = getattr(self.backbone, 'out_channels', None)
        if self.with_neck or not isinstance(in_index, int):
            return None
        return channels[in_index] if isinstance(channels, (list, tuple)) else None

    def _check_options(self, class_embeddings: Any) -> None:
        InferenceOptions.from_cfg(self.test_cfg)
        if self.score_kind not in SCORE_KINDS:
            raise ValueError(
                f'{type(self.decode_head).__name__}.score_kind is '
                f'{self.score_kind!r}, expected one of {SCORE_KINDS}'
            )
        if self._needs_rows() and class_embeddings is None:
            raise ValueError(
                'class_embeddings is None, but the head or a calibrator reads class '
                'embeddings: set model.class_embeddings'
            )
        for name, head in self._named_heads():
            self._check_head(name, head)
        for calibrator in self.calibrators:
            if getattr(calibrator, 'space', None) not in SPACES:
                raise ValueError(
                    f'{type(calibrator).__name__} is no calibrator: its space must be '
                    f'one of {SPACES}'
                )
            has_token = getattr(self.backbone, 'out_global', True)
            if calibrator.needs_global_token and not has_token:
                raise ValueError(
                    f'{type(calibrator).__name__} needs the global token: set '
                    'model.backbone.out_global=True'
                )

    def _check_head(self, name: str, head: Any) -> None:
        num_classes, num_rows = len(self.split.classes), len(self.training_names())
        ignore = special_labels(num_classes).ignore
        # None belongs to losses that look at no ignored label.
        if getattr(head, 'ignore_index', None) not in (ignore, None):
            raise ValueError(
                f'{name}.ignore_index is {head.ignore_index}, but {num_classes} '
                f'classes need {ignore}: set it in the config'
            )
        if reads_queries(head) or head.out_channels in (num_rows, num_classes):
            return
        raise ValueError(
            f'{name}.num_classes gives {head.out_channels} channels, but split '
            f'{self.split.name!r} trains {num_rows} classes in the {self.setting} '
            f'setting: set num_classes={num_rows}'
        )

    def _init_label_mappings(self) -> None:
        names, classes = self.training_names(), self.split.classes
        indices = [classes.index(name) for name in names]
        common: dict[str, Any] = dict(
            num_classes=len(classes),
            special=special_labels(len(classes)),
            others_ignored=self.training_setting == 'inductive',
        )
        #: To positions among the rows, and to places among all classes.
        self._to_rows = LabelMapping(
            {c: row for row, c in enumerate(indices)}, **common
        )
        self._to_classes = LabelMapping({c: c for c in indices}, **common)
        self._trained_indices = indices

    # -- what the parts are --------------------------------------------------------

    def _named_heads(self) -> Iterator[tuple[str, Any]]:
        yield 'decode_head', self.decode_head
        if isinstance(getattr(self, 'auxiliary_head', None), nn.ModuleList):
            for index, head in enumerate(self.auxiliary_head):
                yield f'auxiliary_head[{index}]', head
        elif self.with_auxiliary_head:
            yield 'auxiliary_head', self.auxiliary_head

    def _reads_queries(self) -> bool:
        return reads_queries(self.decode_head)

    def _needs_rows(self) -> bool:
        return any(reads_queries(head) for _, head in self._named_heads()) or any(
            calibrator.needs_global_token for calibrator in self.calibrators
        )

    def _check_vocabulary(self, vocabulary: Vocabulary) -> None:
        rule, num_classes = self.label_rule, len(vocabulary.names)
        if rule.prob_thd is not None and rule.bg_index >= num_classes:
            raise ValueError(
                f'decode_head.bg_index={rule.bg_index} is none of the {num_classes} '
                'classes: set it, or decode_head.prob_thd=None'
            )
        if num_classes == 1 and self.score_kind == 'softmax':
            print_log(
                f'A softmax over one class is 1 everywhere: add names to tell '
                f'{vocabulary.names[0]!r} from, such as "background".',
                logger='current',
                level=logging.WARNING,
            )

    def _test_on(self, split: ZeroShotSplit) -> None:
        """Make the classes of another split the current ones."""
        self._require_open_classes()
        self.test_split = split
        names = new_vocabulary(split.classes, None, self._trained_vocabulary)
        self._test_vocabulary = names
        self._use(names, None)

    # -- training ------------------------------------------------------------------

    def loss(self, inputs: Tensor, data_samples: SampleList) -> dict[str, Tensor]:
        """Return the losses of a batch.

        Args:
            inputs: ``(N, 3, H, W)``.
            data_samples: with ``gt_sem_seg`` in indices of ``split.classes``; they are
                not changed.

        Raises:
            ValueError: if labels mean nothing, or are to be filled in and the head
                cannot do that.
        """
        maps, token = self._features(inputs)
        given: dict[str, Any] = {
            'queries': self.training_queries(),
            'global_token': token,
        }
        ignored = special_labels(len(self.split.classes)).ignore
        classes = self._covered_labels(inputs, data_samples, ignored)
        labels = self._to_rows(classes)
        head, losses = self.decode_head, {}
        if self.training_setting == 'transductive':
            self._require_pseudo_labels()
            outputs = call_with(head.training_outputs, maps, **given)
            labels = self._fill_unlabelled(inputs, outputs, labels)
            samples = with_labels(data_samples, labels)
            losses = call_with(head.loss_by_feat, outputs, samples, **given)
        else:
            samples = self._samples_for(head, data_samples, classes, labels)
            losses = call_with(head.loss, maps, samples, self.train_cfg, **given)
        losses = add_prefix(losses, 'decode')
        for name, head in list(self._named_heads())[1:]:
            samples = self._samples_for(head, data_samples, classes, labels)
            more = call_with(head.loss, maps, samples, self.train_cfg, **given)
            prefix = name.replace('auxiliary_head', 'aux').replace('[', '_').strip(']')
            losses.update(add_prefix(more, prefix))
        return losses

    def _covered_labels(
        self, inputs: Tensor, data_samples: SampleList, ignore_index: int
    ) -> Tensor:
        """Return the labels of all that the backbone's maps stand for, (N, H, W)."""
        size: Size = (inputs.shape[2], inputs.shape[3])
        covered = covered_size(self.backbone, size)
        return fill_up(stack_labels(data_samples), covered, ignore_index)

    def _samples_for(
        self, head: Any, samples: SampleList, classes: Tensor, labels: Tensor
    ) -> SampleList:
        """Return samples with the labels that a head's channels stand for."""
        if not reads_queries(head) and head.out_channels != len(self._trained_indices):
            labels = self._to_classes(classes)
        return with_labels(samples, labels)
