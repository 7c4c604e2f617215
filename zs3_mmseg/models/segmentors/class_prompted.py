"""A segmentor of "here is an image and one name"."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmseg.registry import MODELS
from mmseg.utils import ConfigType, OptConfigType, SampleList, add_prefix

from zs3_mmseg.models.backbones.outputs import TowerOutput
from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.decode_heads.zero_shot_head import single_rows
from zs3_mmseg.models.losses.divisors import Divisor, head_divisors
from zs3_mmseg.models.resize import resize_maps
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.names import did_you_mean

from .encoder_decoder import ZeroShotEncoderDecoder, call_with, with_labels
from .inference import GROUPS, covered_size
from .input_image import input_image
from .vocabulary import Vocabulary


def rows_of(
    prompts: Sequence[str], names: Sequence[str], queries: ClassQueries
) -> list[int]:
    """Find the queries of prompts; ``names`` are those of all classes in order."""
    missing = [prompt for prompt in prompts if prompt not in names]
    if missing:
        raise ValueError(
            f'the prompt {missing[0]!r} is none of the {len(names)} classes with rows '
            f'here.{did_you_mean(missing[0], names)} Do data set and model have the '
            'same split?'
        )
    found = [list(names).index(prompt) for prompt in prompts]
    for prompt, place in zip(prompts, found, strict=True):
        if queries.queries_per_class[place] > 1:
            raise ValueError(
                f'the prompt {prompt!r} has synonyms, and a mask is asked for by one '
                'name at a time: give each of them a class of its own'
            )
    return [sum(queries.queries_per_class[:place]) for place in found]


def _picked(output: TowerOutput, index: Tensor) -> TowerOutput:
    """Return the outputs of some images, ``(N,)``, in place of all of them."""
    tokens = output.global_token, output.cls_tokens, output.group_tokens
    return TowerOutput(
        tuple(maps[index] for maps in output.maps),
        *(None if token is None else token[index] for token in tokens),
    )


@MODELS.register_module()
class ClassPromptedSegmentor(ZeroShotEncoderDecoder):
    """Segments one named class at a time, and whole vocabularies name by name.

    **Pairs.** Samples of :class:`~zs3_mmseg.datasets.ClassPromptDataset` carry
    ``prompt_name``; the head tells the named class from everything else. Training is
    on pairs only. Predictions of such samples are masks of 0 and 1, where the logit of
    foreground beats that of background at the size of the label map; calibrators and
    ``score_thr`` have no part in it.

    **Whole vocabularies**, which is ours and not in the papers of such methods. Samples
    without ``prompt_name`` get the scores of all current classes, one pass per name,
    ``test_cfg.name_batch_size`` pairs (16) at a time. Text is encoded once per
    vocabulary, and the part of the image tower that names share runs once per image.
    A name's score is the probability of foreground against background, so
    ``score_kind`` is ``'sigmoid'``, and calibrators, windows, ``set_classes`` and
    metrics are those of :class:`ZeroShotEncoderDecoder`. Names that are not in an image
    are asked for here, which published training never does: see
    ``ClassPromptDataset(negatives=...)`` and the calibrator ``ImageLevelGate``, which
    gets the global token of the tower without class names.

    Args:
        backbone: config of the backbone. One that reads names, as
            ``OpenCLIPViT(replace_cls=..., priors=...)``, gets the row of each name.
        decode_head: config of a head with two channels. Its methods may declare
            ``queries`` (one row per pair, or two: see ``other_name``), ``text_tokens``
            and ``global_token``. ``in_index`` is 0 where it is left out.
        class_embeddings: config of a ``ClassEmbeddingBank``, or a bank; with
            ``token_features=True`` the head gets them as ``text_tokens``.
        split: as in :class:`ZeroShotEncoderDecoder`. A class has one name here.
        setting: ``'inductive'`` or ``'supervised'``.
        other_name: the text that stands for anything but the named class, for heads
            with ``pair_rows=2``, whose ``queries`` are its row and that of the name:
            ``(N, 2, D)``; ``'others'`` in LSeg. It is saved with the rows of the names.
        test_cfg: see :class:`InferenceOptions`; ``name_batch_size`` besides.
        **kwargs: see :class:`ZeroShotEncoderDecoder`; there are no auxiliary heads.

    Raises:
        ValueError: if options do not fit each other; the message names the key.
    """

    #: Whether training samples are pairs of an image and a name.
    reads_prompts = True
    _channels_are_classes = False

    def __init__(
        self,
        backbone: ConfigType,
        decode_head: ConfigType,
        *,
        class_embeddings: ConfigType | Any = None,
        split: Any = None,
        setting: str | None = None,
        other_name: str | None = None,
        test_cfg: OptConfigType = None,
        **kwargs: Any,
    ) -> None:
        self.other_name = other_name
        if setting in ('transductive', 'unseen_location'):
            raise ValueError(
                f'ClassPromptedSegmentor: setting={setting!r} needs pixels that some '
                'unseen class may claim, which a mask of one class has not; use '
                "setting='inductive' or 'supervised'"
            )
        if kwargs.get('auxiliary_head') is not None:
            raise ValueError('ClassPromptedSegmentor has no auxiliary_head: set None')
        super().__init__(
            backbone,
            decode_head,
            class_embeddings=class_embeddings,
            split=split,
            setting=setting,
            test_cfg=test_cfg,
            **kwargs,
        )

    def _check_vocabulary(self, vocabulary: Vocabulary) -> None:
        if vocabulary.bank is None:
            raise ValueError(
                'ClassPromptedSegmentor reads class names: set model.class_embeddings'
            )
        split = vocabulary.split
        several = [name for name in split.classes if '|' in name]
        if several:
            raise ValueError(
                f'ClassPromptedSegmentor asks for one name at a time, but split '
                f'{split.name!r} has {several[0]!r}'
            )
        if self.other_name is not None:
            if not self.other_name.strip() or '|' in self.other_name:
                raise ValueError(
                    f'other_name={self.other_name!r} must be one text without synonyms'
                )
            vocabulary.beside = (self.other_name,)

    def _init_decode_head(self, decode_head: ConfigType) -> None:
        """Build the head; maps beyond the first are not what it classifies."""
        decode_head.setdefault('in_index', 0)
        super()._init_decode_head(decode_head)

    def _check_options(self) -> None:
        super()._check_options()
        rows = getattr(self.decode_head, 'pair_rows', 1)
        if (self.other_name is not None) != (rows == 2):
            head = type(self.decode_head).__name__
            raise ValueError(
                f'{head} compares a name with everything else: set model.other_name, '
                "such as 'others'"
                if rows == 2
                else f'{head} reads one row for each name: leave out model.other_name'
            )
        channels = getattr(self.decode_head, 'out_channels', 2)
        if rows == 1 and channels != 2:
            raise ConfigError(
                f'model.decode_head ({type(self.decode_head).__name__}) has {channels} '
                'channels, and ClassPromptedSegmentor tells one name from the rest: '
                'use a head with two, such as ESDAHead, or set '
                "model.type='ZeroShotEncoderDecoder'"
            )
        wanted = inspect.signature(self.decode_head.forward).parameters
        tokens = wanted.get('text_tokens')
        needs_tokens = tokens is not None and tokens.default is inspect.Parameter.empty
        if needs_tokens and not self.vocabulary.has_tokens:
            raise ValueError(
                f'{type(self.decode_head).__name__} reads the outputs of all text '
                'tokens: set model.class_embeddings.token_features=True'
            )
        if self._reads_image:
            raise ValueError(
                f'{type(self.decode_head).__name__} asks for the image, which '
                'ClassPromptedSegmentor does not give'
            )
        # A backbone that does not tell has priors of its own.
        no_priors = getattr(self.backbone, 'priors', None) == ()
        if no_priors and hasattr(self.decode_head, 'prior_index'):
            raise ValueError(
                f'{type(self.decode_head).__name__} reads priors, and the backbone '
                'makes none: set model.backbone.priors'
            )
        for calibrator in self.calibrators:
            if calibrator.needs_global_token and not hasattr(
                self.backbone, 'image_token'
            ):
                raise ValueError(
                    f'{type(calibrator).__name__} needs the global token of an image '
                    f'without any name, which {type(self.backbone).__name__} does not '
                    'give: use OpenCLIPViT, or a backbone with image_token(images)'
                )

    @property
    def score_kind(self) -> str:
        """Scores of a vocabulary are probabilities of each name on its own."""
        return 'sigmoid'

    # -- pairs ---------------------------------------------------------------------

    def loss(self, inputs: Tensor, data_samples: SampleList) -> dict[str, Tensor]:
        """Return the losses of a batch of pairs.

        Args:
            inputs: ``(N, 3, H, W)``.
            data_samples: with ``prompt_name``, and ``gt_sem_seg`` ``(1, H, W)`` of 1
                (named class), 0 (anything else) and ignored pixels.

        Raises:
            ValueError: if a sample has no name, or one that has no row in training.
        """
        prompts = self._prompted(data_samples)
        if prompts is None:
            raise ValueError(
                'ClassPromptedSegmentor is trained on pairs of an image and a name: '
                "wrap the training data in dict(type='ClassPromptDataset', ...)"
            )
        names = self.training_names()
        rows = self.training_queries()
        queries = self._pair_queries(rows, rows_of(prompts, names, rows))
        head, foreground = self.decode_head, None
        labels = self._covered_labels(inputs, data_samples)
        if hasattr(head, 'foreground'):
            foreground = head.foreground(labels)
        maps, given = self._of_pairs(
            self._shared(inputs), queries, foreground=foreground
        )
        samples = with_labels(data_samples, labels)
        outputs = self._training_outputs(head, maps, given)
        losses = self._losses_by_feat(head, maps, outputs, samples, given)
        return add_prefix(losses, 'decode')

    def loss_divisors(
        self, inputs: Tensor, data_samples: SampleList
    ) -> dict[str, Divisor]:
        """Return what the losses of a batch of pairs are divided by, by their names."""
        labels = self._covered_labels(inputs, data_samples)
        own = head_divisors(self.decode_head, with_labels(data_samples, labels))
        return add_prefix(own, 'decode')

    def _pair_queries(
        self, queries: ClassQueries, which: Sequence[int] | Tensor
    ) -> ClassQueries:
        """Return what the head reads of pairs with some of the queries."""
        pairs = queries.rows(which)
        if self.other_name is None:
            return pairs
        single_rows(pairs, type(self.decode_head).__name__)
        other = self.vocabulary.rows_of((self.other_name,), self._device_and_dtype()[0])
        return pairs.against(other[0].embeddings)

    # A backbone with ``forward_shared`` and ``forward_from``, as ``OpenCLIPViT``, reads
    # the row of the name if it has ``replace_cls`` and, in training, where the class is
    # if it has ``priors``; what does not depend on the name runs once per image. Any
    # other backbone knows nothing of names: all of it runs once per image.

    def _shared(self, images: Tensor) -> Any:
        """Return what :meth:`_of_pairs` starts from, for images ``(B, 3, H, W)``."""
        if hasattr(self.backbone, 'forward_from'):
            return self.backbone.forward_shared(images)
        return self.backbone(images)

    def _of_pairs(
        self,
        state: Any,
        queries: ClassQueries,
        *,
        image_index: Tensor | None = None,
        foreground: Tensor | None = None,
    ) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        """Return maps ``(N, C, h, w)`` of ``N`` pairs, and the keywords for the head.

        ``queries`` has a row for each pair, ``image_index`` ``(N,)`` its image, by
        default the images in order, ``foreground`` ``(N, H, W)`` where its class is.
        """
        backbone = self.backbone
        if hasattr(backbone, 'forward_from'):
            output = TowerOutput.of(
                backbone.forward_from(
                    state,
                    queries.embeddings if backbone.replace_cls else None,
                    image_index=image_index,
                    foreground=foreground if backbone.priors else None,
                )
            )
        else:
            output = TowerOutput.of(state)
            if image_index is not None:
                output = _picked(output, image_index)
        return self._given(output, queries)

    @staticmethod
    def _prompted(data_samples: SampleList | None) -> list[str] | None:
        """Return the name that comes with each sample, None if there are none."""
        prompts = [s.metainfo.get('prompt_name') for s in data_samples or ()]
        names = [name for name in prompts if name is not None]
        if names and len(names) != len(prompts):
            raise ValueError('only some samples of this batch have a prompt_name')
        return names or None

    def _logits(
        self, state: Any, queries: ClassQueries, image_index: Tensor | None = None
    ) -> Tensor:
        """Return the head's logits ``(N, 2, h, w)`` of ``N`` pairs."""
        maps, given = self._of_pairs(state, queries, image_index=image_index)
        return call_with(self.decode_head.forward, maps, **given)

    def predict(
        self, inputs: Tensor, data_samples: SampleList | None = None
    ) -> SampleList:
        """Return samples with predictions at original size.

        Samples with ``prompt_name`` get the mask of that class: ``pred_sem_seg``
        ``(1, H, W)`` of 0 and 1, and ``seg_logits`` ``(2, H, W)`` unless
        ``test_cfg.return_scores`` says otherwise. Without names, see
        :class:`ZeroShotEncoderDecoder`.

        Raises:
            ValueError: if pairs come with ``test_cfg.mode='slide'`` or
                ``return_scores='groups'``, or a name is none of the current classes or
                has synonyms.
        """
        prompts = self._prompted(data_samples)
        if prompts is None:
            return super().predict(inputs, data_samples)
        assert data_samples is not None  # there are names
        options = self._inference_options
        if options.mode == 'slide':
            raise ValueError(
                'pairs of an image and a name are predicted from the whole image: set '
                "test_cfg.mode='whole'"
            )
        if options.return_scores == GROUPS:
            raise ValueError(
                "test_cfg.return_scores='groups' is for maps of all classes; a pair of "
                'an image and a name has one: set it to True or False'
            )
        queries = self.current_queries()
        chosen = self._pair_queries(
            queries, rows_of(prompts, self.class_names, queries)
        )
        logits = self._logits(self._shared(inputs), chosen).float()
        height, width = inputs.shape[2:]
        covered = covered_size(self.backbone, (height, width))
        for size in (options.mask_size, covered):
            if size is not None:
                logits = resize_maps(logits, size, self.align_corners)
        stream = [(slice(0, 2), logits[..., :height, :width])]
        metas = [sample.metainfo for sample in data_samples]
        pixels = None
        if len(self.post_processors):
            pixels = input_image(inputs, metas, self.data_preprocessor).pixels
        returned = options.return_scores
        streams = self._streams(stream, metas)
        return self._write(streams, 2, metas, data_samples, returned, pixels)

    # -- whole vocabularies --------------------------------------------------------

    def _features(
        self, inputs: Tensor, queries: ClassQueries | None, *_: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Return what all names share, and the image's own global token for gates."""
        token = None
        if any(calibrator.needs_global_token for calibrator in self.calibrators):
            token = self.backbone.image_token(inputs)
        return self._shared(inputs), dict(queries=queries, global_token=token)

    def _head_scores(self, maps: Any, metas: list[dict], given: dict) -> Tensor:
        """Return log-odds of foreground ``(B, Q, h, w)``, one pass per name."""
        queries: ClassQueries = given['queries']
        num_images, num_names = len(metas), len(queries.query_to_class)
        at_once = max(self._inference_options.name_batch_size // num_images, 1)
        images = torch.arange(num_images, device=queries.embeddings.device)
        parts = []
        for start in range(0, num_names, at_once):
            rows = torch.arange(
                start, min(start + at_once, num_names), device=images.device
            )
            logits = self._logits(
                maps,
                self._pair_queries(queries, rows.repeat(num_images)),  # by image
                images.repeat_interleave(len(rows)),
            )
            odds = logits[:, 1] - logits[:, 0]
            parts.append(odds.unflatten(0, (num_images, len(rows))))
        return torch.cat(parts, dim=1)

    def _forward(
        self, inputs: Tensor, data_samples: SampleList | None = None
    ) -> Tensor:
        """Return log-odds ``(N, Q, h, w)`` of all names at patch resolution."""
        queries = self.training_queries() if self.training else self.current_queries()
        maps, given = self._features(inputs, queries)
        return self._head_scores(maps, [{}] * len(inputs), given)
