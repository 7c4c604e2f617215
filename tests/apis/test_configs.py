"""Configs are found by path and by name, from any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmengine.config import Config

from zs3_mmseg.apis import DEFAULT_CONFIG, find_config, load_config, shipped_configs


def test_every_name_leads_to_its_file_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = shipped_configs()
    assert DEFAULT_CONFIG in shipped
    assert not [name for name in shipped if '_base_' in name]
    for name, path in shipped.items():
        assert find_config(name) == find_config(f'configs/{name}.py') == path


def test_a_path_wins_over_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / 'clip_dense' / 'shapes_tiny.py'
    mine.parent.mkdir()
    mine.write_text('answer = 42\n')
    assert load_config('clip_dense/shapes_tiny.py').answer == 42


def test_a_misspelt_name_is_answered_with_close_ones() -> None:
    with pytest.raises(FileNotFoundError, match="Did you mean 'clip_dense/shapes_tiny"):
        find_config('clip_dense/shape_tiny')


def test_a_config_object_is_copied_before_options_go_in() -> None:
    mine = Config({'model': {'depth': 1}})
    changed = load_config(mine, {'model.depth': 2})
    assert (mine.model.depth, changed.model.depth) == (1, 2)


def test_something_else_than_a_config_is_refused() -> None:
    with pytest.raises(TypeError, match='got int'):
        load_config(3)
