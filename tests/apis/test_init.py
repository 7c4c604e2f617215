"""Segmentors from configs and checkpoints, in our API and in mmseg's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmengine.config import Config
from mmseg.apis import MMSegInferencer, inference_model, init_model

from zs3_mmseg.apis import ZeroShotInferencer, find_config, init_segmentor
from zs3_mmseg.datasets.shapes import ShapesDataset
from zs3_mmseg.utils.checkpoint import CheckpointError, UnsafeCheckpointError

UNTRAINED = 'clip_dense/shapes_tiny'
WITH_HEAD = """
_base_ = [{base!r}]
model = dict(
    decode_head=dict(_delete_=True, type='TextPixelHead', projection='linear')
)
"""


@pytest.fixture(scope='module')
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp('pictures') / 'noise.png'
    noise = np.random.default_rng(0).integers(0, 256, (150, 130, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return str(path)


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a config of a model with a head that learns."""
    path = tmp_path_factory.mktemp('configs') / 'with_head.py'
    path.write_text(WITH_HEAD.format(base=str(find_config(UNTRAINED))))
    return str(path)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory, trained: str) -> Path:
    """Return a checkpoint whose head has weights of no default."""
    torch.manual_seed(0)
    model = init_model(trained, device='cpu')
    with torch.no_grad():
        for value in model.decode_head.parameters():
            value.uniform_(-1, 1)
    path = tmp_path_factory.mktemp('weights') / 'iter_1.pth'
    meta = {'dataset_meta': ShapesDataset.METAINFO}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, path)
    return path


def labels_of(sample: object) -> np.ndarray:
    return sample.pred_sem_seg.data[0].cpu().numpy()


def test_a_training_free_model_needs_no_checkpoint() -> None:
    model = init_segmentor(UNTRAINED)
    assert not model.training
    assert model.dataset_meta['classes'] == ShapesDataset.METAINFO['classes']
    np.testing.assert_array_equal(
        model.dataset_meta['palette'], ShapesDataset.METAINFO['palette']
    )


def test_a_model_that_learns_is_refused_without_checkpoint(trained: str) -> None:
    with pytest.raises(ValueError, match=r'decode_head\.\S+.* needs a checkpoint'):
        init_segmentor(trained)


def test_weights_of_a_checkpoint_arrive(trained: str, checkpoint: Path) -> None:
    model = init_segmentor(trained, checkpoint)
    saved = torch.load(checkpoint, weights_only=True)['state_dict']
    for name, value in model.named_parameters():
        torch.testing.assert_close(value, saved[name])


def test_a_checkpoint_that_does_not_fit_is_refused(
    trained: str, checkpoint: Path, tmp_path: Path
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    lost = next(name for name in content['state_dict'] if 'decode_head' in name)
    del content['state_dict'][lost]
    torch.save(content, tmp_path / 'less.pth')
    with pytest.raises(CheckpointError, match=lost):
        init_segmentor(trained, tmp_path / 'less.pth')


def test_a_poisoned_checkpoint_executes_nothing(trained: str, tmp_path: Path) -> None:
    mark = tmp_path / 'executed'

    class Poison:
        def __reduce__(self) -> tuple:
            return Path.touch, (mark,)

    torch.save({'state_dict': Poison()}, tmp_path / 'bad.pth')
    with pytest.raises(UnsafeCheckpointError):
        init_segmentor(trained, tmp_path / 'bad.pth')
    assert not mark.exists()


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'gone\.pth'):
        init_segmentor(UNTRAINED, tmp_path / 'gone.pth')


@pytest.mark.parametrize('device', ['cuda:99', 'toaster'])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(ValueError, match=f"device '{device}'"):
        init_segmentor(UNTRAINED, device=device)


def test_options_reach_the_model_and_spare_the_config() -> None:
    config = Config.fromfile(find_config(UNTRAINED))
    model = init_segmentor(config, cfg_options={'model.backbone.last_attn': 'naclip'})
    assert model.cfg.model.backbone.last_attn == 'naclip'
    assert config.model.backbone.last_attn != 'naclip'


def test_mmsegs_own_functions_give_our_label_maps(
    trained: str, checkpoint: Path, picture: str
) -> None:
    ours = init_segmentor(trained, checkpoint)
    theirs = init_model(trained, str(checkpoint), device='cpu')
    found = labels_of(inference_model(theirs, picture))
    assert found.shape == (150, 130)
    assert len(np.unique(found)) > 1
    np.testing.assert_array_equal(found, labels_of(inference_model(ours, picture)))
    result = ZeroShotInferencer(ours)(picture)
    np.testing.assert_array_equal(found, result['predictions'][0]['labels'])


def test_mmsegs_inferencer_gives_our_label_map(picture: str) -> None:
    config = str(find_config(UNTRAINED))
    theirs = MMSegInferencer(config, device='cpu', show_progress=False)
    ours = ZeroShotInferencer(config, device='cpu')
    np.testing.assert_array_equal(
        theirs(picture)['predictions'], ours(picture)['predictions'][0]['labels']
    )
    assert theirs.model.dataset_meta['classes'] == ours.classes


def test_streaming_changes_no_label(picture: str) -> None:
    streamed = ZeroShotInferencer(UNTRAINED, device='cpu')
    full = ZeroShotInferencer(UNTRAINED, device='cpu', return_scores=True)
    labels, sample = streamed.segment(picture)
    expected, full_sample = full.segment(picture)
    np.testing.assert_array_equal(labels.labels, expected.labels)
    assert 'seg_logits' in full_sample
    assert 'seg_logits' not in sample


def test_a_new_vocabulary_changes_names_and_colours_together(picture: str) -> None:
    inferencer = ZeroShotInferencer(UNTRAINED, classes=['sand', 'heart|love', 'owl'])
    found = inferencer(picture)['predictions'][0]
    assert [entry['name'] for entry in found['classes']] == ['sand', 'heart', 'owl']
    assert [entry['seen'] for entry in found['classes']] == [True, True, False]
    assert sum(entry['pixels'] for entry in found['classes']) == 150 * 130
