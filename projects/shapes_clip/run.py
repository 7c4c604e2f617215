"""Pre-training from nothing to a model folder, on one or several processes."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from card import model_card
from evaluate import image_level_figures
from model import (
    CARD_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    save_weights,
    write_config_and_merges,
)
from pairs import render_pairs
from recipe import Recipe
from trainer import Trainer
from zs3_mmseg.models.towers import load_clip, resolve_architecture
from zs3_mmseg.utils.cache import atomic_write

HELD_OUT = ('clip_heldout_scenes', 1000)


def pretrain(
    recipe: Recipe,
    out_dir: Path,
    *,
    work_dir: Path,
    cache: Path,
    processes: int = 1,
    bf16: bool = True,
) -> dict[str, float]:
    """Train a tiny CLIP and write its model folder.

    A run that was stopped continues from the last checkpoint in ``work_dir``.

    Args:
        recipe: what to train.
        out_dir: gets model config, merges, weights and model card.
        work_dir: gets checkpoints and the log.
        cache: rendered pairs are kept here.
        processes: each runs on one thread.
        bf16: forward pass in bfloat16.

    Returns:
        Figures on held-out scenes, see :func:`~.evaluate.image_level_figures`.
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
    atomic_write(out_dir / CARD_FILE, lambda stream: stream.write(card.encode()))
    return figures
