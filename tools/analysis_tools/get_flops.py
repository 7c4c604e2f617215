"""Count the operations of a segmentor: ``get_flops.py CONFIG --shape 512 512``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _arguments import add_config_options


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Count operations and parameters of a segmentor. One forward pass '
        "on one random image in mode 'tensor', that is, without resizing scores; "
        'matrix products, convolutions and attention count, element-wise work does not.'
    )
    parser.add_argument('config', help='path of the config file')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        default=[512, 512],
        metavar='SIZE',
        help='height and width of the image; one number: a square',
    )
    add_config_options(parser)
    arguments = parser.parse_args()
    if len(arguments.shape) > 2 or min(arguments.shape) < 1:
        parser.error(f'--shape takes one or two positive sizes, got {arguments.shape}')
    return arguments


def main() -> None:
    arguments = parse_args()
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    from zs3_mmseg.engine.launch import (
        count_parameters,
        one_line_errors,
        require_keys,
    )
    from zs3_mmseg.utils.config_check import read_config
    from zs3_mmseg.utils.config_keys import naming_keys

    height, width = arguments.shape[0], arguments.shape[-1]
    with one_line_errors():
        config = read_config(arguments.config, arguments.cfg_options)
        require_keys(config, 'model')
        init_default_scope(config.get('default_scope', 'mmseg'))
        with naming_keys(config):
            model = MODELS.build(config.model).eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.rand(1, 3, height, width), mode='tensor')
    flops = counter.get_total_flops()
    learning, total = count_parameters(model)
    print(f'input: 3 x {height} x {width}')
    print(f'operations: {flops / 1e9:.2f} GFLOPs = {flops / 2e9:.2f} GMACs')
    print(f'parameters: {total / 1e6:.2f} M, of which {learning / 1e6:.2f} M learn')


if __name__ == '__main__':
    main()
