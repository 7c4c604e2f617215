"""Hooks: checks and random states, which our configs switch on, and self-training."""

from zs3_mmseg.engine.generative.hook import GenerativeRetrainingHook
from zs3_mmseg.engine.protocol import ProtocolCheckHook
from zs3_mmseg.engine.scores import teach_rules

from .closed_form_fit_hook import ClosedFormFitHook
from .early_stopping_hook import TrainingEarlyStoppingHook
from .finite_guard_hook import FiniteGuardHook
from .interruption_hook import InterruptionHook
from .random_state_hook import RandomStateHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .self_training_hooks import EMATeacherHook, SelfTrainingHook

__all__ = [
    'ClosedFormFitHook',
    'EMATeacherHook',
    'FiniteGuardHook',
    'GenerativeRetrainingHook',
    'InterruptionHook',
    'ProtocolCheckHook',
    'RandomStateHook',
    'SafeCheckpointHook',
    'SelfTrainingHook',
    'TrainingEarlyStoppingHook',
]

teach_rules()
