import pytest
import torch
from torch import nn

from zs3_mmseg.utils.checkpoint import CheckpointError, load_into, state_dict_of


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.norm = nn.BatchNorm2d(2)


def ones() -> dict:
    return {key: torch.ones_like(value) for key, value in Model().state_dict().items()}


def test_complete_state_is_loaded() -> None:
    model = Model()
    report = load_into(model, {'meta': {}, 'state_dict': ones()})
    assert report.clean
    assert len(report.loaded) == 7
    assert model.conv.weight.eq(1).all()


def test_prefix_of_parallel_training_is_removed() -> None:
    state = {f'module.{key}': value for key, value in ones().items()}
    assert load_into(Model(), state).clean


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: s.pop('conv.bias'), r'1 missing in the file: conv\.bias'),
        (
            lambda s: s.update(extra=torch.ones(1)),
            r'1 unknown to the model: extra',
        ),
        (
            lambda s: s.update({'conv.bias': torch.ones(3)}),
            r'1 of another shape: conv\.bias: \[3\] in the file, \[2\] in the model',
        ),
    ],
    ids=['missing', 'unexpected', 'mismatched'],
)
def test_what_does_not_fit_is_an_error_unless_allowed(change, message) -> None:
    state = ones()
    change(state)
    with pytest.raises(CheckpointError, match=rf'(?s)model\.pth.*{message}.*--allow'):
        load_into(Model(), state, what='model.pth')
    model = Model()
    assert not load_into(model, state, allow_missing=True).clean
    assert model.conv.weight.eq(1).all()


def test_all_problems_are_reported_together() -> None:
    state = ones() | {'conv.bias': torch.ones(3), 'extra': torch.ones(1)}
    del state['norm.bias']
    report = load_into(Model(), state, allow_missing=True)
    assert report.missing == ('norm.bias',)
    assert report.unexpected == ('extra',)
    assert [entry.split(':')[0] for entry in report.mismatched] == ['conv.bias']
    assert len(report.loaded) == 5


def test_the_batch_counter_may_be_missing() -> None:
    state = ones()
    del state['norm.num_batches_tracked']
    assert load_into(Model(), state).clean


def test_extra_state_is_handed_over() -> None:
    class Rows(nn.Module):
        rows = None

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def get_extra_state(self) -> dict:
            return {'names': ['a', 'b']}

        def set_extra_state(self, state: dict) -> None:
            self.rows = state['names']

    model = Rows()
    load_into(model, Rows().state_dict())
    assert model.rows == ['a', 'b']


def test_errors_of_a_module_itself_are_not_hidden() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def _load_from_state_dict(
            self, state, prefix, meta, strict, missing, un, errors
        ):
            errors.append('needs another format')

    with pytest.raises(CheckpointError, match='needs another format'):
        load_into(Picky(), {'weight': torch.ones(1)}, allow_missing=True)


@pytest.mark.parametrize('content', [{}, {'epoch': 3}, {'state_dict': {'a': 1}}])
def test_file_without_weights_is_refused(content: dict) -> None:
    with pytest.raises(CheckpointError, match=r'x\.pth holds no weights'):
        state_dict_of(content, 'x.pth')
