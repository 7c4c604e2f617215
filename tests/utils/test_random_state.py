import io
import random

import numpy as np
import torch

from zs3_mmseg.utils.random_state import get_random_state, set_random_state


def test_states_survive_a_file_read_with_weights_only() -> None:
    random.gauss(0, 1)  # leaves a second value waiting, part of the state
    np.random.randn()  # noqa: NPY002
    stream = io.BytesIO()
    torch.save(get_random_state(), stream)
    expected = (random.gauss(0, 1), np.random.randn(), torch.rand(1).item())  # noqa: NPY002
    stream.seek(0)
    assert set_random_state(torch.load(stream, weights_only=True))
    again = (random.gauss(0, 1), np.random.randn(), torch.rand(1).item())  # noqa: NPY002
    assert again == expected


def test_says_so_when_a_cuda_state_cannot_be_restored() -> None:
    state = get_random_state()
    state['cuda'] = (
        None if torch.cuda.is_available() else torch.zeros(16, dtype=torch.uint8)
    )
    assert not set_random_state(state)
