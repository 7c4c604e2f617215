"""Models as folders in the layout of the Hugging Face Hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from mmengine.config import Config

from zs3_mmseg.datasets.splits import plain_split
from zs3_mmseg.utils.cache import atomic_write
from zs3_mmseg.utils.names import as_list
from zs3_mmseg.utils.packed_state import pack_state
from zs3_mmseg.version import __version__

from .init import init_segmentor
from .pipeline import find_test_pipeline

WEIGHTS_NAME = 'model.safetensors'
CONFIG_NAME = 'config.json'
CARD_NAME = 'README.md'
LIBRARY = 'zs3_mmseg'
# JSON knows no tuples, and parts of mmcv take nothing else.
_TUPLE = '__tuple__'

# What a ``type`` in a foreign config may be: a registered name, with its scope or not.
# mmengine imports and calls whatever else has a dot in it.
_SAFE_TYPE = re.compile(r'((zs3_mmseg|mmseg|mmpretrain|mmengine|mmcv)\.)?[A-Za-z_]\w*')

_CARD = """---
library_name: {library}
license: {license}
pipeline_tag: image-segmentation
tags:
- zero-shot-segmentation
---

# {title}

{description}

```python
from zs3_mmseg.apis import ZeroShotInferencer, from_pretrained

model = from_pretrained({title!r})
result = ZeroShotInferencer(model, classes=['any', 'two words', 'cup|mug'])('photo.jpg')
```

Trained with masks of {seen}.

Never with masks of {unseen}. All classes are listed in `{config}`.
"""


def _plain(value: Any) -> Any:
    """Return a part of a config as JSON holds it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [_plain(part) for part in value]
        return {_TUPLE: parts} if isinstance(value, tuple) else parts
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f'{value!r} in the config cannot be written as JSON')


def _restored(value: Any) -> Any:
    """Return what :func:`_plain` was given."""
    if isinstance(value, dict):
        if value.keys() == {_TUPLE}:
            return tuple(map(_restored, value[_TUPLE]))
        return {key: _restored(part) for key, part in value.items()}
    return [_restored(part) for part in value] if isinstance(value, list) else value


def save_pretrained(
    model: nn.Module,
    folder: str | os.PathLike,
    *,
    license: str = 'other',
    title: str | None = None,
    description: str = 'A zero-shot semantic segmentor.',
) -> list[Path]:
    """Write a segmentor as a folder in the layout of the Hugging Face Hub.

    ``model.safetensors`` has the weights and the embeddings of the trained names,
    ``config.json`` model, test pipeline and classes, and ``README.md`` is the card.
    ``hf upload REPOSITORY FOLDER`` publishes it.

    Args:
        model: a segmentor that ``init_segmentor`` returned.
        folder: where to; made if missing. Files of the same names are replaced.
        license: of the weights, for the card, as the hub writes it (``mit``).
        title: heading of the card; by default the name of the folder.
        description: what the card says of it.

    Returns:
        the paths of the three files.

    Raises:
        ValueError: if the model has no config, or one that is no plain values.
    """
    config: Any = getattr(model, 'cfg', None)
    if config is None:
        raise ValueError('the segmentor has no config (cfg): use init_segmentor')
    place = Path(folder)
    meta: Any = model.dataset_meta
    split: Any = getattr(model, 'split', None)
    seen = list(split.seen) if split else list(meta['classes'])
    unseen = list(split.unseen) if split else []
    content: dict[str, Any] = {
        'library_name': LIBRARY,
        'library_version': __version__,
        'classes': seen + unseen,
        'unseen': unseen,
        'default_scope': config.get('default_scope', 'mmseg'),
        'model': _plain(config.model),
        'test_pipeline': _plain(find_test_pipeline(config)),
    }
    if split and isinstance(config.model.get('split'), Mapping):
        # What is there may be a folder of this machine.
        content['model']['split'] = plain_split(split)
    tensors, metadata = pack_state(model.state_dict())
    card = _CARD.format(
        library=LIBRARY,
        license=license,
        title=title or place.resolve().name,
        description=description,
        seen=as_list(seen) or 'nothing',
        unseen=as_list(unseen) or 'nothing',
        config=CONFIG_NAME,
    )
    files = {
        WEIGHTS_NAME: save(tensors, metadata={'format': 'pt', **metadata}),
        CONFIG_NAME: (json.dumps(content, indent=2) + '\n').encode(),
        CARD_NAME: card.encode(),
    }
    for name, raw in files.items():
        _write(place / name, raw)
    return [place / name for name in files]


def _write(path: Path, raw: bytes) -> None:
    atomic_write(path, lambda stream: stream.write(raw))


def _require_safe_types(node: Any, key: str) -> None:
    """Refuse a config whose types are anything else than registered names."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            named = name in ('type', '_scope_')
            if named and not (isinstance(value, str) and _SAFE_TYPE.fullmatch(value)):
                raise ValueError(
                    f'{key}.{name} = {value!r} is no registered name, and anything '
                    'else would run code of the file'
                )
            _require_safe_types(value, f'{key}.{name}')
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            _require_safe_types(value, f'{key}.{number}')


def from_pretrained(
    source: str | os.PathLike,
    device: str | torch.device = 'cpu',
    *,
    revision: str | None = None,
) -> nn.Module:
    """Return the segmentor of a folder that :func:`save_pretrained` wrote.

    Nothing in it is executed.

    Args:
        source: the folder, or the name of a repository of the Hugging Face Hub
            (``owner/name``), which is downloaded into the hub's cache.
        device: where the model goes.
        revision: branch, tag or commit of the repository.

    Raises:
        FileNotFoundError: if the folder lacks a file.
        ValueError: if its config is no plain config of this library, or the weights do
            not fit.
        OSError: if the hub has no such repository or cannot be reached.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        folder = _downloaded(os.fspath(source), revision)
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise FileNotFoundError(f'{folder} has no {name}: it is no model folder')
    text = (folder / CONFIG_NAME).read_text(encoding='utf-8')
    content = _restored(json.loads(text))
    if not isinstance(content, dict) or content.get('library_name') != LIBRARY:
        raise ValueError(f'{folder / CONFIG_NAME} is no config of {LIBRARY}')
    keys = ('model', 'test_pipeline', 'default_scope')
    for key in keys:
        _require_safe_types(content.get(key), key)
    config = Config({key: content[key] for key in keys if key in content})
    return init_segmentor(config, folder / WEIGHTS_NAME, device)


def _downloaded(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=[CONFIG_NAME, WEIGHTS_NAME, CARD_NAME],
            )
        )
    except HFValidationError as error:
        raise FileNotFoundError(
            f'{repository!r} is neither a folder nor the name of a repository '
            '(owner/name)'
        ) from error
