"""State dicts with more than tensors in them as safetensors files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

#: Key of the plain values in the metadata of a file.
PLAIN = 'zs3_mmseg.plain'
# What stands in the plain values where a tensor was: the tensor's key.
_TENSOR = 'tensor:'
_TEXT = 'text:'


def pack_state(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Take a state dict apart into tensors and metadata, see :func:`unpack_state`.

    Values that are no tensors (extra states) may be dicts, lists and plain values, with
    tensors anywhere in them.

    Raises:
        ValueError: for values that JSON does not know.
    """
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}

    def packed(value: Any, place: str) -> Any:
        if isinstance(value, Tensor):
            # A copy: the format knows neither shared memory nor strides.
            tensors[place] = value.detach().cpu().clone().contiguous()
            return _TENSOR + place
        if isinstance(value, Mapping):
            return {
                str(key): packed(part, f'{place}.{number}')
                for number, (key, part) in enumerate(value.items())
            }
        if isinstance(value, list | tuple):
            return [packed(part, f'{place}.{n}') for n, part in enumerate(value)]
        if isinstance(value, str):
            return _TEXT + value
        if value is None or isinstance(value, bool | int | float):
            return value
        raise ValueError(f'{place} holds a {type(value).__name__}, no plain value')

    for key, value in state.items():
        made = packed(value, key)
        if not isinstance(value, Tensor):
            plain[key] = made
    return tensors, {PLAIN: json.dumps(plain)} if plain else {}


def unpack_state(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None
) -> dict[str, Any]:
    """Put together what :func:`pack_state` took apart; other files stay as they are.

    Raises:
        ValueError: if a tensor is missing, or the metadata are damaged.
    """
    left = dict(tensors)
    text = (metadata or {}).get(PLAIN)
    if text is None:
        return left

    def whole(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: whole(part) for key, part in value.items()}
        if isinstance(value, list):
            return [whole(part) for part in value]
        if not isinstance(value, str):
            return value
        if value.startswith(_TEXT):
            return value.removeprefix(_TEXT)
        key = value.removeprefix(_TENSOR)
        if key not in left:
            raise ValueError(f'the tensor {key!r} is missing')
        return left.pop(key)

    found = {key: whole(value) for key, value in json.loads(text).items()}
    return left | found
