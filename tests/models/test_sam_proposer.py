"""SAM's automatic masks through transformers, with few random weights."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from zs3_mmseg.models.proposers import SAMProposer
from zs3_mmseg.models.proposers.proposer import at_size
from zs3_mmseg.utils.cache import CACHE_ENV
from zs3_mmseg.utils.transformers_models import require_no_transformers

ALL = dict(points_per_side=4, iou_thr=0.0, stability_thr=0.0)
KINDS = ('sam', 'sam2')


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_ENV, str(tmp_path / 'cache'))
    return tmp_path / 'cache/proposals'


def picture(seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, 40, 56), generator=random, dtype=torch.uint8)


@torch.no_grad()
def all_masks(folder: str, image: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and predicted IoUs of a 4 x 4 grid of points, straight from the model."""
    import transformers as hf

    model = hf.AutoModelForMaskGeneration.from_pretrained(folder).eval()
    processor = hf.AutoImageProcessor.from_pretrained(folder)
    grid = (torch.arange(4) + 0.5) / 4
    y, x = torch.meshgrid(grid, grid, indexing='ij')
    points = torch.stack([x, y], dim=-1).view(1, 16, 1, 2)
    inputs = processor(images=[image], return_tensors='pt')
    sam2 = type(model).__name__ == 'Sam2Model'
    # SAM resizes the longer side and pads, SAM 2 resizes both.
    shown = [64, 64] if sam2 else inputs['reshaped_input_sizes'][0].tolist()
    found = model(
        pixel_values=inputs['pixel_values'],
        input_points=points * torch.tensor([shown[1], shown[0]]),
        input_labels=torch.ones(1, 16, 1, dtype=torch.int64),
    )
    sizes = dict(original_sizes=inputs['original_sizes'].tolist(), binarize=False)
    if not sam2:
        sizes['reshaped_input_sizes'] = inputs['reshaped_input_sizes'].tolist()
    full = processor.post_process_masks(found.pred_masks, **sizes)[0]
    return full.flatten(0, 1), found.iou_scores.flatten()


def stabilities(logits: Tensor) -> Tensor:
    inner, outer = ((logits > shift).sum(dim=(1, 2)) for shift in (1, -1))
    return inner / outer


@pytest.mark.parametrize('kind', KINDS)
def test_it_prompts_with_a_grid_and_drops_what_is_unsure(sam_folder, kind) -> None:
    folder, image = sam_folder(kind), picture()
    shown = image
    if kind == 'sam2':  # which sees a square, and has to have points all over it
        pixels = Image.fromarray(image.permute(1, 2, 0).numpy())
        square = np.array(pixels.resize((56, 56), Image.Resampling.BILINEAR))
        shown = torch.from_numpy(square).permute(2, 0, 1)
    logits, ious = all_masks(folder, shown)
    found = at_size(logits > 0, (40, 56))
    there = found.flatten(1).any(dim=1)
    stable = stabilities(logits)
    sure, steady = float(ious.max()) / 2, float(stable.nan_to_num().max()) / 2
    for options, kept in (
        ({}, there),
        (dict(iou_thr=sure), ious > sure),
        (dict(stability_thr=steady), stable > steady),
    ):
        proposer = SAMProposer(folder, **{**ALL, 'nms_thr': 1.0, **options})
        masks, scores = proposer.scored(image)
        expected = {m.numpy().tobytes() for m in found[kept & there]}
        assert {m.numpy().tobytes() for m in masks} == expected
        assert (scores.diff() <= 0).all()
        torch.testing.assert_close(scores[0], ious[kept & there].max().clamp(0, 1))


def boxes(masks: Tensor) -> Tensor:
    rows = [m.any(dim=1).nonzero().flatten() for m in masks]
    columns = [m.any(dim=0).nonzero().flatten() for m in masks]
    return torch.stack(
        [
            torch.stack([c[0], r[0], c[-1], r[-1]])
            for r, c in zip(rows, columns, strict=True)
        ]
    ).float()


@pytest.mark.parametrize('kind', KINDS)
def test_of_boxes_that_overlap_one_stays_and_masks_are_few(sam_folder, kind) -> None:
    from torchvision.ops import box_iou

    folder = sam_folder(kind)
    every = SAMProposer(folder, **ALL, nms_thr=1.0)(picture())
    masks = SAMProposer(folder, **ALL, nms_thr=0.5)(picture())
    assert 0 < len(masks) < len(every)
    overlaps = box_iou(boxes(masks), boxes(masks)).fill_diagonal_(0)
    assert overlaps.max() <= 0.5
    few = SAMProposer(folder, **ALL, nms_thr=0.5, max_masks=2)(picture())
    assert torch.equal(few, masks[:2])


@pytest.mark.parametrize('kind', KINDS)
def test_masks_are_kept_until_the_weights_or_the_picture_change(
    sam_folder, kind, cache: Path, tmp_path: Path
) -> None:
    import transformers as hf

    class Counting(SAMProposer):
        calls = 0

        def propose(self, image: Tensor) -> Any:
            Counting.calls += 1
            return super().propose(image)

    folder = tmp_path / 'weights'
    shutil.copytree(sam_folder(kind), folder)
    masks = Counting(folder, **ALL)(picture())
    assert torch.equal(Counting(folder, **ALL)(picture()), masks)
    assert (Counting.calls, len([*cache.iterdir()])) == (1, 1)
    Counting(folder, **ALL)(picture(1))
    assert Counting.calls == 2
    model = hf.AutoModelForMaskGeneration.from_pretrained(folder)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    model.save_pretrained(folder)
    Counting(folder, **ALL)(picture())
    assert (Counting.calls, len([*cache.iterdir()])) == (3, 3)


def test_missing_weights_are_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r'^SAMProposer\.weights: the folder .*'
    ):
        SAMProposer(tmp_path / 'none')(picture())
    (tmp_path / 'empty').mkdir()
    with pytest.raises(
        ValueError, match=r'^SAMProposer\.weights=.* holds no Auto\w+: '
    ):
        SAMProposer(tmp_path / 'empty')(picture())
    # tests/conftest.py keeps the hub away.
    with pytest.raises(ConnectionError) as caught:
        SAMProposer('facebook/sam-vit-base')(picture())
    text = str(caught.value)
    assert '\n' not in text
    assert text.endswith('set SAMProposer.weights=/path/to/folder')


def test_a_missing_extra_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(ModuleNotFoundError) as caught:
        SAMProposer('facebook/sam-vit-base')
    assert str(caught.value) == (
        'SAMProposer needs the package transformers: pip install "transformers>=5", or '
        'this package with [masks], in an environment without mmpretrain'
    )


def test_mmpretrain_beside_transformers_is_named(monkeypatch) -> None:
    monkeypatch.setattr('importlib.util.find_spec', lambda name: name)
    with pytest.raises(ImportError, match=r'mmpretrain\.X is a part of mmpretrain, wh'):
        require_no_transformers('mmpretrain.X')


@pytest.mark.parametrize(
    'options', [dict(points_per_side=0), dict(max_masks=0), dict(iou_thr=1.5)]
)
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match='SAMProposer needs'):
        SAMProposer('facebook/sam-vit-base', **options)
