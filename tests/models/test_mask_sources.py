"""Proposers without SAM: superpixels, files of masks, queries of a trained head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as run_lengths
from scipy.ndimage import label as parts_of
from torch import Tensor

from zs3_mmseg.models.post_processors import MaskMajority
from zs3_mmseg.models.proposers import (
    MaskFileProposer,
    QueryMaskProposer,
    SuperpixelProposer,
)
from zs3_mmseg.models.proposers.superpixels import lab
from zs3_mmseg.utils.config_check import ConfigError

SPLIT = dict(classes=['star', 'boat', 'grass'], unseen=['boat'])
CLIP = dict(arch='zs3-shapes-tiny', pretrained='shapes')

# ------------------------------------------------------------------------- superpixels


def noise(height: int = 37, width: int = 52) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, height, width), generator=random).byte()


@pytest.mark.parametrize('join_below', [0.0, 20.0])
def test_superpixels_cover_the_image_once_and_hang_together(join_below: float) -> None:
    masks = SuperpixelProposer(20, join_below=join_below).propose(noise())
    assert masks.flatten(1).sum(dim=1).min() >= 37 * 52 / 20 / 4
    assert (masks.sum(dim=0) == 1).all()
    assert all(parts_of(mask)[1] == 1 for mask in masks.numpy())


def test_superpixels_end_at_edges_and_alike_neighbours_are_joined() -> None:
    image = torch.full((3, 60, 60), 120, dtype=torch.uint8)
    image[0, 13:44, 21:50] = 250
    square = image[0] == 250
    masks = SuperpixelProposer(64).propose(image)
    assert len(masks) > 20
    inside = (masks & square).flatten(1).sum(dim=1) / masks.flatten(1).sum(dim=1)
    assert set(inside.tolist()) == {0.0, 1.0}
    joined = SuperpixelProposer(64, join_below=5.0).propose(image)
    found = {tuple(mask.flatten().tolist()) for mask in joined}
    assert found == {tuple(m.flatten().tolist()) for m in (square, ~square)}


def test_lab_has_the_known_values() -> None:
    colours = torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0]]).T[..., None]
    known = [[100, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86], [0, 0, 0]]
    torch.testing.assert_close(
        lab(colours)[..., 0].T, torch.tensor(known).float(), atol=0.05, rtol=0
    )


@pytest.mark.parametrize('size', [(1, 1), (1, 9), (3, 2)])
def test_superpixels_of_a_tiny_image(size: tuple[int, int]) -> None:
    assert SuperpixelProposer(100).propose(noise(*size)).any(dim=0).all()


@pytest.mark.parametrize('options', [dict(num_segments=0), dict(compactness=0.0)])
def test_impossible_superpixels_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match='SuperpixelProposer needs'):
        SuperpixelProposer(**options)


# ----------------------------------------------------------------------- files of masks

META = dict(img_path='somewhere/street.jpg', ori_shape=(4, 6))


@pytest.fixture
def masks() -> np.ndarray:
    found = np.zeros((2, 4, 6), bool)
    found[0, :, :3] = True
    found[1, 1:3, 4:] = True
    return found


def write(folder: Path, suffix: str, masks: np.ndarray) -> np.ndarray:
    """Write masks in one of the formats, and return the scores that it holds."""
    path, scores = folder / f'street{suffix}', np.array([0.25, 0.75], np.float32)
    if suffix == '.npz':
        np.savez_compressed(path, masks=masks, scores=scores)
    elif suffix == '.png':
        numbers = (masks * np.array([3, 7])[:, None, None]).max(axis=0)
        Image.fromarray(numbers.astype(np.uint8)).save(path)
        return np.ones(2)
    else:
        packed = [run_lengths.encode(np.asfortranarray(mask)) for mask in masks]
        entries = [
            dict(
                segmentation=dict(entry, counts=entry['counts'].decode()),
                predicted_iou=float(score),
            )
            for entry, score in zip(packed, scores, strict=True)
        ]
        path.write_text(json.dumps(entries))
    return scores


@pytest.mark.parametrize('suffix', ['.npz', '.png', '.json'])
def test_masks_are_read_at_the_size_that_the_network_sees(
    tmp_path: Path, masks: np.ndarray, suffix: str
) -> None:
    scores = write(tmp_path, suffix, masks)
    found, sure = MaskFileProposer(tmp_path).scored(torch.zeros(3, 8, 18), META)
    assert found.numpy().tolist() == masks.repeat(2, 1).repeat(3, 2).tolist()
    assert sure.tolist() == scores.tolist()
    canvas = dict(META, canvas_shape=(6, 6))
    square = MaskFileProposer(tmp_path)(torch.zeros(3, 6, 6), canvas)
    assert square[:, :4].numpy().tolist() == masks.tolist()
    assert not square[:, 4:].any()


def test_a_changed_file_is_read_again(tmp_path: Path, masks: np.ndarray) -> None:
    proposer, image = MaskFileProposer(tmp_path), torch.zeros(3, 4, 6)
    write(tmp_path, '.npz', masks)
    assert proposer(image, META).numpy().tolist() == masks.tolist()
    np.savez_compressed(tmp_path / 'street.npz', masks=~masks[:1])
    assert proposer(image, META).numpy().tolist() == (~masks[:1]).tolist()


def test_what_is_wrong_with_files_is_said_in_one_line(
    tmp_path: Path, masks: np.ndarray
) -> None:
    image = torch.zeros(3, 4, 6)
    with pytest.raises(FileNotFoundError, match=r'root: the folder .* does not exist'):
        MaskFileProposer(tmp_path / 'none')
    proposer = MaskFileProposer(tmp_path)
    with pytest.raises(FileNotFoundError, match=r'has no masks of street: expected '):
        proposer(image, META)
    with pytest.raises(ConfigError, match='finds masks by the name of the image file'):
        proposer(image)
    write(tmp_path, '.npz', masks[:, :2])
    message = (
        f'^{tmp_path}/street.npz has masks of 6 x 2 pixels, and street.jpg has 6 x 4: '
        'make them from this image, or set proposer.root to the folder of its masks$'
    )
    with pytest.raises(ValueError, match=message):
        proposer(image, META)
    for content in (dict(masks=masks.astype('f4')), dict(other=masks)):
        np.savez(tmp_path / 'street.npz', **content)
        with pytest.raises(ValueError, match=r'street\.npz holds no masks: '):
            proposer(image, META)


def test_post_processors_find_files_too(tmp_path: Path, masks: np.ndarray) -> None:
    write(tmp_path, '.png', masks)
    processor = MaskMajority(MaskFileProposer(tmp_path))
    assert processor.needs_meta
    labels = torch.zeros(1, 4, 6, dtype=torch.long)
    labels[0, 0], labels[0, 1:, 0] = 1, 2
    corrected = processor(labels, torch.zeros(3, 4, 6), meta=META)
    assert corrected[0, :, :3].unique().tolist() == [0]


# ------------------------------------------------------------------------------ queries


def query_model(**head: Any) -> dict:
    small = dict(num_queries=4, num_layers=1, num_heads=2, feedforward_channels=8)
    return dict(
        type='ZeroShotEncoderDecoder',
        data_preprocessor=dict(
            type='mmseg.SegDataPreProcessor',
            bgr_to_rgb=True,
            mean=[127.5] * 3,
            std=[64.0] * 3,
            size_divisor=16,
            test_cfg=dict(size_divisor=16),
        ),
        backbone=dict(type='OpenCLIPViT', **CLIP, out_indices=(1, 3, 4, 5)),
        decode_head=dict(
            type='ZegFormerHead',
            channels=16,
            num_groups=4,
            in_index=(0, 1, 2, 3),
            **small,
            **head,
        ),
        class_embeddings=dict(
            type='ClassEmbeddingBank', source=dict(type='clip_text', **CLIP)
        ),
        split=SPLIT,
        setting='inductive',
    )


def test_queries_of_a_head_are_masks_of_the_picture_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    proposer = QueryMaskProposer(query_model(), cache=False)
    image = noise(40, 56)
    masks, scores = proposer.scored(image)
    assert masks.shape[1:] == (40, 56)
    assert 0 < len(masks) <= 4
    model = proposer.model
    pixels = (image.float() - 127.5) / 64
    padded = torch.nn.functional.pad(pixels, (0, 8, 0, 8))[None]
    found = model.decode_head._queries_and_features(model.backbone(padded))
    queries = model.current_queries()
    outputs = model.decode_head._found(found[0][-1:], found[1], queries)
    logits = torch.nn.functional.interpolate(
        outputs.masks[0], size=(48, 64), mode='bilinear'
    )[0, :, :40, :56]
    there = (logits > 0).flatten(1).any(dim=1)
    assert torch.equal(masks, logits[there] > 0)
    shares = outputs.class_logits[0, 0].softmax(dim=-1)[there, :-1].sum(dim=-1)
    torch.testing.assert_close(scores, shares)
    # Other weights, other masks; those of a checkpoint are the same.
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    other = QueryMaskProposer(query_model(), cache=False)
    assert other.fingerprint != proposer.fingerprint
    same = QueryMaskProposer(query_model(), tmp_path / 'weights.pth', cache=False)
    assert torch.equal(same(image), masks)


def test_a_head_without_masks_is_refused() -> None:
    model = query_model()
    model['decode_head'] = dict(type='DenseTextHead')
    model['backbone'] = dict(type='OpenCLIPViT', **CLIP)
    with pytest.raises(ValueError, match='DenseTextHead finds no masks'):
        QueryMaskProposer(model)
