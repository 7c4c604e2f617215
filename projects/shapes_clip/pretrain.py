"""Pre-train the tiny CLIP on Shapes captions; one command makes the shipped files."""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from caption_pairs import render_pairs
from clip_model import CONFIG_FILE, WEIGHTS_FILE, save_weights, write_config_and_merges
from clip_training import Recipe, Trainer
from measure import HELD_OUT, image_level_figures
from zs3_mmseg.models.towers import load_clip, resolve_architecture
from zs3_mmseg.utils.cache import atomic_write, cache_dir

_CARD_FILE = 'MODEL_CARD.md'
_CARD_TEMPLATE = Path(__file__).with_name('model_card.md')


def pretrain(
    recipe: Recipe,
    out_dir: Path,
    *,
    work_dir: Path,
    cache: Path,
    processes: int = 1,
    bf16: bool = True,
) -> dict[str, float]:
    """Train a tiny CLIP, write its model folder, return figures on held-out scenes.

    A run that was stopped continues from the last checkpoint in ``work_dir``. Rendered
    pairs are kept in ``cache``. Of several processes each runs on one thread.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    write_config_and_merges(work_dir)
    for subset, count in (*recipe.pools, HELD_OUT):
        render_pairs(cache, subset, count, recipe.seed)
    with tempfile.TemporaryDirectory() as meeting:
        arguments = (processes, f'{meeting}/store', recipe, work_dir, cache, bf16)
        if processes == 1:
            _train(0, *arguments)
        else:
            mp.spawn(_train, arguments, nprocs=processes)
    return _publish(recipe, out_dir, work_dir, cache, processes)


def _train(
    rank: int,
    processes: int,
    store: str,
    recipe: Recipe,
    work_dir: Path,
    cache: Path,
    bf16: bool,
) -> None:
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    threads = torch.get_num_threads()
    if processes > 1:
        torch.set_num_threads(1)
        dist.init_process_group(
            'gloo', init_method=f'file://{store}', rank=rank, world_size=processes
        )
    try:
        pools = [render_pairs(cache, *pool, recipe.seed) for pool in recipe.pools]
        architecture = resolve_architecture(str(work_dir / CONFIG_FILE))
        trainer = Trainer(recipe, architecture, pools, work_dir=work_dir, bf16=bf16)
        trainer.resume()
        for _ in trainer.run():
            pass
        if rank == 0:
            save_weights(trainer.model, work_dir / WEIGHTS_FILE)
    finally:
        if processes > 1:
            dist.destroy_process_group()
            torch.set_num_threads(threads)


def _publish(
    recipe: Recipe, out_dir: Path, work_dir: Path, cache: Path, processes: int
) -> dict[str, float]:
    clip = load_clip(str(work_dir / CONFIG_FILE), work_dir / WEIGHTS_FILE)
    held_out = render_pairs(cache, *HELD_OUT, recipe.seed)
    figures = image_level_figures(clip.model, clip.tokenizer, held_out)
    state = torch.load(work_dir / 'last.pt', map_location='cpu', weights_only=True)
    card = model_card(recipe, figures, state['seconds'], processes)
    write_config_and_merges(out_dir)
    weights = (work_dir / WEIGHTS_FILE).read_bytes()
    atomic_write(out_dir / WEIGHTS_FILE, lambda stream: stream.write(weights))
    atomic_write(out_dir / _CARD_FILE, lambda stream: stream.write(card.encode()))
    return figures


def model_card(
    recipe: Recipe, figures: Mapping[str, float], seconds: float, processes: int
) -> str:
    """Markdown text of the card, with the wall time of the training loop."""
    rows = [
        f'| {p.name} | {p.steps} | {p.batch} | {" / ".join(map(str, p.mix))} | '
        f'{"plain" if p.plain else "drawn"} | {p.grounds} | {p.things} | '
        f'{p.patch_dropout} |'
        for p in recipe.phases
    ]
    words = f' plus {recipe.word_loss} times the classification of caption words'
    mimetic = ' and mimetic attention in the image tower'
    return _CARD_TEMPLATE.read_text(encoding='utf-8').format(
        processes=processes,
        seed=recipe.seed,
        pools=', '.join(f'{count} `{name}`' for name, count in recipe.pools),
        extra=words if recipe.word_loss else ' and nothing else',
        mimetic=mimetic if recipe.mimetic else '',
        peak=recipe.peak_lr,
        decay=recipe.weight_decay,
        steps=recipe.steps,
        samples=recipe.samples,
        minutes=seconds / 60,
        phases='\n'.join(rows),
        **figures,
    )


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
