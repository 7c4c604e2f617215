"""What becomes of a batch between a head and its classifier, and what a run resumes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmengine.hooks import EMAHook, Hook
from mmseg.models.decode_heads.decode_head import BaseDecodeHead

from .classifier import (
    ClassWeights,
    freeze_all_but,
    reset_classifier,
    share_of_processes,
)
from .compatibility import former_state, states_by_type
from .layouts import SyntheticLayout
from .plan import KeyedDraws, Phase, PhaseSchedule, is_unseen, vectors_hash
from .synthesis import Synthesiser, SynthesisFacts


class Retraining:
    """Synthesisers, and what they do to a batch (the user of a ``ClassifierTap``).

    ``layout`` makes label maps with unseen classes; None: those of the data set hold
    unseen classes themselves. ``decide_on`` is the hook's option. An iteration has so
    many ``batches``; ``shares``: means over a process become its part of that over all.
    """

    def __init__(
        self,
        head: BaseDecodeHead,
        facts: SynthesisFacts,
        synthesisers: Sequence[Synthesiser],
        weights: ClassWeights,
        *,
        layout: SyntheticLayout | None = None,
        decide_on: Literal['labels', 'downsampled'] = 'labels',
        batches: int = 1,
        shares: bool = True,
    ) -> None:
        self.head = head
        self.facts = facts
        self.synthesisers = synthesisers
        self.weights = weights
        self.layout = layout
        self.decide_on = decide_on
        self.batches = batches
        self.shares = shares
        self.phase = Phase.SEGMENTOR
        #: Whether a training iteration is going on.
        self.training = False
        self.begin(KeyedDraws(0, 0))
        self._logs: dict[str, Tensor] = {}
        for synthesiser in synthesisers:
            synthesiser.prepare(facts)

    def begin(self, draws: KeyedDraws) -> None:
        """Begin an iteration, which draws from there."""
        self.draws = draws
        #: Images of this iteration that were labelled, and met.
        self._labelled = self._met = 0
        self._left = self.batches

    def active(self) -> bool:
        """Whether this is training, after the segmentor's own."""
        return self.training and self.phase is not Phase.SEGMENTOR

    def relabel(self, labels: Tensor) -> Tensor:
        """Put unseen classes into label maps ``(N, H, W)`` for the classifier."""
        if self.layout is None or not self.phase.trains_classifier:
            return labels
        first = self._labelled
        self._labelled += len(labels)
        return torch.stack(
            [
                self.layout(
                    label_map,
                    self.facts.split,
                    self.weights.ignore_index,
                    self.draws.layout(image),
                )
                for image, label_map in enumerate(labels, first)
            ]
        )

    @torch.no_grad()
    def replace(self, features: Tensor, labels: Tensor) -> Tensor:
        """Let synthesisers learn from, and write into, features ``(N, F, h, w)``."""
        finite = features.isfinite().flatten(1).all(dim=1)
        if not finite.all():
            images = (~finite).nonzero().flatten().tolist()
            raise FloatingPointError(
                f'the features at the input of conv_seg are NaN or infinite in images '
                f'{images} of this batch: the segmentor diverged. Lower its learning '
                'rate, or start from an earlier checkpoint'
            )
        with torch.autocast(features.device.type, enabled=False):
            real = features.float()
            small = _downsample(labels, real.shape[2:])
            looked_at = small if self.decide_on == 'downsampled' else labels
            first = self._met
            unseen = is_unseen(looked_at, self.facts.split).flatten(1).any(dim=1)
            merged = torch.stack(
                [
                    self._image(real[place], small[place], first + place, has_unseen)
                    for place, has_unseen in enumerate(unseen.tolist())
                ]
            )
            self._met += len(real)
            self._left -= 1
            self._logs = {}
            for synthesiser in self.synthesisers if self._left == 0 else ():
                self._logs |= synthesiser.finish(self.phase.trains_generator)
        return merged.to(features.dtype)

    def _image(
        self, features: Tensor, labels: Tensor, image: int, has_unseen: bool
    ) -> Tensor:
        for synthesiser in self.synthesisers:
            if not has_unseen:
                if self.phase.trains_generator:
                    synthesiser.learn(features, labels, image, self.draws)
                if self.phase.trains_classifier:
                    synthesiser.real(features, labels, image)
            elif self.phase.trains_classifier:
                features = synthesiser.generate(features, labels, image, self.draws)
        return features

    def complete(self, losses: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Return the losses that the classifier learns from, and figures to log."""
        if not self.phase.trains_classifier:
            # A loss of zero: with several processes, all must take part in backward.
            kept = {k: v * 0 if 'loss' in k else v for k, v in losses.items()}
            return {**kept, **self._logs}
        key = self.weights.criterion.loss_name
        if self.shares:
            share = share_of_processes(self.weights.total(labels))
            losses = {**losses, key: losses[key] * share}
        for synthesiser in self.synthesisers:
            losses |= synthesiser.loss(self.head.conv_seg, self.weights)
        return {**losses, **self._logs}

    def state_dict(self, former: bool) -> dict[str, Any]:
        """Return plain values and tensors, readable with ``weights_only=True``.

        ``former``: in the entries that runs of the hook's own options always wrote.
        """
        states = {type(s).__name__: s.state_dict() for s in self.synthesisers}
        return {
            'phase': self.phase.value,
            'seed': self.facts.seed,
            **self._identity(),
            **(former_state(states) if former else {'synthesisers': states}),
        }

    def load_state_dict(
        self, state: Mapping[str, Any], schedule: PhaseSchedule, iteration: int
    ) -> None:
        """Put back the state of a run that goes on with an iteration."""
        where = 'the checkpoint that is resumed from'
        for key, ours in self._identity().items():
            if state[key] != ours:
                raise ValueError(
                    f'GenerativeRetrainingHook: {where} was trained with other {key} '
                    f'than this config has: {_short(state[key])} and {_short(ours)}'
                )
        last = schedule.at(iteration - 1)
        if Phase(state['phase']) is not last:
            raise ValueError(
                f'GenerativeRetrainingHook: {where} was in phase {state["phase"]!r} '
                f'after iteration {iteration}, where segmentor_iters and '
                f'generator_iters of this config have {last.value!r}; phases that are '
                'over cannot be moved'
            )
        states = states_by_type(state)
        names = [type(synthesiser).__name__ for synthesiser in self.synthesisers]
        if [*states] != names:
            raise ValueError(
                f'GenerativeRetrainingHook: {where} was trained with '
                f'{" and ".join(states)}, but this config has {" and ".join(names)}'
            )
        for name, synthesiser in zip(names, self.synthesisers, strict=True):
            try:
                synthesiser.load_state_dict(states[name])
            except (RuntimeError, ValueError) as error:
                raise ValueError(
                    f'GenerativeRetrainingHook: the {name} of {where} does not fit '
                    f"this config's: {error}"
                ) from error
        self.phase = last

    def _identity(self) -> dict[str, Any]:
        """Return what must be the same when a run is resumed."""
        return {
            'classes': list(self.facts.split.classes),
            'unseen': list(self.facts.split.unseen_indices),
            'vectors': vectors_hash(self.facts.vectors.cpu()),
        }


def _downsample(labels: Tensor, size: torch.Size) -> Tensor:
    """Take the nearest label: ``(N, H, W)`` to ``(N, h, w)``."""
    return F.interpolate(labels[:, None].float(), size, mode='nearest')[:, 0].long()


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else f'{text[:200]}...'


class PhaseChanges:
    """Brings model, optimiser and averages of a run to its phases."""

    def __init__(
        self,
        segmentor: nn.Module,
        optimizer: torch.optim.Optimizer,
        hooks: Iterable[Hook],
        retraining: Retraining,
        reset: str,
    ) -> None:
        self.segmentor = segmentor
        self.optimizer = optimizer
        self.averages = [hook for hook in hooks if isinstance(hook, EMAHook)]
        self.retraining = retraining
        self.reset = reset
        self._frozen = False
        handle = optimizer.register_step_pre_hook(self._drop_gradients)
        self._undo: list[Callable[[], None]] = [handle.remove]

    def begin(self, phase: Phase) -> None:
        """Begin a phase; not called where a run is resumed within one."""
        self.enter(phase)
        if phase.trains_classifier:
            conv = self.retraining.head.conv_seg
            facts = self.retraining.facts
            reset_classifier(conv, self.reset, facts.split, facts.seed)
            for parameter in conv.parameters():
                # Momentum of what the parameter was before.
                self.optimizer.state.pop(parameter, None)
        for hook in self.averages:
            hook.ema_model.module.load_state_dict(hook.src_model.state_dict())

    def enter(self, phase: Phase) -> None:
        """Freeze what does not learn in a phase, and weigh the classes."""
        self.retraining.phase = phase
        if phase is Phase.SEGMENTOR or self._frozen:
            return
        self._frozen = True
        weights = self.retraining.weights
        weights.apply()
        thaw = freeze_all_but(self.segmentor, self.retraining.head.conv_seg)
        self._undo += [weights.remove, thaw]

    def undo(self) -> None:
        """Leave model and optimiser as they were."""
        while self._undo:
            self._undo.pop()()

    def _drop_gradients(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Keep decay and momentum from moving a classifier that does not learn."""
        if self.retraining.training and self.retraining.phase is Phase.GENERATOR:
            for group in optimizer.param_groups:
                for parameter in group['params']:
                    parameter.grad = None
