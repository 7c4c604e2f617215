"""Every file that a shipped config needs and lacks is named with where to get it."""

from __future__ import annotations

import re
from pathlib import Path

import open_clip
import pytest

from mmengine.config import Config

from zs3_mmseg.apis import shipped_configs
from zs3_mmseg.datasets.preparation import BENCHMARKS
from zs3_mmseg.utils.config_check import drop_timm_weights, require_config_files
from zs3_mmseg.utils.origins import (
    PREPARED,
    origin_of_checkpoint,
    origin_of_data,
    origin_of_file,
)

#: Configs about data of the user's own, which nobody else can know the place of.
OWN_DATA = ('clip_dense/own_folder', 'baselines/own_folder_linear')


def test_every_prepared_data_set_is_a_benchmark() -> None:
    named = {name for names in PREPARED.values() for name in names}
    assert named == set(BENCHMARKS)


@pytest.mark.parametrize('family', sorted({n.split('/')[0] for n in shipped_configs()}))
def test_what_shipped_configs_need_has_an_origin(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, file in shipped_configs().items():
        if not name.startswith(f'{family}/') or name in OWN_DATA:
            continue
        config = Config.fromfile(file)
        drop_timm_weights(config)  # which no file names
        try:
            require_config_files(
                config,
                ['train_dataloader', 'val_dataloader', 'test_dataloader'],
                training=True,
            )
        except FileNotFoundError as error:
            needed, _, origins = str(error).partition('Where they come from:')
            for path in re.findall(r"^  \S+ = '(.*)'$", needed, flags=re.MULTILINE):
                assert f'\n  {path}: ' in origins, (name, path)


def test_a_benchmark_is_prepared_by_our_tool() -> None:
    assert 'tools/prepare_data.py voc12 --source' in str(
        origin_of_data('PascalVOCDataset')
    )
    assert 'coco20i (or coco20i_2017)' in str(origin_of_data('COCOObjectsDataset'))
    assert origin_of_data('mmseg.PascalVOCDataset') == origin_of_data(
        'PascalVOCDataset'
    )
    assert origin_of_data('SomebodysDataset') is None


def test_weights_of_clip_have_the_address_that_open_clip_knows() -> None:
    address = open_clip.get_pretrained_url('ViT-B-16-quickgelu', 'openai')
    name = address.rpartition('/')[2]
    assert origin_of_file(f'some/{name}', 'ViT-B-16-quickgelu') == address
    other = origin_of_file('some/clip.pt', 'ViT-B-16-quickgelu')
    assert "pretrained='openai'" in str(other)
    assert origin_of_file('clip.pt', 'mine.json') is None


def test_rows_have_an_official_place_or_a_stand_in() -> None:
    official = origin_of_file('rows/voc12_single.npy')
    assert 'github.com/ZiqinZhou66/ZegCLIP' in str(official)
    assert "type='clip_text'" in str(origin_of_file('mine.npy'))


def test_a_checkpoint_comes_from_the_config_beside(tmp_path: Path) -> None:
    (tmp_path / 'first.py').touch()
    second = str(tmp_path / 'second.py')
    found = origin_of_checkpoint('work_dirs/first/iter_9.pth', second)
    assert found == f'python tools/train.py {tmp_path / "first.py"}'
    elsewhere = origin_of_checkpoint('work_dirs/third/iter_9.pth', second)
    assert elsewhere == 'python tools/train.py third.py'
    (tmp_path / 'zegclip').mkdir()
    (tmp_path / 'zegclip/first.py').touch()
    third = str(tmp_path / 'esda/third.py')
    below = origin_of_checkpoint('work_dirs/zegclip/first/iter_9.pth', third)
    assert below == f'python tools/train.py {tmp_path / "zegclip/first.py"}'
    assert origin_of_checkpoint('mine/iter_9.pth', second) is None
