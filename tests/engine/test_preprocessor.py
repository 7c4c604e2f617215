"""A segmentor needs something that makes a batch of pictures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mmengine.model import BaseDataPreprocessor
from mmseg.models import SegDataPreProcessor

from zs3_mmseg.engine.protocol import ProtocolError, require_preprocessor


@pytest.mark.parametrize(
    ('preprocessor', 'training', 'message'),
    [
        (BaseDataPreprocessor(), True, 'data_preprocessor is missing'),
        (BaseDataPreprocessor(), False, 'data_preprocessor is missing'),
        (SegDataPreProcessor(), True, 'needs size or size_divisor'),
        (SegDataPreProcessor(size=(8, 8), size_divisor=4), True, 'and not both'),
        (SegDataPreProcessor(), False, None),
        (SegDataPreProcessor(size=(8, 8)), True, None),
        (SegDataPreProcessor(size_divisor=8), True, None),
        (object(), True, None),
    ],
)
def test_pictures_become_a_batch(
    preprocessor: Any, training: bool, message: str | None
) -> None:
    segmentor = SimpleNamespace(data_preprocessor=preprocessor)
    if message is None:
        require_preprocessor(segmentor, training=training)
        return
    with pytest.raises(ProtocolError, match=message):
        require_preprocessor(segmentor, training=training)
