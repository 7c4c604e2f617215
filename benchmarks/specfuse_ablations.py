"""Claim: what each box of SpecFuse adds on Shapes, over several seeds.

``python benchmarks/specfuse_ablations.py`` trains and tests SpecFuse and forms of it
with one box off or changed on one split, and the training-free form with its segments
and with shuffled ones. It prints mean and spread, and can be interrupted and started
again.
"""

from __future__ import annotations

from _comparison import ROOT, compare, parse_args

from zs3_mmseg.utils.experiments import Method

CONFIG = ROOT / 'configs/specfuse/shapes_tiny.py'
TRAINING_FREE = ROOT / 'configs/specfuse/shapes_tiny_training_free.py'
#: Options of the head that differ from the config.
FORMS: dict[str, dict[str, object]] = {
    'specfuse': {},
    'no_edges': {'delineator': None},
    'no_segments': {'spectral': None, 'vote': 0.0},
    'no_mlp': {'fusion': None},
    'no_vote': {'vote': 0.0},
    'no_trained_affinity': {'train_affinity': False},
    'shuffled_segments': {'shuffle_segments': True},
}
METHODS = [
    *(
        Method(
            name if name == 'specfuse' else f'specfuse_{name}',
            CONFIG,
            trained=True,
            options={f'model.decode_head.{key}': value for key, value in form.items()},
        )
        for name, form in FORMS.items()
    ),
    Method('specfuse_training_free', TRAINING_FREE),
    Method(
        'training_free_shuffled',
        TRAINING_FREE,
        options={'model.decode_head.shuffle_segments': True},
    ),
]


def main() -> None:
    args = parse_args(__doc__, METHODS, ['shapes_a'])
    compare(METHODS, args, 'specfuse_ablations.json')


if __name__ == '__main__':
    main()
