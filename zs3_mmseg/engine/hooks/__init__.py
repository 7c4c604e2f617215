"""Hooks: checks and random states, which our configs switch on, and self-training."""

from .early_stopping_hook import TrainingEarlyStoppingHook
from .ema_teacher_hook import EMATeacherHook
from .generative_retraining_hook import GenerativeRetrainingHook
from .protocol_check_hook import ProtocolCheckHook
from .random_state_hook import RandomStateHook
from .self_training_hook import SelfTrainingHook

__all__ = [
    'EMATeacherHook',
    'GenerativeRetrainingHook',
    'ProtocolCheckHook',
    'RandomStateHook',
    'SelfTrainingHook',
    'TrainingEarlyStoppingHook',
]
