"""Claim: masks that follow outlines lead ZegCLIP by far on Shapes.

``python benchmarks/shapes_guided.py`` trains and tests the head of our own beside
ZegCLIP and its form with cross-entropy, with equal iterations, over three splits and
several seeds; forms of it with one part changed; and another member of the family with
the same upsampler. It prints mean and spread, and can be interrupted and started again.
At the end the time per image of each method is measured, the methods taking turns.
"""

from __future__ import annotations

from _comparison import ROOT, SPLITS, compare, parse_args

from zs3_mmseg.utils.experiments import Method, shapes_methods

CONFIGS = ROOT / 'configs'
GUIDED = CONFIGS / 'guided/shapes_tiny.py'
HEAD = 'model.decode_head'
#: Options that differ from the config.
FORMS: dict[str, dict[str, object]] = {
    # One patch to choose from is no choice.
    'guided_window_1': {f'{HEAD}.upsampler.window': 1},
    'guided_window_3': {f'{HEAD}.upsampler.window': 3},
}
BESIDE = ('zegclip', 'zegclip_ce', 'guided')
METHODS = [
    *(method for method in shapes_methods(CONFIGS) if method.name in BESIDE),
    *(
        Method(name, GUIDED, trained=True, options=options)
        for name, options in FORMS.items()
    ),
    # ZegCLIP's own loss.
    Method(
        'zegclip_guided',
        CONFIGS / 'zegclip/shapes_tiny.py',
        trained=True,
        options={f'{HEAD}.type': 'GuidedHead'},
    ),
    Method(
        'cascade_clip_guided',
        CONFIGS / 'cascade_clip/shapes_tiny.py',
        trained=True,
        options={f'{HEAD}.type': 'GuidedHead'},
    ),
]


def main() -> None:
    args = parse_args(__doc__, METHODS, SPLITS)
    compare(METHODS, args, 'shapes_guided.json', 'shapes_guided_seconds.json')


if __name__ == '__main__':
    main()
