"""Mistakes in a config that can be named before anything is built from it."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.fileio import exists
from mmengine.runner import Runner

from .hub import require_timm_weights
from .names import did_you_mean, type_name
from .origins import origin_of_checkpoint, origin_of_data, origin_of_file
from .shipped import shipped_config
from .transformers_models import require_no_transformers

_WEIGHTS = ('.bin', '.ckpt', '.json', '.npy', '.pt', '.pth', '.safetensors', '.vec')
# Packages behind an extra of ours that a config can ask for by a visualiser.
_EXTRAS = {'TensorboardVisBackend': ('tensorboard', 'tensorboard')}
#: Top-level keys that are read by themselves; others are variables of the config.
READ_KEYS = {
    *signature(Runner.__init__).parameters,
    *('activation_checkpointing', 'allow_missing', 'compile', 'custom_imports'),
    *('find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'sync_bn'),
    *('tta_model', 'tta_pipeline'),
}
# A variable that is read where no loader holds it: for pictures out of no data set.
_READ_ALONE = 'test_pipeline'
# Two letters that have changed places, or one for another.
_SLIP = 2
# The part of a model whose rows its checkpoints hold.
_ROWS = 'class_embeddings'


class ConfigError(ValueError):
    """A part of a config from which nothing can be built; the message names its key."""


class _Missing(NamedTuple):
    """What a config names and is not there."""

    key: str
    path: str
    origin: str | None


@contextmanager
def building(key: str) -> Iterator[None]:
    """Turn errors of building what stands at ``key`` into :class:`ConfigError`."""
    try:
        yield
    except ConfigError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # str() of a KeyError is the repr of its message.
        text = error.args[0] if isinstance(error, KeyError) else error
        raise ConfigError(f'{key}: {text}') from error


def read_config(
    path: str | os.PathLike, options: Mapping[str, Any] | None = None
) -> Config:
    """Read a config, by its path or shipped name, and merge ``--cfg-options`` into it.

    A list or dict that is a variable of the file is changed wherever it has been put.
    An option that would change nothing is refused.
    Paths may begin with ``~``, the home folder, whatever reads them.
    """
    file = Path(path)
    if not file.is_file():
        file = shipped_config(path) or file
    if not file.is_file():
        # The folder may be misspelt as well: then look at all configs beside it.
        parent = next((p for p in file.parents if p.is_dir()), Path())
        near = parent.glob('*.py' if parent == file.parent else '**/*.py')
        known = [str(entry) for entry in near if '_base_' not in entry.parts]
        raise FileNotFoundError(
            f'config {file} does not exist.{did_you_mean(str(file), known)}'
        )
    config = Config.fromfile(file)
    require_read_keys(config)
    require_inherited_variables(config)
    merge_options(config, options or {})
    return config


def expand_home(node: Any, key: str = '') -> Any:
    """Put the home folder in the place of ``~`` at the start of texts, in place.

    Variables of the shell are refused: a config has mmengine's ``{{$NAME:}}`` for them.
    """
    if isinstance(node, str):
        if re.match(r'~[\w.-]*(/|$)', node):
            return os.path.expanduser(node)
        variable = re.match(r'\$\{?([A-Z_][A-Z0-9_]*)\}?(?=/|$)', node)
        if variable:
            raise ValueError(
                f'{key[1:]} = {node!r}: variables of the shell are not put in; write '
                f"'{{{{${variable[1]}:}}}}{node[variable.end() :]}', or ~ for the home "
                'folder'
            )
    elif isinstance(node, Mapping):
        for name, value in [*node.items()]:
            new = expand_home(value, f'{key}.{name}')
            if new is not value:
                node[name] = new  # type: ignore[index]
    elif isinstance(node, (list, tuple)):
        new = [expand_home(value, f'{key}.{n}') for n, value in enumerate(node)]
        if any(made is not value for made, value in zip(new, node, strict=True)):
            return type(node)(new)
    return node


def run_name(path: str | os.PathLike) -> Path:
    """Return what runs of a config are called: ``zegclip/shapes_tiny``.

    That is its place below a folder ``configs``, else below the current one; of files
    elsewhere it is the name alone.
    """
    file = Path(path).absolute()
    folders = file.parts[:-1]
    if 'configs' in folders:
        below = len(folders) - folders[::-1].index('configs')
        folders = folders[below:]
    elif file.is_relative_to(Path.cwd()):
        folders = folders[len(Path.cwd().parts) :]
    else:
        folders = ()
    return Path(*folders, file.stem)


def merge_options(config: Config, options: Mapping[str, Any]) -> None:
    """Merge dotted keys into a config, also where a variable of it has gone.

    ``split = 'a'; model = dict(split=split)`` is over when options are merged: the
    variable is read by nobody any more. Options inside of a list or dict follow it;
    an option for a whole variable would mean each place that equals it by chance, too.

    Raises:
        ValueError: for an option that would change nothing; it names those that do.
    """
    followed = dict(options)
    for key, value in options.items():
        name, _, inside = key.partition('.')
        if name in READ_KEYS:
            continue
        if name not in config:
            hint = did_you_mean(name, [*READ_KEYS, *config])
            raise _no_effect(config, key, value, f'there is no {name} in it.{hint}')
        old = config[name]
        places = [
            place[1:]
            for place, node in walk(dict(config), '')
            if place != f'.{name}' and type(node) is type(old) and node == old
        ]
        read = [place for place in places if place.partition('.')[0] in READ_KEYS]
        # Places of another variable with the same value cannot be told apart.
        if inside and read and not any(place in config for place in places):
            followed |= {f'{place}.{inside}': value for place in places}
        elif old != value and not (name == _READ_ALONE and not places):
            keys = [f'{place}.{inside}'.rstrip('.') for place in read]
            left = [f'{place}={value}' for place in keys if place not in options]
            if keys and not left:
                continue
            where = f'Set these instead: {" ".join(left)}' if left else 'Set them there'
            raise _no_effect(
                config,
                key,
                value,
                f'{name} is a variable of it, whose values have been put into other '
                f'places already. {where}',
            )
    try:
        config.merge_from_dict(followed)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        # mmengine looks for keys inside of whatever it finds.
        text = str(error)
        if isinstance(error, AttributeError):
            text = 'this is one of a list of numbers; give the whole list'
        raise ValueError(f'--cfg-options {", ".join(options)}: {text}') from error
    expand_home(config._cfg_dict)


def _no_effect(config: Config, key: str, value: Any, reason: str) -> ValueError:
    file = config.filename or 'the config'
    return ValueError(
        f'the option {key}={value} would change nothing in {file}: {reason}'
    )


def require_read_keys(config: Config) -> None:
    """Refuse a key of a config file that is nearly one that is read.

    A variable may be called anything. But ``modle = dict(...)``, which is put nowhere,
    is a slip of the pen.

    Raises:
        ConfigError: naming the key and the one that is meant.
    """
    for name, value in config.items():
        if name in READ_KEYS or name == _READ_ALONE or _places(config, value):
            continue
        meant = [key for key in READ_KEYS if _slips(name, key) <= _SLIP]
        if meant:
            raise ConfigError(
                f'{config.filename}: nothing reads the key {name!r}. Did you mean '
                f'{meant[0]!r}?'
            )


def _slips(name: str, key: str) -> int:
    """Return how many letters of two names have no partner, in order, in the other."""
    blocks = SequenceMatcher(None, name.lower(), key).get_matching_blocks()
    return len(name) + len(key) - 2 * sum(block.size for block in blocks)


def require_inherited_variables(config: Config) -> None:
    """Refuse a config file that changes a variable of a base and not what came of it.

    A base puts ``test_pipeline`` into its loaders before a file that inherits from it
    can change the variable: some tools would read one of the two, others the other.

    Raises:
        ValueError: naming the variable, the base and the keys to set as well.
    """
    now = _without_scopes(dict(config))
    for base in _bases(config):
        before = _without_scopes(dict(Config.fromfile(base)))
        for key, old in before.items():
            empty = isinstance(old, bool) or old in (None, '', [], {})
            if key in READ_KEYS or empty or now.get(key) == old:
                continue
            places = _places(before, old)
            # Some may be meant to stay, or be equal by chance, but hardly all of them.
            if places and set(places) <= set(_places(now, old)):
                raise ValueError(
                    f'{config.filename} changes {key}, a variable that {base.name} has '
                    f'already put into {", ".join(places)}, and nothing follows it. '
                    f'Set {"these" if len(places) > 1 else "this"} to {key} as well'
                )


def stays_behind(config: Config, key: str, leader: str) -> bool:
    """Tell whether a file changes ``leader`` and inherits ``key``, made for it."""
    now = _without_scopes(dict(config))
    inherited = (
        _without_scopes(dict(Config.fromfile(path))) for path in _bases(config)
    )
    return any(
        base.get(key) == now.get(key)
        and base.get(leader, now.get(leader)) != now[leader]
        for base in inherited
        if key in base
    )


def _bases(config: Config) -> list[Path]:
    """Return all files that a config file inherits from, as mmengine lists them.

    Each file's name stands in a line of its own before its text.
    """
    listed = (Path(line) for line in config.text.splitlines() if line.endswith('.py'))
    own = Path(config.filename or '')
    return [path for path in listed if path.is_file() and path != own]


def _without_scopes(node: Any) -> Any:
    if isinstance(node, Mapping):
        parts = ((key, _without_scopes(value)) for key, value in node.items())
        return {key: value for key, value in parts if key != '_scope_'}
    if isinstance(node, (list, tuple)):
        return [_without_scopes(value) for value in node]
    return node


def _places(config: Mapping[str, Any], value: Any) -> list[str]:
    """Return where a value stands in what is read of a config, by dotted keys."""
    return [
        place
        for name, part in config.items()
        if name in READ_KEYS
        for place, node in walk(part, name)
        if node == value and type(node) is type(value)
    ]


def require_config_files(
    config: Config, loaders: Sequence[str], *, training: bool = False
) -> None:
    """Check that the files and folders a config names are there; name all that are not.

    Looks at ``load_from``, at every value below ``model`` that ends like a weights
    file, in training at those of ``custom_hooks`` too, and at the data sets of the
    ``loaders`` that will be used; URLs and other storage backends are left alone. With
    ``load_from``, files of ``model.class_embeddings`` may be absent: a checkpoint
    brings the rows of its classes, but not those of a ``test_split``.
    """
    for key, backbone in _timm_backbones(config):
        require_timm_weights(backbone, key)
    missing = [*_missing_weights(config, training)]
    for loader in loaders:
        for key, node in walk(config.get(loader), loader):
            if isinstance(node, Mapping):
                origin = origin_of_data(node.get('type'))
                missing += [
                    _Missing(f'{key}.{option}', path, origin or origin_of_file(path))
                    for option, path in missing_data(node)
                ]
    if not missing:
        return
    listed = '\n'.join(f'  {key} = {path!r}' for key, path, _ in missing)
    origins = {path: origin for _, path, origin in missing if origin is not None}
    if origins:
        listed += '\nWhere they come from:'
        listed += ''.join(f'\n  {path}: {origin}' for path, origin in origins.items())
    raise FileNotFoundError(
        f'the config {config.filename or ""} names what does not exist:\n{listed}\n'
        f'Change these keys in it, or with --cfg-options {missing[0].key}=PATH. '
        f'Relative paths begin in the current folder, {Path.cwd()}.'
    )


def drop_timm_weights(config: Config) -> None:
    """Let timm's backbones start without weights: a checkpoint brings them all."""
    for _, backbone in _timm_backbones(config):
        backbone['pretrained'] = False


def _timm_backbones(config: Config) -> Iterator[tuple[str, dict]]:
    for key, node in walk(config.get('model'), 'model'):
        if isinstance(node, dict) and str(node.get('type')).endswith('TIMMBackbone'):
            yield key, node


def require_extras(config: Config) -> None:
    """Check that optional packages a config asks for are installed, and fit."""
    for key, part in walk(config.get('model'), 'model'):
        kind = str(part.get('type')) if isinstance(part, Mapping) else ''
        if kind.startswith('mmpretrain.'):
            require_no_transformers(f'{key}.type={kind!r}')
    for key, part in walk(config.get('visualizer'), 'visualizer'):
        kind = type_name(part.get('type')) if isinstance(part, Mapping) else ''
        if kind not in _EXTRAS:
            continue
        module, extra = _EXTRAS[kind]
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(
                f'{key}.type = {kind!r} needs the package {module}: '
                f'pip install {module}, or this package with [{extra}]'
            )


def walk(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield every value below ``node`` with its dotted key, containers included."""
    yield key, node
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from walk(value, f'{key}.{name}')
    elif isinstance(node, (list, tuple)):
        for number, value in enumerate(node):
            yield from walk(value, f'{key}.{number}')


def _is_local(path: str) -> bool:
    return '://' not in path and not path.startswith('hf-hub:')


def _missing_weights(config: Config, training: bool) -> Iterator[_Missing]:
    load_from = config.get('load_from')
    if load_from and _is_local(load_from) and not _exists(load_from):
        origin = origin_of_checkpoint(load_from, config.filename)
        yield _Missing('load_from', load_from, origin)
    places = ['model', *(['custom_hooks'] if training else [])]
    for place in places:
        nodes = dict(walk(config.get(place), place))
        for key, value in nodes.items():
            if not isinstance(value, str) or not _is_file_name(key, value):
                continue
            if not _exists(value) and not (load_from and _in_checkpoint(key, nodes)):
                beside = nodes.get(key.rpartition('.')[0])
                arch = beside.get('arch') if isinstance(beside, Mapping) else None
                yield _Missing(key, value, origin_of_file(value, arch))


def _is_file_name(key: str, value: str) -> bool:
    named = value.endswith(_WEIGHTS) or key.endswith(f'{_ROWS}.source.path')
    return named and _is_local(value)


def _in_checkpoint(key: str, nodes: Mapping[str, Any]) -> bool:
    """Tell whether checkpoints of a model hold what this file would give."""
    owner, found, _ = key.partition(f'.{_ROWS}.')
    model = nodes.get(owner) if found and owner.startswith('model') else None
    return isinstance(model, Mapping) and model.get('test_split') is None


def _exists(path: str) -> bool:
    return Path(path).expanduser().exists()


def missing_data(
    dataset: Mapping[str, Any], *, failed: bool = False
) -> Iterator[tuple[str, str]]:
    """Yield what the config of a data set names and is not there: option and path.

    A missing ``data_root`` stands for all that is below it. Data sets without
    ``data_prefix`` and ``ann_file`` may make their data on first use, and other storage
    backends need not answer yet: both are looked at only after building has ``failed``.
    """
    places = {'ann_file': dataset.get('ann_file') or None}
    for name, value in (dataset.get('data_prefix') or {}).items():
        places[f'data_prefix.{name}'] = value
    named = {option: place for option, place in places.items() if place is not None}
    root, backend = dataset.get('data_root') or '', dataset.get('backend_args')
    if not failed and (not named or backend or not _is_local(root)):
        return
    if root and not exists(root, backend_args=backend):
        yield 'data_root', root
        return
    for option, place in named.items():
        path = os.path.join(root, place)
        asked = place and (failed or _is_local(place))
        if asked and not exists(path, backend_args=backend):
            yield option, path
