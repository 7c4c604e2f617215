"""CaGNet: trunk, contextual module, classifier and generator learn together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmengine.dist import all_reduce
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.utils import ConfigType, SampleList

from zs3_mmseg.models.class_embeddings import class_vectors
from zs3_mmseg.models.decode_heads.cagnet_head import CaGNetHead, Context, nearest
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.names import choose
from zs3_mmseg.utils.shared_draws import shared_draw

from .encoder_decoder import ZeroShotEncoderDecoder, _metas
from .vocabulary import Vocabulary


class Step(StrEnum):
    """What an iteration does, see :class:`Cycle`."""

    JOINT = 'joint'
    REAL = 'real'
    GENERATED = 'generated'


@dataclass(frozen=True)
class Cycle:
    """Which iteration does what.

    Attributes:
        joint_iters: iterations in which everything learns from real features; None: the
            whole run; 0 to fine-tune from the beginning.
        real_iters: of a round of fine-tuning, iterations as before, but that trunk and
            contextual module stay as they are.
        generated_iters: then iterations on features of made-up label maps.
    """

    joint_iters: int | None = None
    real_iters: int = 100
    generated_iters: int = 100

    def __post_init__(self) -> None:
        values = [getattr(self, field.name) or 0 for field in fields(self)]
        if min(values) < 0 or self.real_iters + self.generated_iters < 1:
            raise ValueError(
                f'model.cycle: numbers of iterations cannot be negative, and a round '
                f'of fine-tuning cannot be empty: {self}'
            )

    def step_at(self, iteration: int) -> Step:
        """Return what an iteration, counted from 0, does."""
        if self.joint_iters is None or iteration < self.joint_iters:
            return Step.JOINT
        round_iters = self.real_iters + self.generated_iters
        place = (iteration - self.joint_iters) % round_iters
        return Step.REAL if place < self.real_iters else Step.GENERATED


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses of a step (cagnet.md names those of the released configs).

    Attributes:
        kl: of the divergence, for trunk and contextual module.
        trunk_real: of the cross entropy on real features, for the same.
        adversarial: of what discriminator and generator play for.
        content: of the content loss, for the generator.
        classifier_real: of the cross entropy on real features, for the classifier.
        classifier_fake: of that on generated features, for the classifier.
        generator_fake: of the same, for the generator.
    """

    kl: float = 100.0
    trunk_real: float = 0.5
    adversarial: float = 1.0
    content: float = 50.0
    classifier_real: float = 1.0
    classifier_fake: float = 0.0
    generator_fake: float = 0.0

    @classmethod
    def of_steps(
        cls, changes: Mapping[str, Mapping[str, float]]
    ) -> dict[Step, LossWeights]:
        """Return the weights of each step: the released ones of VOC, with changes."""
        for step in changes:
            choose('model.loss_weights: a step', step, [*Step])
        names = [field.name for field in fields(cls)]
        for own in changes.values():
            for name in own:
                choose('model.loss_weights: a weight', name, names)
        defaults = {
            Step.JOINT: cls(),
            Step.REAL: cls(classifier_real=0.75, classifier_fake=0.25),
            Step.GENERATED: cls(classifier_fake=0.125),
        }
        return {
            step: replace(weights, **changes.get(step, {}))
            for step, weights in defaults.items()
        }


class Draws:
    """All random draws of a step but dropout, equal however many processes share it."""

    def normal(self, like: Tensor) -> Tensor:
        """Return numbers of N(0, 1) of the shape ``(N, C, h, w)`` of ``like``."""
        return shared_draw(torch.randn, *like.shape, device=like.device)

    def labels(self, shares: Tensor, shape: Sequence[int]) -> Tensor:
        """Draw a class for each pixel of ``(N, h, w)`` by shares ``(K,)``."""

        def draw(*whole: int) -> Tensor:
            flat = torch.multinomial(shares, torch.Size(whole).numel(), True)
            return flat.view(whole)

        return shared_draw(draw, *shape)

    def mixing(self, like: Tensor) -> Tensor:
        """Return a number in [0, 1) for each image, ``(N, 1, 1, 1)``."""
        return shared_draw(torch.rand, len(like), 1, 1, 1, device=like.device)


def mean_of_all(total: Tensor, count: Tensor) -> Tensor:
    """Return this process's share of a mean over what all processes counted.

    The shares of all processes add up to the mean; nothing counted gives 0.
    """
    counted = count.detach().clone()
    all_reduce(counted)
    return total / counted.clamp_min(1)


def pseudo_labels(
    logits: Tensor, labels: Tensor, unseen: Tensor, top: int, ignore_index: int
) -> Tensor:
    """Give ignored pixels the best unseen class among the ``top`` best of all outputs.

    The self-training of CaGNet's code: where no unseen class is among these, a pixel
    stays ignored.

    Args:
        logits: ``(N, K, h, w)``.
        labels: ``(N, h, w)``.
        unseen: ``(U,)``, indices of unseen classes.
        top: how many of the best outputs are looked at.
        ignore_index: the label of ignored pixels.

    Returns:
        new labels ``(N, h, w)``.
    """
    best = logits.argsort(dim=1, descending=True, stable=True)[:, :top]
    fits = torch.isin(best, unseen)  # (N, top, h, w)
    first = best.gather(1, fits.byte().argmax(dim=1, keepdim=True))[:, 0]
    found = torch.where(fits.any(dim=1), first, ignore_index)
    return torch.where(labels == ignore_index, found, labels)


@MODELS.register_module()
class CaGNet(ZeroShotEncoderDecoder):
    r"""Context-aware feature generation (CaGNet, ACM MM 2020, arXiv 2008.06893).

    Trunk and contextual module make a feature :math:`x` and a latent code :math:`z` of
    each pixel; the generator makes features of class vector and code, which a
    discriminator should take for real ones and a classifier for their class. With
    :math:`\lambda` of :class:`LossWeights`, ``CE`` the cross entropy and ``adv`` of
    :class:`~zs3_mmseg.models.losses.AdversarialLoss`:

    .. math::
        L_{segmentor} &= \lambda_{kl}\, KL + \lambda_{tr}\, CE(x) \\
        L_{classifier} &= \lambda_{adv}\, (adv_{real}(x) + adv_{fake}(\tilde x))
        + \lambda_{cr}\, CE(x) + \lambda_{cf}\, CE(\tilde x) \\
        L_{generator} &= \lambda_{adv}\, adv_{real}(\tilde x) +
        \lambda_{co}\, content(\tilde x, x) + \lambda_{gf}\, CE(\tilde x)

    In the steps of :class:`Cycle` all three learn from real features (``joint``), then
    in turn the last two (``real``), and these from features of label maps and codes
    that are drawn (``generated``): labels pixel by pixel, :math:`z \sim N(0, 1)`.

    All losses are means over the valid pixels of all processes, at the size of
    features. There is one optimiser for each of :meth:`parts`
    (``optim_wrapper.constructor='PartsOptimWrapperConstructor'``), and all gradients
    are taken before any of them takes a step. Gradients are averaged here, so no model
    wrapper is needed.

    Args:
        generator: config of the generator; sizes are filled in.
        cycle: options of :class:`Cycle`.
        loss_weights: changes of :class:`LossWeights`, by step and name.
        content: config of the content loss.
        adversarial: config of the adversarial loss.
        scales: training reads images at these sizes as well; real features are
            classified at each, and their maximum over all.
        unseen_weight: how often an unseen class is drawn for one draw of a seen one.
            The released ``gen_unseen_rate`` is 1 less.
        generated_size: height and width of the label maps that are drawn; None: those
            of the batch's features, for which the trunk runs.
        idle_steps: let parameters that a step's loss does not reach take a step with a
            gradient of 0, as released: momentum and decay move the generator and the
            discriminator in ``generated`` steps.
        self_training_top: in training, give ignored pixels the best unseen class among
            so many best ones, see :func:`pseudo_labels`; for transductive training.
        evaluate_at: ``'image'``: label maps have the size of the image file.
            ``'features'``: that of ``test_cfg.mask_size``, and the ground truth is
            resized to it, as in the published numbers.
        **kwargs: see :class:`ZeroShotEncoderDecoder`; ``class_embeddings`` are the
            class vectors of the generator, which a test does not need.

    Raises:
        ValueError: if an option is none of its choices, or options contradict.
    """

    #: The runner wraps it for no kind of parallel training.
    averages_gradients = True

    def __init__(
        self,
        backbone: ConfigType,
        decode_head: ConfigType,
        *,
        generator: Mapping[str, Any] | None = None,
        cycle: Mapping[str, Any] | None = None,
        loss_weights: Mapping[str, Mapping[str, float]] | None = None,
        content: Mapping[str, Any] | None = None,
        adversarial: Mapping[str, Any] | None = None,
        scales: Sequence[float] = (0.5, 0.75),
        unseen_weight: float = 10.0,
        generated_size: tuple[int, int] | None = None,
        idle_steps: bool = False,
        self_training_top: int | None = None,
        evaluate_at: str = 'image',
        **kwargs: Any,
    ) -> None:
        # Before the base asks whether unlabelled pixels are understood.
        self.self_training_top = self_training_top
        super().__init__(backbone, decode_head, **kwargs)
        if not isinstance(self.decode_head, CaGNetHead):
            raise ConfigError(
                f'model.decode_head.type is {type(self.decode_head).__name__!r}, and '
                "CaGNet trains the parts of a 'CaGNetHead'"
            )
        if (self_training_top is None) != (self.setting != 'transductive'):
            raise ConfigError(
                f'model.self_training_top={self_training_top} with model.setting='
                f'{self.setting!r}: self-training and the transductive setting go '
                'together'
            )
        if unseen_weight <= 0:
            raise ConfigError(f'model.unseen_weight must be > 0, not {unseen_weight}')
        choose('model.evaluate_at', evaluate_at, ('image', 'features'))
        mask_size = self._inference_options.mask_size
        if evaluate_at == 'features' and mask_size is None:
            raise ConfigError(
                "model.evaluate_at='features' needs model.test_cfg.mask_size, the size "
                'of the feature maps of the test'
            )
        self.evaluate_at = evaluate_at
        self._generator_config = {'type': 'CaGNetGenerator', **(generator or {})}
        self.generator = self._built_generator()
        self.cycle = Cycle(**(cycle or {}))
        self.loss_weights = LossWeights.of_steps(loss_weights or {})
        self.content = MODELS.build({'type': 'ContentLoss', **(content or {})})
        self.adversarial = MODELS.build(
            {'type': 'AdversarialLoss', **(adversarial or {})}
        )
        self.scales = tuple(scales)
        self.generated_size = generated_size
        self.idle_steps = idle_steps
        self.draws = Draws()
        shares = torch.ones(len(self.split.classes))
        shares[list(self.split.unseen_indices)] = unseen_weight
        self._shares = shares / shares.sum()
        self._vectors: Tensor | None = None

    def _check_vocabulary(self, vocabulary: Vocabulary) -> None:
        if vocabulary.bank is None:
            raise ConfigError(
                'CaGNet generates features from class vectors: set '
                'model.class_embeddings'
            )

    def _built_generator(self) -> nn.Module:
        config = {'feature_dim': self.decode_head.channels, **self._generator_config}
        if 'embed_dim' not in config:
            config['embed_dim'] = self._row_width()
        return MODELS.build(config)

    # -- parts and their steps -----------------------------------------------------

    def parts(self) -> dict[str, nn.ModuleDict]:
        """Return the modules that an optimiser each is for, by the optimiser's name.

        Parts without anything to learn are left out.
        """
        head = self.decode_head
        parts = {
            'segmentor': nn.ModuleDict(
                {
                    'backbone': self.backbone,
                    'pyramid': head.pyramid,
                    'context': head.context,
                }
            ),
            'classifier': nn.ModuleDict({'discriminator': head.discriminator}),
            'generator': nn.ModuleDict({'generator': self.generator}),
        }
        return {name: part for name, part in parts.items() if _learning(part)}

    def train_step(
        self, data: dict | tuple | list, optim_wrapper: OptimWrapperDict
    ) -> dict[str, Tensor]:
        """Take the step of one iteration; return what is logged.

        Gradients of all losses are computed first, with the weights that made them; the
        released code takes the discriminator's step in between.

        Raises:
            ConfigError: if there is not an optimiser for each part.
        """
        parts = self.parts()
        _require_wrappers(optim_wrapper, parts)
        batch: dict[str, Any] = self.data_preprocessor(data, True)
        hub = MessageHub.get_current_instance()
        step = self.cycle.step_at(hub.get_info('iter', 0))
        totals, logs = self.step_losses(step, **batch)
        if self._is_empty(logs):
            return self._logged(logs)
        learning = {name: _learning(parts[name]) for name in totals if name in parts}
        for name, parameters in learning.items():
            self._set_gradients(totals[name], parameters)
        for name in learning:
            optim_wrapper[name].step()
            optim_wrapper[name].zero_grad()
        return self._logged(logs)

    def _set_gradients(self, total: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Put the gradients of a loss, summed over processes, into parameters."""
        found = torch.autograd.grad(
            total, parameters, retain_graph=True, allow_unused=True
        )
        for parameter, gradient in zip(parameters, found, strict=True):
            if gradient is None and not self.idle_steps:
                continue
            gradient = (
                torch.zeros_like(parameter) if gradient is None else gradient.clone()
            )
            all_reduce(gradient)
            parameter.grad = gradient

    @staticmethod
    def _is_empty(logs: Mapping[str, Tensor]) -> bool:
        """Tell whether no process has a valid pixel, at some scale."""
        return not bool(logs['pixels'])

    @staticmethod
    def _logged(logs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sum the shares of all processes, but for counts, which are of all."""
        names = [name for name in logs if name != 'pixels']
        values = torch.stack([logs[name].detach().float() for name in names])
        all_reduce(values)
        return dict(zip(names, values, strict=True))

    # -- losses --------------------------------------------------------------------

    def step_losses(
        self, step: Step, inputs: Tensor, data_samples: SampleList
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return what each part is to lower, and single losses to log.

        Args:
            step: what this iteration does.
            inputs: ``(N, 3, H, W)``.
            data_samples: with ``gt_sem_seg`` in indices of ``split.classes``.

        Returns:
            this process's shares of the totals by part, and of the losses by name, of
            which ``pixels`` is the number of valid pixels of all processes.
        """
        if step is Step.GENERATED:
            return self.generated_losses(inputs)
        labels = self._training_labels(inputs, data_samples)
        with torch.set_grad_enabled(step is Step.JOINT):
            views = self.views(inputs)
        return self.real_losses(step, views, labels)

    def loss(self, inputs: Tensor, data_samples: SampleList) -> dict[str, Tensor]:
        """Return the totals of the first kind of step, ``loss_`` and the part."""
        step = self.cycle.step_at(0)
        totals, _ = self.step_losses(step, inputs, data_samples)
        return {f'loss_{name}': total for name, total in totals.items()}

    def _training_labels(self, inputs: Tensor, data_samples: SampleList) -> Tensor:
        """Return labels ``(N, H, W)`` in indices of all classes, or pseudo-labels."""
        labels = self._to_classes(self._covered_labels(inputs, data_samples))
        if self.self_training_top is None:
            return labels
        # As released, no pixel is known to be of an unseen class: all that have no
        # label are alike.
        labels = labels.masked_fill(
            labels == self._special.unlabelled, self._special.ignore
        )
        training = self.training
        self.eval()
        with torch.no_grad():
            logits = self.decode_head(self.extract_feat(inputs))
        self.train(training)
        unseen = torch.tensor(self.split.unseen_indices, device=labels.device)
        return pseudo_labels(
            logits,
            nearest(labels, logits.shape[2:]),
            unseen,
            self.self_training_top,
            self._special.ignore,
        )

    @property
    def understands_unlabelled(self) -> bool:
        """Whether unlabelled pixels of transductive training can be used."""
        return self.self_training_top is not None

    def views(self, inputs: Tensor) -> list[Context]:
        """Return features and codes of images at full size and other scales."""
        head, views = self.decode_head, []
        for scale in (1.0, *self.scales):
            features = head.embed(self.extract_feat(scaled(inputs, scale)))
            views.append(head.context(features, self.draws.normal(features)))
        return views

    def real_losses(
        self, step: Step, views: Sequence[Context], labels: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the losses of real features and of those generated like them."""
        weights, ignore = self.loss_weights[step], self._special.ignore
        discriminator = self.decode_head.discriminator
        full = views[0]
        small = nearest(labels, full.features.shape[2:])
        valid = small != ignore

        judged = [discriminator(features) for features in fused(views)]
        real_logits = judged[0][0]
        entropies, counts, hits = (
            torch.stack(several)
            for several in zip(
                *(self._cross_entropy(logits, labels) for _, logits in judged),
                strict=True,
            )
        )
        cross_entropy = entropies.mean()
        kl = mean_of_all((full.kl * valid).sum(), valid.sum())

        fake = self._generated(small, full.code.detach())
        fake_logits, fake_classes = discriminator(fake)
        fake_entropy, _, fake_hits = self._cross_entropy(fake_classes, small)
        game = self.adversarial
        judged_real = self._pixel_mean(game.real(real_logits), valid)
        judged_fake = self._pixel_mean(game.fake(fake_logits), valid)
        fooled = self._pixel_mean(game.real(fake_logits), valid)
        penalties = game.gradient_penalty(
            lambda features: discriminator(features)[0],
            full.features,
            fake,
            valid,
            self.draws.mixing(fake),
        )
        penalty = mean_of_all(penalties.sum(), fake.new_tensor(float(len(fake))))
        content = mean_of_all(
            *self.content(fake, full.features, small, ignore_index=ignore)
        )
        logs = dict(
            pixels=counts.amin(),
            acc_real=hits.mean(),
            acc_fake=fake_hits,
            loss_kl=kl,
            loss_ce_real=cross_entropy,
            loss_ce_fake=fake_entropy,
            loss_d_real=judged_real,
            loss_d_fake=judged_fake,
            loss_d_penalty=penalty,
            loss_g_adversarial=fooled,
            loss_g_content=content,
        )
        totals = dict(
            classifier=weights.adversarial * (judged_real + judged_fake + penalty)
            + weights.classifier_real * cross_entropy
            + weights.classifier_fake * fake_entropy,
            generator=weights.adversarial * fooled
            + weights.content * content
            + weights.generator_fake * fake_entropy,
        )
        if step is Step.JOINT:
            totals['segmentor'] = weights.kl * kl + weights.trunk_real * cross_entropy
        return totals, logs

    def generated_losses(
        self, inputs: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the losses of features of made-up label maps and drawn codes."""
        weights, size = self.loss_weights[Step.GENERATED], self.generated_size
        if size is None:
            with torch.no_grad():
                features = self.decode_head.embed(self.extract_feat(inputs))
            size = features.shape[2:]
        shape = (len(inputs), *size)
        labels = self.draws.labels(self._shares.to(inputs.device), shape)
        code = inputs.new_empty(len(inputs), self.decode_head.channels, *size)
        fake = self._generated(labels, self.draws.normal(code))
        logits = self.decode_head.discriminator(fake)[1]
        entropy, pixels, hits = self._cross_entropy(logits, labels)
        totals = dict(classifier=weights.classifier_fake * entropy)
        if weights.generator_fake or self.idle_steps:
            totals['generator'] = weights.generator_fake * entropy
        return totals, dict(pixels=pixels, loss_ce_fake=entropy, acc_fake=hits)

    def _generated(self, labels: Tensor, code: Tensor) -> Tensor:
        """Generate features of labels; those of ignored pixels are of no class."""
        if self._vectors is None:
            self._vectors = class_vectors(self.vocabulary.bank, self.split.classes)
        vectors = self._vectors.to(code)
        known = labels < len(vectors)
        rows = vectors[labels * known] * known[..., None]  # (N, h, w, E)
        return self.generator(rows.permute(0, 3, 1, 2), code)

    def _cross_entropy(
        self, logits: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return shares of mean and accuracy, and how many pixels count in all."""
        small = nearest(labels, logits.shape[2:])
        valid = small != self._special.ignore
        total = F.cross_entropy(
            logits.float(), small, ignore_index=self._special.ignore, reduction='sum'
        )
        count = valid.sum()
        hits = (logits.argmax(dim=1) == small).sum()
        everywhere = count.clone()
        all_reduce(everywhere)
        return mean_of_all(total, count), everywhere, mean_of_all(hits, count)

    @staticmethod
    def _pixel_mean(values: Tensor, valid: Tensor) -> Tensor:
        return mean_of_all((values[:, 0] * valid).sum(), valid.sum())

    # -- inference -----------------------------------------------------------------

    def predict(
        self, inputs: Tensor, data_samples: SampleList | None = None
    ) -> SampleList:
        """Return samples with label maps; see ``evaluate_at`` for their size."""
        size = self._inference_options.mask_size
        if self.evaluate_at == 'image' or size is None:
            return super().predict(inputs, data_samples)
        metas = [dict(ori_shape=size) for _ in _metas(inputs, data_samples)]
        ((_, crop),) = self._crops(inputs, _metas(inputs, data_samples), 'whole')
        streams = self._streams(crop.stream(None), metas)
        samples = self._write(streams, self.num_classes, metas, data_samples, False)
        for sample in samples:
            if 'gt_sem_seg' in sample:
                labels = nearest(sample.gt_sem_seg.data, size)
                sample.gt_sem_seg = PixelData(data=labels)
        return samples


def scaled(images: Tensor, scale: float) -> Tensor:
    """Resize ``(N, 3, H, W)`` images; sizes are rounded down."""
    if scale == 1:
        return images
    size = [int(side * scale) for side in images.shape[2:]]
    return F.interpolate(images, size=size, mode='bilinear')


def fused(views: Sequence[Context]) -> list[Tensor]:
    """Return the features of all scales and, if there are several, their maximum."""
    maps = [view.features for view in views]
    if len(maps) == 1:
        return maps
    size = maps[0].shape[2:]
    grown = [F.interpolate(m, size=size, mode='bilinear') for m in maps[1:]]
    return [*maps, torch.stack([maps[0], *grown]).amax(dim=0)]


def _learning(part: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in part.parameters() if parameter.requires_grad]


def _require_wrappers(wrappers: Any, parts: Mapping[str, Any]) -> None:
    """Check that there is a plain optimiser for each part."""
    if not isinstance(wrappers, OptimWrapperDict) or {*wrappers.keys()} != {*parts}:
        raise ConfigError(
            'CaGNet needs an optimiser each for '
            f'{", ".join(parts)}: set optim_wrapper.constructor='
            "'PartsOptimWrapperConstructor' and an optim_wrapper for each of them"
        )
    for name, wrapper in wrappers.items():
        if type(wrapper) is not OptimWrapper or wrapper._accumulative_counts != 1:
            raise ConfigError(
                f'optim_wrapper.{name} is a {type(wrapper).__name__}: CaGNet computes '
                "its gradients itself, in float32; set type='OptimWrapper' without "
                'accumulative_counts'
            )
