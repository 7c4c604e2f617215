"""Each picture has a file of its own, whatever writes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import nn

from mmengine.dataset import ConcatDataset
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset
from mmseg.evaluation import IoUMetric

from zs3_mmseg.apis import ZeroShotInferencer
from zs3_mmseg.apis.pseudo_labels import _unique_paths
from zs3_mmseg.datasets import ClassPromptDataset, ZeroShotDataset
from zs3_mmseg.engine.hooks import ProtocolCheckHook
from zs3_mmseg.engine.protocol import ProtocolError
from zs3_mmseg.evaluation import FoldIoUMetric, ZeroShotIoUMetric
from zs3_mmseg.utils.output_names import distinct, output_names

CLASSES = ['ant', 'a/b', 'a_b']
SPLIT = dict(classes=CLASSES, unseen=['a/b'])


@pytest.mark.parametrize(
    ('paths', 'names'),
    [
        (['d/a/0.png', 'd/b/1.png'], ['0', '1']),
        (['d/a/0.png', 'd/b/0.png'], ['a/0', 'b/0']),
        (['d/0.png', 'd/b/0.png', 'd/b/c/0.png'], ['0', 'b/0', 'b/c/0']),
        (['d/a/0.png', 'e/a/0.png'], ['d/a/0', 'e/a/0']),
        (['/d/a/0.png', 'd/a/0.png'], ['/d/a/0', 'd/a/0']),
        (['d/0.png', 'd/0.jpg'], ['0.png', '0.jpg']),
        (['d/a/0.png', 'd/a/0.jpg', 'd/b/0.png'], ['a/0.png', 'a/0.jpg', 'b/0.png']),
        (['d/Cat.png', 'd/cat.png'], ['Cat.png', 'cat.png_2']),
        (['d/a.b.png', 'd/a.c.png'], ['a.b', 'a.c']),
        (['d/0.png', 'd/0.png'], ['0']),
        (['d/\u00c4.png', 'd/x/\u00e4.png'], ['\u00c4', 'x/\u00e4']),
        ([], []),
    ],
)
def test_names_of_pictures(paths: list[str], names: list[str]) -> None:
    assert [*output_names(paths).values()] == names


def test_numbers_pass_over_names_that_are_there() -> None:
    assert distinct(['a', 'A_2', 'A', 'a']) == ['a', 'A_2', 'A_3', 'a_4']


# ------------------------------------------------------------------------- writers


@pytest.fixture(autouse=True)
def _scope() -> None:
    init_default_scope('mmseg')


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Write pictures of 4 x 4 below ``images`` and their masks; return the config."""

    def make(files: Sequence[str]) -> dict[str, Any]:
        for number, file in enumerate(files):
            for kind in ('images', 'masks'):
                path = tmp_path / kind / file
                path.parent.mkdir(parents=True, exist_ok=True)
                mask = np.full((4, 4), number % 3, np.uint8)
                mask[0] = 1
                shown = mask if kind == 'masks' else np.stack([mask * 80] * 3, 2)
                Image.fromarray(shown).save(path)
        return dict(
            type='BaseSegDataset',
            metainfo=dict(classes=CLASSES),
            data_root=str(tmp_path),
            data_prefix=dict(img_path='images', seg_map_path='masks'),
            img_suffix='.png',
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations'),
                dict(type='PackSegInputs'),
            ],
        )

    return make


def write(metric: Any, dataset: Any) -> None:
    """Let a metric write the truth as if it were predicted."""
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        sample = dataset[index]['data_samples']
        sample.pred_sem_seg = sample.gt_sem_seg
        metric.process(None, [sample.to_dict()])


def check(metric: Any, dataset: Any) -> None:
    """Ask the hook about a test with stock parts but these."""
    loop = SimpleNamespace(
        dataloader=SimpleNamespace(dataset=dataset),
        evaluator=SimpleNamespace(metrics=[metric]),
    )
    model = nn.Module()
    ProtocolCheckHook().before_test(SimpleNamespace(model=model, test_loop=loop))


NESTED = ['a/0.png', 'a/1.png', 'b/0.png', 'B/1.png']


@pytest.mark.parametrize(
    ('files', 'expected'),
    [
        (NESTED, {'a/0', 'a/1', 'b/0', 'B/1'}),
        (['a/0.png', 'b/1.png'], {'0', '1'}),
    ],
)
def test_label_maps_keep_their_folders(make_folder, files, expected, tmp_path) -> None:
    dataset = ZeroShotDataset(make_folder(files), phase='test', split=SPLIT)
    metric = ZeroShotIoUMetric(output_dir=str(tmp_path / 'out'))
    check(metric, dataset)
    write(metric, dataset)
    written = {*(tmp_path / 'out').rglob('*.png')}
    assert written == {tmp_path / f'out/{name}.png' for name in expected}
    for number, file in enumerate(files):
        name = file if len(expected) > 2 else Path(file).name
        assert np.asarray(Image.open(tmp_path / 'out' / name))[3, 3] == number % 3


def test_masks_of_named_classes_have_a_file_each(make_folder, tmp_path) -> None:
    dataset = ClassPromptDataset(
        make_folder(NESTED),
        phase='test',
        split=SPLIT,
        prompts='all',
        sampling='exhaustive',
        min_pixels=1,
    )
    write(FoldIoUMetric(output_dir=str(tmp_path / 'out')), dataset)
    written = [path.relative_to(tmp_path) for path in (tmp_path / 'out').rglob('*.png')]
    assert len({str(path).casefold() for path in written}) == len(dataset) == 7
    assert Path('out/B/1__ant.png') in written
    assert Path('out/b/0__a_b_2.png') in written


@pytest.mark.parametrize('kind', ['stock metric', 'stock data', 'two data sets'])
def test_parts_that_know_stems_only_are_refused(make_folder, kind, tmp_path) -> None:
    config, out = make_folder(NESTED), str(tmp_path / 'out')
    metric: Any = ZeroShotIoUMetric(SPLIT, output_dir=out)
    dataset: Any = ZeroShotDataset(config, phase='test', split=SPLIT)
    if kind == 'stock metric':
        metric = IoUMetric(output_dir=out)
    elif kind == 'stock data':
        dataset = BaseSegDataset(**{k: v for k, v in config.items() if k != 'type'})
    else:
        one = dict(type='ZeroShotDataset', dataset=config, phase='test', split=SPLIT)
        dataset = ConcatDataset([one, one])
    with pytest.raises(ProtocolError, match=r'--out.*1\.png.*have one name'):
        check(metric, dataset)
    assert not [*(tmp_path / 'out').rglob('*.png')]


@pytest.mark.parametrize('place', ['images', 'masks'])
@pytest.mark.parametrize('metric', [ZeroShotIoUMetric, IoUMetric])
def test_inputs_are_not_written_over(make_folder, place, metric, tmp_path) -> None:
    dataset = ZeroShotDataset(make_folder(['0.png']), phase='test', split=SPLIT)
    with pytest.raises(ProtocolError, match='is an input and would be overwritten'):
        check(metric(output_dir=str(tmp_path / place)), dataset)


@pytest.mark.parametrize('files', [NESTED, ['a.png', 'A.png']])
def test_pseudo_labels_are_found_by_stem_and_refused_otherwise(
    make_folder, files
) -> None:
    dataset = ZeroShotDataset(make_folder(files), phase='train', split=SPLIT)
    with pytest.raises(ValueError, match='would have the same map'):
        _unique_paths(dataset)


def test_results_of_own_pictures_have_a_file_each(make_folder, tmp_path) -> None:
    make_folder(NESTED)
    for file in ('c/0.jpg', 'c/0.png'):
        path = tmp_path / 'images' / file
        path.parent.mkdir(exist_ok=True)
        Image.new('RGB', (4, 4)).save(path)
    inferencer = ZeroShotInferencer()
    pictures = [str(tmp_path / 'images' / file) for file in NESTED]
    pictures += [str(tmp_path / 'images/c')]
    inferencer(pictures, out_dir=tmp_path / 'out')
    names = [path.name for path in (tmp_path / 'out').glob('*_labels.png')]
    assert len({name.casefold() for name in names}) == 6
