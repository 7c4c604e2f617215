"""What the hook does to a run, read from its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from retraining_runs import (
    CLASSES,
    SEEN,
    StripesDataset,
    build_runner,
    checkpoint_of,
    head,
    retraining,
    write_vectors,
)
from torch import Tensor, nn

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import DATASETS, HOOKS

from zs3_mmseg.datasets.splits import make_split
from zs3_mmseg.engine.generative.classifier import reset_classifier

SPLIT = make_split('toy', CLASSES, [CLASSES[2], CLASSES[4]])
CONV = {'decode_head.conv_seg.weight', 'decode_head.conv_seg.bias'}


def train(folder: Path, hook: dict[str, Any] | None, **changes: Any) -> Runner:
    folder.mkdir(exist_ok=True)
    runner = build_runner(folder, hook=hook, **changes)
    runner.train()
    return runner


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {key for key in before if not torch.equal(before[key], after[key])}


def generator_of(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    return checkpoint['generative_retraining']['generator']['weights']


@HOOKS.register_module()
class LookAtPrediction(Hook):
    """Compares a head's scores in each phase with those without a tap."""

    def __init__(self) -> None:
        self.equal: list[bool] = []

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        decode_head = runner.model.decode_head.eval()
        features = torch.ones(2, 8, 4, 4)
        conv = decode_head.conv_seg
        expected = nn.functional.conv2d(
            decode_head.convs(features), conv.weight, conv.bias
        )
        scores = decode_head.predict(
            (features,), [dict(img_shape=(4, 4))], dict(mode='whole')
        )
        self.equal.append(torch.equal(scores, expected))


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Runner]:
    """Return a run whose phases begin at 0, 4 and 8."""
    folder = tmp_path_factory.mktemp('run')
    hook = retraining(folder)
    return folder, train(folder, hook, hooks=[dict(type='LookAtPrediction')])


def test_each_phase_trains_its_own_part(run: tuple[Path, Runner]) -> None:
    at = {number: checkpoint_of(run[0], number) for number in (2, 4, 8, 12)}
    weights = {number: saved['state_dict'] for number, saved in at.items()}
    assert len(changed(weights[2], weights[4])) == len(weights[2])
    assert not changed(weights[4], weights[8])
    assert changed(weights[8], weights[12]) == CONV
    before, middle, after = (generator_of(at[number]) for number in (4, 8, 12))
    assert len(changed(before, middle)) == len(before)
    assert not changed(middle, after)


def test_auxiliary_heads_are_left_alone(tmp_path: Path) -> None:
    train(tmp_path, retraining(tmp_path), auxiliary_head=head())
    before, after = (checkpoint_of(tmp_path, n)['state_dict'] for n in (4, 12))
    assert 'auxiliary_head.conv_seg.weight' in before
    assert changed(before, after) == CONV


def test_prediction_never_meets_the_tap(run: tuple[Path, Runner]) -> None:
    looking = next(hook for hook in run[1].hooks if isinstance(hook, LookAtPrediction))
    assert looking.equal == [True] * 12


def test_nothing_stays_behind(run: tuple[Path, Runner]) -> None:
    decode_head = run[1].model.decode_head
    assert decode_head.loss.__func__ is FCNHead.loss
    assert not decode_head.conv_seg._forward_pre_hooks
    assert decode_head.loss_decode.class_weight is None
    assert all(parameter.requires_grad for parameter in run[1].model.parameters())
    assert not run[1].optim_wrapper.optimizer._optimizer_step_pre_hooks


def test_strict_setting_reads_no_label_of_an_unseen_class(
    run: tuple[Path, Runner], tmp_path: Path
) -> None:
    @DATASETS.register_module(force=True)
    class HidingDataset(StripesDataset):
        def __getitem__(self, index: int) -> dict[str, Any]:
            item = super().__getitem__(index)
            labels = item['data_samples'].gt_sem_seg.data
            labels[(labels == 2) | (labels == 4)] = 255
            return item

    train(tmp_path, retraining(tmp_path), dataset=dict(type='HidingDataset'))
    one, other = (checkpoint_of(folder) for folder in (run[0], tmp_path))
    assert not changed(one['state_dict'], other['state_dict'])
    assert not changed(generator_of(one), generator_of(other))


def test_layout_oracle_reads_them_in_retraining_only(
    run: tuple[Path, Runner], tmp_path: Path
) -> None:
    train(tmp_path, retraining(tmp_path, setting='layout_oracle'))
    states = {
        number: [checkpoint_of(f, number)['state_dict'] for f in (run[0], tmp_path)]
        for number in (4, 12)
    }
    assert not changed(*states[4])
    assert changed(*states[12]) == CONV


@pytest.mark.parametrize(
    ('how', 'fresh'),
    [('keep', []), ('unseen', [2, 4]), ('all', [0, 1, 2, 3, 4])],
)
def test_reset_starts_the_named_rows_anew(how: str, fresh: list[int]) -> None:
    conv = nn.Conv2d(8, 5, 1)
    before = conv.weight.detach().clone()
    reset_classifier(conv, how, SPLIT, seed=3)
    rows = (conv.weight != before).flatten(1).any(dim=1)
    assert rows.nonzero().flatten().tolist() == fresh
    assert not conv.bias[fresh].any()


def test_official_reset_is_uniform_and_equal_for_one_seed() -> None:
    convs = [nn.Conv2d(300, 5, 1) for _ in range(3)]
    for conv, seed in zip(convs, (1, 1, 2), strict=True):
        reset_classifier(conv, 'official', SPLIT, seed=seed)
    weight = convs[0].weight
    assert 0 <= weight.min() < 0.01 < 0.99 < weight.max() < 1
    assert abs(weight.mean() - 0.5) < 0.03
    assert torch.equal(weight, convs[1].weight)
    assert not torch.equal(weight, convs[2].weight)


def test_averaged_weights_start_anew_with_a_phase_and_follow(tmp_path: Path) -> None:
    hook = retraining(tmp_path, reset_classifier='official')
    for momentum, distance in ((1e-6, 0.0), (0.9, 1.0)):
        folder = tmp_path / str(momentum)
        ema = dict(type='EMAHook', momentum=momentum)
        train(folder, hook, hooks=[ema])
        # In a checkpoint, state_dict has the averages and ema_state_dict the weights.
        saved = checkpoint_of(folder)
        average = saved['state_dict']['decode_head.conv_seg.weight']
        current = saved['ema_state_dict']['module.decode_head.conv_seg.weight']
        start = nn.Conv2d(8, 5, 1)
        reset_classifier(start, 'official', SPLIT, seed=3)
        walked = (current - start.weight).norm()
        assert walked > 0.01
        followed = ((average - start.weight).norm() / walked).item()
        assert followed == pytest.approx(distance, abs=0.2)


def test_generator_steps_in_each_iteration_of_an_accumulated_step(
    tmp_path: Path,
) -> None:
    optim_wrapper = dict(
        type='OptimWrapper',
        accumulative_counts=2,
        optimizer=dict(type='Adam', lr=0.1),
    )
    train(tmp_path, retraining(tmp_path), optim_wrapper=optim_wrapper)
    saved = checkpoint_of(tmp_path)
    generator = saved['generative_retraining']['generator']['optimizer']
    assert [int(state['step']) for state in generator['state'].values()] == [4] * 4
    # Steps of the classifier begin to count when it starts anew.
    steps = sorted(int(s['step']) for s in saved['optimizer']['state'].values())
    assert steps == [2] * len(steps)


def seen_checkpoint(folder: Path, classes: tuple[str, ...]) -> Path:
    """Train a segmentor of some classes only; return its checkpoint."""
    decode_head = head(num_classes=len(classes))
    dataset = dict(type='StripesDataset', classes=classes)
    train(folder, None, decode_head=decode_head, dataset=dataset)
    return folder / 'run' / 'iter_12.pth'


def test_a_checkpoint_of_seen_classes_is_expanded_by_name(tmp_path: Path) -> None:
    classes = SEEN[::-1]
    file = seen_checkpoint(tmp_path / 'seen', classes)
    states = []
    for name, load_from in (('loaded', str(file)), ('fresh', None)):
        # The first iterations train the generator alone.
        hook = retraining(tmp_path, segmentor_iters=0, generator_iters=6)
        ema = dict(type='EMAHook', momentum=0.5)
        train(tmp_path / name, hook, hooks=[ema], load_from=load_from)
        states.append(checkpoint_of(tmp_path / name, 2)['state_dict'])
    loaded, fresh = states
    old = checkpoint_of(tmp_path / 'seen')['state_dict']
    for key in CONV:
        for row, name in enumerate(CLASSES):
            known = name in classes
            expected = old[key][classes.index(name)] if known else fresh[key][row]
            assert torch.equal(loaded[key][row], expected), (key, name)


@pytest.mark.parametrize(
    ('classes', 'changes', 'message'),
    [
        (('sky', 'tree'), dict(), 'no classifier rows for the seen classes road'),
        (('sky', 'tree', 'road', 'boat'), dict(), 'lacks: boat'),
        (SEEN, dict(checkpoint_classes=[*SEEN, 'cow']), '4 names for them'),
    ],
)
def test_a_checkpoint_of_other_classes_is_refused(
    tmp_path: Path, classes: tuple[str, ...], changes: dict, message: str
) -> None:
    file = seen_checkpoint(tmp_path / 'seen', classes)
    hook = retraining(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        train(tmp_path, hook, load_from=str(file))


def test_a_checkpoint_without_names_needs_them(tmp_path: Path) -> None:
    file = seen_checkpoint(tmp_path / 'seen', SEEN)
    bare = tmp_path / 'bare.pth'
    weights = checkpoint_of(tmp_path / 'seen')['state_dict']
    torch.save({'state_dict': weights}, bare)
    assert file.is_file()
    with pytest.raises(ValueError, match='checkpoint_classes'):
        train(tmp_path, retraining(tmp_path), load_from=str(bare))
    named = retraining(tmp_path, checkpoint_classes=list(SEEN))
    train(tmp_path, named, load_from=str(bare))


def test_classes_are_found_by_name_in_the_order_of_the_data(tmp_path: Path) -> None:
    order = tuple(reversed(CLASSES))
    hook = retraining(tmp_path, class_embeddings=write_vectors(tmp_path, order))
    train(tmp_path, hook, dataset=dict(type='StripesDataset', classes=order))
    state = checkpoint_of(tmp_path)['generative_retraining']
    assert state['unseen'] == [order.index(name) for name in ('cat', 'cow')]


def test_classes_without_pixels_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    @DATASETS.register_module(force=True)
    class RoadlessDataset(StripesDataset):
        def __getitem__(self, index: int) -> dict[str, Any]:
            item = super().__getitem__(index)
            labels = item['data_samples'].gt_sem_seg.data
            labels[labels == 3] = 255
            return item

    train(tmp_path, retraining(tmp_path), dataset=dict(type='RoadlessDataset'))
    assert 'no pixel of the seen classes road.' in capsys.readouterr().out


def test_batches_without_any_label_are_survived(tmp_path: Path) -> None:
    @DATASETS.register_module(force=True)
    class VoidDataset(StripesDataset):
        def __getitem__(self, index: int) -> dict[str, Any]:
            item = super().__getitem__(index)
            item['data_samples'].gt_sem_seg.data.fill_(255)
            return item

    hook = retraining(tmp_path, segmentor_iters=0, generator_iters=None, graph=dict())
    train(tmp_path, hook, dataset=dict(type='VoidDataset'))
    saved = checkpoint_of(tmp_path)
    assert all(value.isfinite().all() for value in saved['state_dict'].values())


def test_features_that_are_nan_end_the_run(tmp_path: Path) -> None:
    runner = build_runner(tmp_path, hook=retraining(tmp_path, segmentor_iters=0))

    @HOOKS.register_module(force=True)
    class Diverge(Hook):
        def before_train_iter(self, runner: Runner, *args: Any, **kw: Any) -> None:
            runner.model.backbone.layers[0].weight.data[0] = float('nan')

    runner.register_hook(Diverge())
    with pytest.raises(FloatingPointError, match='input of conv_seg are NaN'):
        runner.train()
