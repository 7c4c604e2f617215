"""Options and checkpoints from when ZS3Net's two synthesisers were the only ones.

Configs still name these two by options of the hook, and runs of such configs write
the checkpoints that they always wrote; nothing else here knows of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: The entry of a checkpoint.
KEY = 'generative_retraining'

#: Options of the hook that both synthesisers have, and those of the first alone.
_SHARED = ('loss', 'generator_optimizer', 'generator_step')
_FIRST = ('generator', 'generator_from', 'samples_per_class', 'merge')
_PIXELS, _GRAPH = 'PixelSynthesis', 'GraphSynthesis'


def synthesisers_of(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the configs of the synthesisers that the hook's own options describe."""
    shared = {key: options[key] for key in _SHARED}
    configs = [dict(type=_PIXELS, **shared, **{key: options[key] for key in _FIRST})]
    if options['graph'] is not None:
        configs.append(dict(type=_GRAPH, **{**shared, **options['graph']}))
    return configs


def require_defaults(options: Mapping[str, Any]) -> None:
    """Beside ``synthesisers``, the hook's own options for them must not be set."""
    defaults = dict(generator_step='iteration', samples_per_class=128, merge='image')
    given = [key for key, value in options.items() if value != defaults.get(key)]
    if given:
        raise ValueError(
            f'GenerativeRetrainingHook.{given[0]} is an option of a synthesiser: with '
            'synthesisers=[...] set it there'
        )


def former_state(states: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the entries of a checkpoint that stood for the two synthesisers."""
    first = dict(states[_PIXELS])
    return {
        'pixels': first.pop('pixels'),
        'generator': first,
        'graph': states.get(_GRAPH),
    }


def states_by_type(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the state of each synthesiser of a checkpoint, in their order."""
    if 'synthesisers' in state:
        return dict(state['synthesisers'])
    states = {_PIXELS: {**state['generator'], 'pixels': state['pixels']}}
    if state['graph'] is not None:
        states[_GRAPH] = state['graph']
    return states
