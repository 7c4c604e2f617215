"""Pre-training in small: the command, a whole run, resuming, and two processes."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from caption_pairs import (
    CAPTIONS_PER_IMAGE,
    GROUND_COLUMN,
    THING_COLUMN,
    Pairs,
    render_pairs,
)
from clip_model import CONFIG_FILE, write_config_and_merges
from clip_training import Batches, Phase, Recipe, Trainer
from pretrain import pretrain
from zs3_mmseg.models.towers import load_clip, resolve_architecture

ROOT = Path(__file__).resolve().parents[3]
TINY = replace(
    Recipe(),
    phases=(
        Phase('icons', 2, 4, (0.0, 1.0, 0.0), True, 0.5),
        Phase('scenes', 2, 4, (0.0, 0.25, 0.75), False, 0.0),
    ),
    pools=(('clip_drawings', 4), ('clip_icons', 8), ('clip_scenes', 8)),
    warmup=1,
)


def _trainer(folder: Path, recipe: Recipe, work_dir: Path | None = None) -> Trainer:
    write_config_and_merges(folder)
    pools = [render_pairs(folder / 'pairs', *p, 0, workers=1) for p in recipe.pools]
    architecture = resolve_architecture(str(folder / CONFIG_FILE))
    return Trainer(recipe, architecture, pools, work_dir=work_dir, bf16=False)


def _weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().ravel() for p in trainer.model.parameters()])


def test_a_run_writes_a_model_folder_that_loads_strictly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('pretrain.HELD_OUT', ('clip_heldout_scenes', 12))
    figures = pretrain(
        TINY, tmp_path / 'model', work_dir=tmp_path / 'work', cache=tmp_path / 'pairs'
    )
    clip = load_clip(
        str(tmp_path / 'model' / CONFIG_FILE), tmp_path / 'model/weights.safetensors'
    )
    assert clip.has_image
    assert clip.has_text
    assert 0 <= figures['accuracy_single'] <= 1
    card = (tmp_path / 'model' / 'MODEL_CARD.md').read_text()
    assert f'{figures["map_things"]:.3f}' in card
    assert '{' not in card.replace('{}', '')


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    straight = _trainer(tmp_path, TINY)
    while straight.step < TINY.steps:
        straight.train_step()
    first = _trainer(tmp_path, TINY, tmp_path / 'work')
    for _ in range(3):
        first.train_step()
    first.save()
    second = _trainer(tmp_path, TINY, tmp_path / 'work')
    assert second.resume()
    second.train_step()
    torch.testing.assert_close(_weights(second), _weights(straight), rtol=0, atol=0)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    _trainer(tmp_path, TINY, tmp_path / 'work').save()
    other = _trainer(tmp_path, replace(TINY, weight_decay=0.5), tmp_path / 'work')
    with pytest.raises(ValueError, match='another recipe'):
        other.resume()


def _one_step(rank: int, folder: Path, recipe: Recipe) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    trainer = _trainer(folder, recipe)
    trainer.train_step()
    if rank == 0:
        torch.save(_weights(trainer), folder / 'weights.pt')
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(socket, 'AF_UNIX'), reason='gloo needs local sockets')
def test_two_processes_take_the_step_of_one(tmp_path: Path) -> None:
    # Plain gradient steps would need no tolerance for Adam's division; rounding of
    # near-zero gradients may flip the sign of its first, normalised step.
    recipe = replace(TINY, phases=TINY.phases[1:])
    alone = _trainer(tmp_path, recipe)
    before = _weights(alone)
    alone.train_step()
    mp.spawn(_one_step, (tmp_path, recipe), nprocs=2)
    together = torch.load(tmp_path / 'weights.pt', weights_only=True)
    apart = (together - _weights(alone)).norm() / (_weights(alone) - before).norm()
    assert apart < 0.05


def test_pairs_are_rendered_once_and_hold_no_test_scene(tmp_path: Path) -> None:
    pairs, again = (
        render_pairs(tmp_path, 'clip_scenes', 3, 0, workers=1) for _ in range(2)
    )
    test: Pairs = render_pairs(tmp_path, 'test', 3, 0, workers=1)
    np.testing.assert_array_equal(pairs.images, again.images)
    assert not (pairs.images == test.images).all(axis=(1, 2, 3)).any()


def test_the_learning_rate_rises_in_warmup_and_falls_to_nothing() -> None:
    recipe = Recipe()
    rates = np.array([recipe.learning_rate(step) for step in range(recipe.steps)])
    steps = np.diff(rates)
    assert (steps[: recipe.warmup - 1] > 0).all()
    assert (steps[recipe.warmup : recipe.fall_end] < 0).all()
    assert (steps[recipe.fall_end :] <= 0).all()
    assert rates.max() == pytest.approx(recipe.peak_lr)
    assert rates[-recipe.phases[-1].steps] == pytest.approx(recipe.anneal_lr)
    assert rates[-1] < 0.01 * recipe.anneal_lr


def test_a_phase_sets_the_shares_of_one_sided_captions() -> None:
    columns = np.arange(CAPTIONS_PER_IMAGE + 2).astype(str)
    pairs = Pairs(
        np.zeros((50, 2, 2, 3), np.uint8), np.tile(columns, (50, 1)), np.zeros((50, 20))
    )
    batches = Batches([pairs], lambda captions: np.array(captions), seed=0)
    phase = Phase('names', 100, 50, (1.0,), False, 0.0, grounds=0.15, things=0.25)
    told = np.concatenate(
        [batches.draw(step, phase, slice(None))[1] for step in range(100)]
    )
    assert np.mean(told == str(GROUND_COLUMN)) == pytest.approx(0.15, abs=0.02)
    assert np.mean(told == str(THING_COLUMN)) == pytest.approx(0.25, abs=0.02)
    assert set(told) == set(columns)


@pytest.mark.slow
def test_the_command_runs_from_any_folder(tmp_path: Path) -> None:
    project = tmp_path / 'a clone' / 'shapes_clip'
    shutil.copytree(ROOT / 'projects' / 'shapes_clip', project)
    done = subprocess.run(
        [sys.executable, project / 'pretrain.py', '--help'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    options = 'out-dir work-dir processes seed word-loss plain-init fp32'
    assert all(f'--{option}' in done.stdout for option in options.split())
