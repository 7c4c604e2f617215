from __future__ import annotations

import pytest
import torch

from zs3_mmseg.models.towers import resize_positions


@pytest.mark.parametrize('mode', ['bicubic', 'bilinear'])
def test_rows_of_patches_stay_row_major(mode: str) -> None:
    """A ramp along one axis stays a ramp along it, also when the grid is no square."""
    rows = torch.arange(6.0)[:, None].expand(6, 5).reshape(-1, 1)
    columns = torch.arange(5.0)[None, :].expand(6, 5).reshape(-1, 1)
    positions = torch.cat([torch.full((1, 2), 7.0), torch.cat([rows, columns], dim=1)])
    resized = resize_positions(positions, (12, 20), (6, 5), mode)
    assert torch.equal(resized[0], positions[0])
    maps = resized[1:].reshape(12, 20, 2)
    # Away from the borders the ramps are kept; torch's cubic waves a little.
    expected = torch.tensor([6.5 / 2 - 0.5, 9.5 / 4 - 0.5])
    tolerance = 0.1 if mode == 'bicubic' else 1e-6
    torch.testing.assert_close(maps[6, 9], expected, rtol=0, atol=tolerance)
    assert maps[..., 0].std(dim=1).max() < 1e-5
    assert maps[..., 1].std(dim=0).max() < 1e-5


def test_half_precision_is_resized_in_float32() -> None:
    positions = torch.randn(17, 8)
    half = resize_positions(positions.half(), (6, 6))
    assert half.dtype == torch.float16
    exact = resize_positions(positions.half().float(), (6, 6))
    assert torch.equal(half, exact.half())
