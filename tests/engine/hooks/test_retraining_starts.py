"""What a retraining starts from: generators of other runs, and trained segmentors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from retraining_runs import Lost, build_runner, checkpoint_of, retraining
from safetensors.torch import save_file

from zs3_mmseg.models.generators import GMMNGenerator, GraphContextGenerator


def start(folder: Path, **changes: Any) -> dict[str, Any]:
    """Train the classifier only; return what became of the generators."""
    hook = retraining(folder, **dict(segmentor_iters=4, generator_iters=0) | changes)
    build_runner(folder, hook=hook).train()
    return checkpoint_of(folder)['generative_retraining']


@pytest.fixture(scope='module')
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of a run with trained generators."""
    folder = tmp_path_factory.mktemp('other')
    start(folder, generator_iters=4, graph=dict(generator=GRAPH))
    return folder / 'run/iter_12.pth'


GRAPH = dict(type='GraphContextGenerator', hidden_channels=12)


def test_generators_start_from_a_checkpoint_of_another_run(
    other: Path, tmp_path: Path
) -> None:
    graph = dict(generator=GRAPH, generator_from=str(other))
    state = start(tmp_path, generator_from=str(other), graph=graph)
    fresh = start(tmp_path, graph=dict(generator=GRAPH))
    expected = torch.load(other, weights_only=False)['generative_retraining']
    for entry in ('generator', 'graph'):
        for key, value in expected[entry]['weights'].items():
            assert torch.equal(state[entry]['weights'][key], value)
        weights = [s[entry]['weights'] for s in (state, fresh)]
        assert any(not torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
        assert not state[entry]['optimizer']['state']


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_generator_starts_from_a_file_of_its_own(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(8)
    # Six numbers of a class vector, eight channels before the classifier.
    weights = GMMNGenerator(6, 8, hidden_channels=12).state_dict()
    path = tmp_path / f'generator{suffix}'
    (torch.save if suffix == '.pth' else save_file)(weights, path)
    state = start(tmp_path, generator_from=str(path))
    for key, value in weights.items():
        assert torch.equal(state['generator']['weights'][key], value)


def test_a_resumed_run_goes_on_with_its_own_generator(
    other: Path, tmp_path: Path
) -> None:
    hook = retraining(tmp_path, generator_from=str(other))
    lost = dict(type='LoseMachine', iteration=6)
    with pytest.raises(Lost):
        build_runner(tmp_path, hook=hook, hooks=[lost]).train()
    other_name = retraining(tmp_path, generator_from='gone.pth')
    build_runner(tmp_path, hook=other_name, resume=True).train()
    whole = tmp_path / 'whole'
    build_runner(whole, hook=hook).train()
    resumed, expected = (
        checkpoint_of(folder)['generative_retraining']['generator']['weights']
        for folder in (tmp_path, whole)
    )
    for key, value in expected.items():
        assert torch.equal(resumed[key], value)


@pytest.mark.parametrize(
    ('weights', 'message'),
    [
        (
            GMMNGenerator(6, 8, hidden_channels=10),
            r'model\.0\.weight: \[10, 12\] in the file, \[12, 12\] in the model',
        ),
        (GraphContextGenerator(6, 8), '4 missing in the file: model.0.weight'),
        (
            GMMNGenerator(6, 8, hidden_channels=12, semantic_reconstruction=True),
            '2 unknown to the model: semantic_reconstruction_layer',
        ),
    ],
)
def test_other_generators_are_refused(
    tmp_path: Path, weights: torch.nn.Module, message: str
) -> None:
    path = tmp_path / 'generator.pth'
    torch.save(weights.state_dict(), path)
    with pytest.raises(ValueError, match=f'(?s)generator_from: .*{message}'):
        start(tmp_path, generator_from=str(path))


def test_a_run_without_graph_has_no_generator_for_one(tmp_path: Path) -> None:
    start(tmp_path)
    path = str(tmp_path / 'run/iter_12.pth')
    with pytest.raises(ValueError, match='is of a run without GraphSynthesis'):
        start(tmp_path, graph=dict(generator_from=path))


def test_a_generator_of_other_sizes_is_refused(tmp_path: Path) -> None:
    sizes = dict(type='GMMNGenerator', feature_dim=256)
    with pytest.raises(ValueError, match=r'feature_dim is 256, but .* 8 channels'):
        start(tmp_path, generator=sizes)


@pytest.mark.parametrize('change', ['gone', 'wider'])
def test_seen_rows_must_come_from_the_checkpoint(
    other: Path, tmp_path: Path, change: str
) -> None:
    saved = torch.load(other, weights_only=False)
    weight = saved['state_dict'].pop('decode_head.conv_seg.weight')
    if change == 'wider':
        wide = torch.cat([weight, weight], dim=1)
        saved['state_dict']['decode_head.conv_seg.weight'] = wide
    path = tmp_path / 'changed.pth'
    torch.save(saved, path)

    def train(folder: str, **changes: Any) -> None:
        hook = retraining(tmp_path, generator_iters=4, **changes)
        loading = dict(load_from=str(path), allow_missing=True)
        build_runner(tmp_path / folder, hook=hook, **loading).train()

    shape = 'not there' if change == 'gone' else r'of shape \(5, 16, 1, 1\)'
    with pytest.raises(ValueError, match=f'conv_seg.weight is {shape}'):
        train('kept', segmentor_iters=0)
    # Rows that are learned anew, or by the segmentor, need none.
    train('anew', segmentor_iters=0, reset_classifier='all')
    train('trained', segmentor_iters=4)
