"""Pre-train the tiny CLIP on Shapes captions; one command makes the shipped files."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from recipe import Recipe
from run import pretrain
from zs3_mmseg.utils.cache import cache_dir


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    default = Recipe()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('work_dirs/pretrain_clip/model'),
        help='gets model.json, merges, weights and model card',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/pretrain_clip'),
        help='checkpoints and log; a stopped run continues from here',
    )
    parser.add_argument('--processes', type=int, default=2, help='one thread each')
    parser.add_argument('--seed', type=int, default=default.seed)
    parser.add_argument(
        '--word-loss',
        type=float,
        default=default.word_loss,
        help='weight of the caption-word loss; 0 is plain InfoNCE',
    )
    parser.add_argument(
        '--plain-init',
        action='store_true',
        help="start attention by open_clip's own initialisation",
    )
    parser.add_argument('--fp32', action='store_true', help='no bfloat16 autocast')
    return parser.parse_args()


def main() -> None:
    """Train, then print the figures."""
    args = parse_args()
    recipe = replace(
        Recipe(), seed=args.seed, word_loss=args.word_loss, mimetic=not args.plain_init
    )
    figures = pretrain(
        recipe,
        args.out_dir,
        work_dir=args.work_dir,
        cache=cache_dir() / 'shapes_pairs',
        processes=args.processes,
        bf16=not args.fp32,
    )
    for name, value in figures.items():
        print(f'{name}: {value:.4f}')
    print(f'Model written to {args.out_dir}')


if __name__ == '__main__':
    main()
