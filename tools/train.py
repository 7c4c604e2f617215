"""Train a segmentor: ``python tools/train.py CONFIG``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from _arguments import add_launch_arguments

from mmengine.config import Config

AUTO = 'auto'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a segmentor')
    add_launch_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const=AUTO,
        metavar='PATH',
        help='go on from this checkpoint; without PATH, from the last one in the '
        'work dir, if there is any',
    )
    parser.add_argument(
        '--amp',
        action='store_true',
        help='train in mixed precision (needs an accelerator)',
    )
    return parser.parse_args(argv)


def prepare(arguments: argparse.Namespace) -> Config:
    """Read the config, apply the flags and check what can be checked now."""
    from zs3_mmseg.engine.launch import (
        config_of,
        require_accelerator_for_amp,
        require_keys,
    )
    from zs3_mmseg.engine.scores import require_given_scores
    from zs3_mmseg.utils.config_check import require_config_files, require_extras
    from zs3_mmseg.utils.names import type_name

    config = config_of(arguments)
    require_keys(config, 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    if arguments.amp:
        switch_amp_on(config)
    if type_name(config.optim_wrapper.get('type')) == 'AmpOptimWrapper':
        require_accelerator_for_amp(config)
    if arguments.resume is not None:
        config.resume = True
        config.load_from = None if arguments.resume == AUTO else arguments.resume
    require_extras(config)
    require_config_files(config, ['train_dataloader', 'val_dataloader'], training=True)
    require_given_scores(config)
    return config


def switch_amp_on(config: Config) -> None:
    from zs3_mmseg.utils.names import type_name

    wrapper = config.optim_wrapper
    if type_name(wrapper.get('type')) not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(
            f"--amp turns 'OptimWrapper' into 'AmpOptimWrapper', but this config has "
            f'optim_wrapper.type = {wrapper.type!r}'
        )
    wrapper.type = 'AmpOptimWrapper'
    wrapper.setdefault('loss_scale', 'dynamic')


def main() -> None:
    arguments = parse_args()
    from zs3_mmseg.engine.launch import (
        build_loops,
        build_runner,
        close_processes,
        count_parameters,
        one_line_errors,
        running,
    )

    with one_line_errors():
        config = prepare(arguments)
        runner = build_runner(config)
        learning, total = count_parameters(runner.model)
        if not learning:
            raise ValueError('nothing in this model learns: use tools/test.py')
        build_loops(runner, 'train', 'val')
    runner.logger.info(f'{learning:,} of {total:,} parameters learn')
    with running(config):
        runner.train()
    close_processes()


if __name__ == '__main__':
    main()
