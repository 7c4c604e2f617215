"""A segmentor of "here is an image and one name"."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.utils import ConfigType, OptConfigType, SampleList, add_prefix

from zs3_mmseg.models.backbones.outputs import TowerOutput
from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.utils.names import did_you_mean

from .encoder_decoder import ZeroShotEncoderDecoder, with_labels
from .inference import (
    CropScores,
    ScoringRule,
    Size,
    call_with,
    covered_size,
    to_original,
)
from .vocabulary import Vocabulary


def pair_scores(
    logits: Tensor,
    crop: Size,
    backbone: nn.Module,
    *,
    mask_size: Size | None,
    align_corners: bool,
) -> Tensor:
    """Bring logits of background and foreground to input size, as all scores are.

    Args:
        logits: ``(N, 2, h, w)``.
        crop: size of the input in pixels.
        backbone: tells what its patch grid covers.
        mask_size: size on the way, as in ``test_cfg``.
        align_corners: of every resize.

    Returns:
        ``(N, 2, H, W)``.
    """
    channels = logits.shape[1]
    anything = ClassQueries(
        embeddings=logits.new_zeros(channels, 0),
        query_to_class=torch.arange(channels, device=logits.device),
        seen_mask=torch.ones(channels, dtype=torch.bool, device=logits.device),
    )
    rule = ScoringRule(
        score_kind='logit',
        query_reduce='max',
        calibrators=(),
        mask_size=mask_size,
        align_corners=align_corners,
        class_chunk=channels,
    )
    covered = covered_size(backbone, crop)
    scores = CropScores(logits, anything, None, crop=crop, covered=covered, rule=rule)
    return scores(slice(0, channels))


def rows_of(
    prompts: Sequence[str], names: Sequence[str], queries: ClassQueries
) -> list[int]:
    """Find the rows of prompts.

    Args:
        prompts: names of classes.
        names: of all classes, in the order of ``queries``.
        queries: the rows of the classes.

    Raises:
        ValueError: naming a prompt that is none of the names, or has several rows.
    """
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


class PromptedFeatures:
    """Runs a backbone for pairs; what does not depend on the name runs once per image.

    A backbone with ``forward_shared`` and ``forward_from``, as ``OpenCLIPViT``, reads
    the text row of the name if it has ``replace_cls``, and where the class is, in
    training, if it has ``priors``. Any other backbone knows nothing of names: all of
    it runs once per image.

    Args:
        backbone: the backbone.
        neck: run on the maps, or None.
    """

    def __init__(self, backbone: nn.Module, neck: Callable | None) -> None:
        self._backbone: Any = backbone
        self._neck = neck
        self._reads_names = hasattr(backbone, 'forward_from')

    def shared(self, images: Tensor) -> Any:
        """Return what :meth:`of_pairs` starts from, for images ``(B, 3, H, W)``."""
        if self._reads_names:
            return self._backbone.forward_shared(images)
        return self._backbone(images)

    def of_pairs(
        self,
        state: Any,
        rows: Tensor,
        *,
        image_index: Tensor | None = None,
        foreground: Tensor | None = None,
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Return maps ``(N, C, h, w)`` and global tokens ``(N, E)`` of ``N`` pairs.

        Args:
            state: what :meth:`shared` returned for ``B`` images.
            rows: ``(N, E)``, the text row of each pair.
            image_index: ``(N,)``, the image of each pair; None: the images in order.
            foreground: ``(N, H, W)``, where the named class is; in training only.
        """
        if self._reads_names:
            reads_text = bool(self._backbone.replace_cls)
            reads_mask = bool(self._backbone.priors)
            outputs = self._backbone.forward_from(
                state,
                rows if reads_text else None,
                image_index=image_index,
                foreground=foreground if reads_mask else None,
            )
        else:
            outputs = (state,) if isinstance(state, Tensor) else tuple(state)
            if image_index is not None:
                outputs = tuple(output[image_index] for output in outputs)
        output = TowerOutput.of(outputs)
        maps, token = output.maps, output.global_token
        if self._neck is not None:
            maps = tuple(self._neck(maps))
        return maps, token


#: Channels of the head: background and foreground of whatever was asked for.
_CHANNELS = 2


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
            ``queries`` (one row per pair), ``text_tokens`` and ``global_token``.
            ``in_index`` is 0 where it is left out.
        class_embeddings: config of a ``ClassEmbeddingBank``, or a bank; with
            ``token_features=True`` the head gets them as ``text_tokens``.
        split: as in :class:`ZeroShotEncoderDecoder`. A class has one name here.
        setting: ``'inductive'`` or ``'supervised'``.
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
        class_embeddings: ConfigType | Any,
        split: Any,
        setting: str,
        test_cfg: OptConfigType = None,
        **kwargs: Any,
    ) -> None:
        if setting == 'transductive':
            raise ValueError(
                "ClassPromptedSegmentor: setting='transductive' needs pixels that some "
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
        size = self.test_cfg.get('name_batch_size', 16)
        if not isinstance(size, int) or size < 1:
            raise ValueError(
                f'test_cfg.name_batch_size must be an int >= 1, not {size!r}'
            )
        self._name_batch_size = size

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

    def _init_decode_head(self, decode_head: ConfigType) -> None:
        """Build the head; maps beyond the first are not what it classifies."""
        decode_head.setdefault('in_index', 0)
        super()._init_decode_head(decode_head)

    def _check_options(self, class_embeddings: Any) -> None:
        super()._check_options(class_embeddings)
        wanted = inspect.signature(self.decode_head.forward).parameters
        tokens = wanted.get('text_tokens')
        needs_tokens = tokens is not None and tokens.default is inspect.Parameter.empty
        if needs_tokens and not self.vocabulary.has_tokens:
            raise ValueError(
                f'{type(self.decode_head).__name__} reads the outputs of all text '
                'tokens: set model.class_embeddings.token_features=True'
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
        queries = rows.rows(rows_of(prompts, names, rows))
        head, foreground = self.decode_head, None
        labels = self._covered_labels(inputs, data_samples, head.ignore_index)
        if hasattr(head, 'foreground'):
            foreground = head.foreground(labels)
        features = self._pair_features
        maps, token = features.of_pairs(
            features.shared(inputs), queries.embeddings, foreground=foreground
        )
        losses = call_with(
            head.loss,
            maps,
            with_labels(data_samples, labels),
            self.train_cfg,
            queries=queries,
            text_tokens=queries.token_features,
            global_token=token,
        )
        return add_prefix(losses, 'decode')

    @property
    def _pair_features(self) -> PromptedFeatures:
        return PromptedFeatures(self.backbone, self.neck if self.with_neck else None)

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
        maps, token = self._pair_features.of_pairs(
            state, queries.embeddings, image_index=image_index
        )
        return call_with(
            self.decode_head.forward,
            maps,
            queries=queries,
            text_tokens=queries.token_features,
            global_token=token,
        )

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
        options = self._options
        if options.mode == 'slide':
            raise ValueError(
                'pairs of an image and a name are predicted from the whole image: set '
                "test_cfg.mode='whole'"
            )
        if options.return_scores == 'groups':
            raise ValueError(
                "test_cfg.return_scores='groups' is for maps of all classes; a pair of "
                'an image and a name has one: set it to True or False'
            )
        queries = self.current_queries()
        chosen = queries.rows(rows_of(prompts, self.class_names, queries))
        logits = self._logits(self._pair_features.shared(inputs), chosen)
        full = pair_scores(
            logits,
            (inputs.shape[2], inputs.shape[3]),
            self.backbone,
            mask_size=options.mask_size,
            align_corners=self.align_corners,
        )
        for index, sample in enumerate(data_samples):
            own = full[index : index + 1]
            scores = to_original(own, sample.metainfo, self.align_corners)[0]
            mask = scores.argmax(dim=0, keepdim=True)
            sample.set_data({'pred_sem_seg': PixelData(data=mask)})
            if options.return_scores is True:
                sample.set_data({'seg_logits': PixelData(data=scores)})
        return data_samples

    # -- whole vocabularies --------------------------------------------------------

    def _features(self, inputs: Tensor) -> tuple[Any, Tensor | None]:
        """Return what all names share, and the image's own global token for gates."""
        token = None
        if any(calibrator.needs_global_token for calibrator in self.calibrators):
            token = self.backbone.image_token(inputs)
        return self._pair_features.shared(inputs), token

    def _mask_logits(
        self,
        maps: Any,
        metas: list[dict],
        queries: ClassQueries,
        token: Tensor | None,
    ) -> Tensor:
        """Return log-odds of foreground ``(B, Q, h, w)``, one pass per name."""
        num_images = len(metas)
        num_rows = len(queries.embeddings)
        at_once = max(self._name_batch_size // num_images, 1)
        images = torch.arange(num_images, device=queries.embeddings.device)
        parts = []
        for start in range(0, num_rows, at_once):
            rows = torch.arange(
                start, min(start + at_once, num_rows), device=images.device
            )
            logits = self._logits(
                maps,
                queries.rows(rows.repeat(num_images)),  # image by image
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
        maps, token = self._features(inputs)
        return self._mask_logits(maps, [{}] * len(inputs), queries, token)
