"""The head whose masks follow outlines, against sums written out and its promises."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.decode_heads.guided_head import GuidedHead, GuidedUpsampler
from zs3_mmseg.models.decode_heads.zegclip_head import ZegCLIPHead
from zs3_mmseg.models.segmentors.input_image import InputImage
from zs3_mmseg.utils.config_check import ConfigError

WIDTH = 16


def pictures(height: int, width: int, covered: tuple[int, int] | None = None):
    """Return two random pictures."""
    pixels = 255 * torch.rand(2, 3, height, width)
    sizes = torch.tensor([[height, width]] * 2)
    return InputImage(pixels, sizes, pixels, sizes, (None,), ({}, {}), covered)


def queries(rows: int) -> ClassQueries:
    embeddings = F.normalize(torch.randn(rows, WIDTH), dim=1)
    return ClassQueries(embeddings, torch.arange(rows), torch.ones(rows).bool())


@pytest.mark.parametrize(
    ('factor', 'window', 'grid', 'size'),
    [(4, 3, (3, 5), (12, 20)), (3, 5, (2, 2), (17, 9)), (2, 1, (4, 1), (8, 2))],
)
def test_each_pixel_mixes_the_patches_around_it(factor, window, grid, size) -> None:
    """Pixel by pixel and patch by patch, the formula of the docstring."""
    upsampler = GuidedUpsampler(factor, window, channels=8)
    torch.nn.init.normal_(upsampler.place)
    maps, pixels = torch.randn(1, 2, *grid), 255 * torch.rand(1, 3, *size)
    found = upsampler(maps, upsampler.weights(pixels, grid))
    full = [factor * side for side in grid]
    picture = F.interpolate(pixels / 127.5 - 1, size=full, mode='bilinear')
    wide = F.interpolate(upsampler.wide(picture), size=full, mode='bilinear')
    features = upsampler.fine(torch.cat([wide, picture], dim=1))
    query, key = upsampler.query(features)[0], upsampler.key(features)[0]
    reach = window // 2
    for y in range(full[0]):
        for x in range(full[1]):
            row, column = y // factor, x // factor
            logits, values = [], []
            for place in range(window**2):
                r = min(max(row + place // window - reach, 0), grid[0] - 1)
                c = min(max(column + place % window - reach, 0), grid[1] - 1)
                rows = slice(r * factor, (r + 1) * factor)
                columns = slice(c * factor, (c + 1) * factor)
                mean = key[:, rows, columns].mean(dim=(1, 2))
                inside = (y % factor) * factor + x % factor
                bias = upsampler.place[place, inside]
                logits.append(query[:, y, x] @ mean / 8**0.5 + bias)
                values.append(maps[0, :, r, c])
            mixed = torch.stack(logits).softmax(dim=0) @ torch.stack(values)
            torch.testing.assert_close(found[0, :, y, x], mixed)


def test_weights_know_no_class() -> None:
    """A class's map is the same whatever other names there are."""
    torch.manual_seed(0)
    head, rows = GuidedHead(WIDTH, upsampler=dict(factor=4)).eval(), queries(5)
    inputs, token = [torch.randn(2, WIDTH, 3, 4)], torch.randn(2, WIDTH)
    given = dict(global_token=token, image=pictures(12, 16))
    every = head.query_logits(inputs, queries=rows, **given)
    fewer = ClassQueries(
        rows.embeddings[[3, 1]], torch.arange(2), rows.seen_mask[[3, 1]]
    )
    alone = head.query_logits(inputs, queries=fewer, **given)
    assert every.shape == (2, 5, 12, 16)
    torch.testing.assert_close(alone, every[:, [3, 1]], rtol=1e-4, atol=1e-5)


def test_it_is_zegclip_before_the_upsampler() -> None:
    """Training and testing enlarge the masks that ZegCLIPHead makes, all of them."""
    torch.manual_seed(0)
    options = dict(extra_query='trust', deep_supervision=True, num_heads=2)
    guided = GuidedHead(WIDTH, **options, upsampler=dict(factor=2, channels=4)).eval()
    plain = ZegCLIPHead(WIDTH, **options).eval()
    state = guided.state_dict()
    own = {k: state.pop(k) for k in list(state) if k.startswith('upsampler.')}
    assert own
    plain.load_state_dict(state)
    inputs, image = [torch.randn(2, WIDTH, 4, 4)], pictures(32, 32)
    given = dict(queries=queries(3), global_token=torch.randn(2, WIDTH))
    weights = guided.upsampler.weights(image.pixels, (4, 4))

    def enlarged(maps: Tensor) -> Tensor:
        return guided.upsampler(maps, weights)

    coarse = plain.query_logits(inputs, **given)
    fine = guided.query_logits(inputs, **given, image=image)
    torch.testing.assert_close(fine.logits, enlarged(coarse.logits))
    torch.testing.assert_close(fine.gate, enlarged(coarse.gate))
    coarse = plain.training_outputs(inputs, **given)
    fine = guided.training_outputs(inputs, **given, image=image)
    assert len(fine) == len(coarse) == 3
    for large, small in zip(fine, coarse, strict=True):
        torch.testing.assert_close(large, enlarged(small))
    torch.testing.assert_close(fine.trust, enlarged(coarse.trust))


def test_no_value_leaves_the_range_of_its_neighbours() -> None:
    upsampler = GuidedUpsampler(factor=4, window=3, channels=8)
    torch.nn.init.normal_(upsampler.query.weight, std=5.0)
    maps = torch.randn(2, 3, 6, 5)
    found = upsampler(maps, upsampler.weights(pictures(24, 20).pixels, (6, 5)))
    most = F.max_pool2d(F.pad(maps, [1] * 4, mode='replicate'), 3, 1)
    least = -F.max_pool2d(-F.pad(maps, [1] * 4, mode='replicate'), 3, 1)
    assert (found <= most.repeat_interleave(4, 2).repeat_interleave(4, 3) + 1e-5).all()
    assert (found >= least.repeat_interleave(4, 2).repeat_interleave(4, 3) - 1e-5).all()


def test_what_a_backbone_fills_up_is_filled_up_here() -> None:
    """Maps of a backbone that pads stand for more than the picture."""
    image = pictures(10, 13, covered=(12, 16))
    filled = image.covered
    assert filled.shape == (2, 3, 12, 16)
    torch.testing.assert_close(filled[..., :10, :13], image.pixels)
    torch.testing.assert_close(filled[:, :, 11, 15], image.pixels[:, :, 9, 12])


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        (dict(factor=1), 'factor=1'),
        (dict(window=4), 'window=4'),
        (dict(channels=6), 'channels=6'),
    ],
)
def test_values_that_cannot_be(options, named) -> None:
    with pytest.raises(ConfigError, match=named):
        GuidedHead(WIDTH, upsampler=options)


def test_a_segmentor_without_pictures_is_named() -> None:
    head = GuidedHead(WIDTH)
    with pytest.raises(ConfigError, match='reads the picture'):
        head.query_logits(
            [torch.randn(1, WIDTH, 2, 2)],
            queries=queries(2),
            global_token=torch.randn(1, WIDTH),
        )
