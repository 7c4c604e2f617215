"""Which key of a config a component could not be built from.

A constructor knows its options, but not where in a config it stands; Python's and
mmengine's messages name a class at most.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader

import mmengine.registry
import mmseg.registry
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import LogProcessor

from .config_check import READ_KEYS, ConfigError, walk
from .names import did_you_mean

_REGISTRIES = {
    id(value): value
    for module in (mmseg.registry, mmengine.registry)
    for value in vars(module).values()
    if isinstance(value, Registry)
}
_CALL = r'(?P<call>[\w.<>]+?)(?:\.__init__)?\(\)'
_SURPLUS = re.compile(_CALL + r" got an unexpected keyword argument '(?P<option>\w+)'")
_LACKING = re.compile(_CALL + r' missing \d+ required [\w-]+ arguments?: (?P<names>.*)')
_UNKNOWN = re.compile(
    r'(?P<name>\S+) is not in the (?P<scope>\S+)::(?P<kind>.+?) registry'
)
_TYPELESS = 'must contain the key "type", but got '
# What is built from dicts without type.
_CLASSES = {kind.__name__: kind for kind in (DataLoader, LogProcessor)}
# Options of loaders in mmseg 0.x.
_FORMER = {
    'samples_per_gpu': 'it is called batch_size now',
    'workers_per_gpu': 'it is called num_workers now',
}
# Places that a message lists; the same part often stands in the val and test loader.
_LISTED = 3


@contextmanager
def naming_keys(config: Config | Mapping[str, Any]) -> Iterator[None]:
    """Turn errors of building the parts of a config into one that names the key.

    Raises:
        ConfigError: for an option that a component does not take or lacks, a type that
            nobody registered, or a part without type. Other errors stay as they are.
    """
    try:
        yield
    except (KeyError, TypeError) as error:
        text = _explain(str(error.args[0]) if error.args else '', config)
        if text is None:
            raise
        raise ConfigError(text) from error


def _explain(message: str, config: Mapping[str, Any]) -> str | None:
    if found := _SURPLUS.search(message):
        return _surplus_option(found['call'], found['option'], config)
    if found := _LACKING.search(message):
        return _lacking_options(found['call'], found['names'], config)
    if found := _UNKNOWN.search(message):
        return _unknown_type(found['name'], found['kind'], config)
    if _TYPELESS in message:
        shown = message.partition(_TYPELESS)[2].rpartition('\n')[0]
        places = [key for key, node in _parts(config) if str(node) == shown]
        if places:
            return f'{_listed(places)}: there is no type. Is the name of the key right?'
    return None


def _surplus_option(call: str, option: str, config: Mapping[str, Any]) -> str | None:
    holders = {key: node for key, node in _parts(config) if option in node}
    places = {
        f'{key}.{option}': kind
        for key, node in holders.items()
        if (kind := _kind_called(call, node)) is not None
    }
    if not places:
        # Handed on to something that stands in no config, such as a torch loader.
        places = {f'{key}.{option}': _CLASSES.get(call) for key in holders}
    if not places:
        return None
    kind = next(iter(places.values()))
    owner = getattr(kind, '__name__', call.split('.')[-1])
    text = f'{_listed([*places])}: {owner} takes no option {option!r}'
    if kind is None:
        return text
    known = _options_of(kind)
    instead = getattr(kind, 'instead_of', _FORMER).get(option)
    if instead is not None:
        return f'{text}; {instead}'
    hint = did_you_mean(option, known) or f' It takes {", ".join(known) or "none"}.'
    return f'{text}.{hint}'


def _lacking_options(call: str, options: str, config: Mapping[str, Any]) -> str | None:
    names = re.findall(r"'(\w+)'", options)
    places = [
        key
        for key, node in _parts(config)
        if not any(name in node for name in names)
        and _kind_called(call, node) is not None
    ]
    if not places:
        return None
    lacking = ', '.join(f'{places[0]}.{name}' for name in names)
    return f'{_listed(places)}: {call.split(".")[-1]} needs {lacking}'


def _unknown_type(name: str, kind: str, config: Mapping[str, Any]) -> str | None:
    places = [f'{k}.type' for k, node in _parts(config) if node.get('type') == name]
    if not places:
        return None
    registries = [r for r in _REGISTRIES.values() if r.name == kind]
    hint = did_you_mean(name, {n for r in registries for n in r.module_dict})
    if not hint:
        hint = ' Is the module that defines it in custom_imports of the config?'
    return f'{_listed(places)} = {name!r}: no {kind} is registered so.{hint}'


def _parts(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the dicts of what a runner reads, with their keys."""
    for top in config:
        if top in READ_KEYS:
            for key, node in walk(config[top], top):
                if isinstance(node, Mapping):
                    yield key, node


def _kind_called(call: str, node: Mapping[str, Any]) -> Any:
    """Return the class of a dict if the call is its constructor, or a parent's."""
    name = call.split('.')[-1]
    kind = node.get('type')
    if isinstance(kind, str):
        registries = _REGISTRIES.values()
        kinds = [found for r in registries if (found := _look_up(r, kind)) is not None]
    else:
        kinds = [kind]
    for found in kinds:
        line = inspect.getmro(found) if inspect.isclass(found) else (found,)
        if name in {getattr(part, '__name__', '') for part in line}:
            return found
    return None


def _look_up(registry: Registry, name: str) -> Any:
    try:
        return registry.get(name)
    except (ImportError, KeyError, TypeError):
        return None


def _options_of(kind: Any) -> list[str]:
    """Return the options of a class, those of its parents included if it hands on."""
    options: dict[str, None] = {}
    for part in inspect.getmro(kind) if inspect.isclass(kind) else (kind,):
        if inspect.isclass(part) and '__init__' not in vars(part):
            continue
        parameters = inspect.signature(part).parameters.values()
        named = (
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.KEYWORD_ONLY,
        )
        options |= {p.name: None for p in parameters if p.kind in named}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return [*options]


def _listed(places: list[str]) -> str:
    more = len(places) - _LISTED
    return ', '.join(places[:_LISTED]) + (f' and {more} more' if more > 0 else '')
