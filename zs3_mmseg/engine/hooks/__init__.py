"""Hooks that our configs switch on by default."""

from .protocol_check_hook import ProtocolCheckHook
from .random_state_hook import RandomStateHook

__all__ = ['ProtocolCheckHook', 'RandomStateHook']
