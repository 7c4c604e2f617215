"""Reading files of others without running anything that is hidden in them."""

from .reading import (
    CheckpointError,
    DamagedCheckpointError,
    MapLocation,
    UnsafeCheckpointError,
    safe_load,
    safe_load_object,
)
from .state import LoadReport, load_into, rename_keys, state_dict_of

__all__ = [
    'CheckpointError',
    'DamagedCheckpointError',
    'LoadReport',
    'MapLocation',
    'UnsafeCheckpointError',
    'load_into',
    'rename_keys',
    'safe_load',
    'safe_load_object',
    'state_dict_of',
]
