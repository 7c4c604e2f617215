"""Print a config with all its bases merged: ``print_config.py CONFIG``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _arguments import add_config_options


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Print the whole config')
    parser.add_argument('config', help='path of the config file')
    parser.add_argument(
        '--graph', action='store_true', help='build the model and print its modules'
    )
    add_config_options(parser)
    return parser.parse_args()


def main() -> None:
    arguments = parse_args()
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    from zs3_mmseg.engine.launch import one_line_errors, require_keys
    from zs3_mmseg.utils.config_check import read_config
    from zs3_mmseg.utils.config_keys import naming_keys

    with one_line_errors():
        config = read_config(arguments.config, arguments.cfg_options)
        print(config.pretty_text)
        if arguments.graph:
            require_keys(config, 'model')
            init_default_scope(config.get('default_scope', 'mmseg'))
            with naming_keys(config):
                print(MODELS.build(config.model))


if __name__ == '__main__':
    main()
