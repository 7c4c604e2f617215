"""A step of the optimiser is the same however it is cut into batches and processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from step_runs import (
    CONFIGS,
    build_runner,
    largest_differences,
    model_of,
    step_of,
    step_on,
)
from torch import Tensor

from mmengine.config import Config
from mmseg.registry import MODELS

from zs3_mmseg.models.decode_heads import TextPixelHead
from zs3_mmseg.models.losses.divisors import Divisor, above_zero, step_factors
from zs3_mmseg.utils.checkpoint import safe_load
from zs3_mmseg.utils.config_check import ConfigError

#: Shares of the largest value of each tensor.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def case(kind: str) -> dict[str, Any]:
    """Return what a run is built from."""
    if kind == 'ce':
        return dict(model=model_of('baselines/shapes_tiny_finetune_ce.py'))
    if kind == 'zegclip':
        return dict(model=model_of('zegclip/shapes_tiny.py', dropout=0.0))
    if kind == 'esda':
        changes = dict(void_pixels='ignore', dropout_ratio=0.0)
        return dict(model=model_of('esda/shapes_tiny.py', **changes), prompts=True)
    # Generator and classifier learn in the first iteration.
    hook = Config.fromfile(CONFIGS / 'zs3net/shapes_clip.py').custom_hooks[1]
    hook.update(segmentor_iters=0, generator_iters=None, split='shapes_a')
    return dict(model=model_of('zs3net/shapes_clip.py'), hooks=[hook])


def require_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for dtype, difference in largest_differences(found, wanted).items():
        assert difference <= TOLERANCE[dtype], (dtype, difference)


KINDS = pytest.mark.parametrize('kind', ['ce', 'zegclip', 'esda', 'zs3'])
DOUBLE = pytest.mark.parametrize('double', [True, False], ids=['fp64', 'fp32'])


@KINDS
@DOUBLE
def test_accumulated_step_is_that_of_one_batch(
    tmp_path: Path, kind: str, double: bool
) -> None:
    run = case(kind) | dict(folder=tmp_path, double=double)
    wanted = step_of(**run, batch_size=4)
    require_equal(step_of(**run, batch_size=2, accumulate=2), wanted)
    require_equal(step_of(**run, batch_size=1, accumulate=4), wanted)
    if double:
        # As mmengine has it, it is another step.
        plain = dict(type='StepTrainLoop', max_iters=1, normalise_by='batch')
        found = step_of(**run, batch_size=1, accumulate=4, train_cfg=plain)
        assert max(largest_differences(found, wanted).values()) > 0.2


@KINDS
@DOUBLE
@pytest.mark.slow
def test_step_of_processes_is_that_of_one(
    tmp_path: Path, kind: str, double: bool
) -> None:
    run = case(kind) | dict(double=double)
    wanted = step_of(**run, folder=tmp_path, batch_size=4)
    for ranks, batch_size, accumulate in ((2, 2, 1), (2, 1, 2), (4, 1, 1)):
        folder = tmp_path / f'{ranks}x{batch_size}x{accumulate}'
        folder.mkdir()
        cut = dict(batch_size=batch_size, accumulate=accumulate)
        for found in step_on(ranks, **run, folder=folder, **cut):
            require_equal(found, wanted)


def weights_of(folder: Path, name: str) -> dict[str, Tensor]:
    return safe_load(folder / f'{name}.pth')['state_dict']


SAVING = dict(
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1),
    random_state=dict(type='RandomStateHook'),
    logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
)


def training(folder: Path, steps: int, **changes: Any) -> dict[str, Any]:
    """Return a run of several steps with a schedule, dropout and momentum."""
    return (
        dict(
            folder=folder,
            model=model_of('zegclip/shapes_tiny.py'),
            batch_size=1,
            train_cfg=dict(type='StepTrainLoop', max_iters=steps),
            param_scheduler=[dict(type='PolyLR', begin=0, end=4, by_epoch=False)],
            default_hooks=SAVING,
        )
        | changes
    )


@pytest.fixture(scope='module')
def known_rows(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Put the rows of all names into the cache: making them draws numbers.

    A text tower is built for it, in the first step and before the first checkpoint.
    """
    build_runner(**training(tmp_path_factory.mktemp('rows'), 1)).train()


@pytest.mark.usefixtures('known_rows')
def test_one_batch_trains_as_in_the_loop_of_mmengine(tmp_path: Path) -> None:
    plain = dict(type='IterBasedTrainLoop', max_iters=2)
    folders = tmp_path / 'own', tmp_path / 'plain'
    build_runner(**training(folders[0], 2)).train()
    build_runner(**training(folders[1], 2, train_cfg=plain)).train()
    own, wanted = (weights_of(folder, 'iter_2') for folder in folders)
    assert all(torch.equal(own[name], value) for name, value in tensors(wanted))


def tensors(state: dict[str, Any]) -> list[tuple[str, Tensor]]:
    return [pair for pair in state.items() if isinstance(pair[1], Tensor)]


def test_iterations_are_steps(tmp_path: Path) -> None:
    model = model_of('zegclip/shapes_tiny.py', dropout=0.0)
    folders = tmp_path / 'one', tmp_path / 'two'
    rates = []
    for folder, cut in zip(folders, ((2, 1), (1, 2)), strict=True):
        sizes = dict(batch_size=cut[0], accumulate=cut[1])
        runner = build_runner(**training(folder, 4, model=model, **sizes), double=True)
        runner.train()
        history = runner.message_hub.log_scalars['train/lr'].data[0]
        rates.append(history.tolist())
        assert (folder / 'iter_4.pth').exists()
        assert not (folder / 'iter_5.pth').exists()
    # The schedule falls from step to step, to its end.
    assert rates[0] == rates[1] == pytest.approx([0.01, 2 / 300, 1 / 300, 0.0])
    one, two = (dict(tensors(weights_of(folder, 'iter_4'))) for folder in folders)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures('known_rows')
def test_resumed_between_steps(tmp_path: Path) -> None:
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    build_runner(**training(whole, 4, accumulate=2)).train()
    build_runner(**training(parts, 1, accumulate=2)).train()
    build_runner(**training(parts, 4, accumulate=2), resume=True).train()
    wanted, found = (weights_of(folder, 'iter_4') for folder in (whole, parts))
    assert all(torch.equal(found[name], value) for name, value in tensors(wanted))


class OtherLossHead(TextPixelHead):
    """A head whose loss is another than that of its parent."""

    def loss_by_feat(self, *args: Any) -> dict[str, Tensor]:
        return {'loss_other': super().loss_by_feat(*args)['loss_ce']}


MODELS.register_module(module=OtherLossHead)


@pytest.mark.parametrize(
    ('model', 'changes', 'message'),
    [
        (
            model_of('zegclip/shapes_tiny_transductive.py'),
            {},
            "model.setting='transductive': how many pixels",
        ),
        (
            model_of('baselines/shapes_tiny_linear.py', type='OtherLossHead'),
            {},
            'model.decode_head.type: OtherLossHead does not say',
        ),
        (
            model_of('zs3net/shapes_clip.py', loss_decode=dict(type='FocalLoss')),
            {},
            'model.decode_head.loss_decode: FocalLoss does not say',
        ),
        (
            model_of(
                'zs3net/shapes_clip.py',
                sampler=dict(type='OHEMPixelSampler', thresh=0.7),
            ),
            {},
            'model.decode_head.sampler: OHEMPixelSampler',
        ),
        (model_of('baselines/shapes_tiny_linear.py'), dict(compile=True), 'compile'),
    ],
    ids=['pseudo-labels', 'head', 'loss', 'sampler', 'compile'],
)
def test_what_cannot_be_counted_is_refused(
    tmp_path: Path, model: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    runner = build_runner(tmp_path, model, batch_size=1, accumulate=2, **changes)
    with pytest.raises(ConfigError, match=message):
        runner.train()


def test_a_term_without_divisor_is_named(tmp_path: Path) -> None:
    model = model_of('baselines/shapes_tiny_linear.py', type='OtherLossHead')
    runner = build_runner(tmp_path, model, batch_size=1, accumulate=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            OtherLossHead, 'loss_divisors', TextPixelHead.loss_divisors, raising=False
        )
        with pytest.raises(ConfigError, match=r'decode\.loss_other'):
            runner.train()


def test_what_is_outside_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_runner(**training(tmp_path, 1, accumulate=2)).train()
    lines = capsys.readouterr().out.splitlines()
    (named,) = [line for line in lines if 'normalise_by' in line]
    assert 'decode_head.decoder.layers.0.drop (Dropout)' in named


@given(
    counts=st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=2), min_size=1),
    over_ranks=st.booleans(),
)
def test_mean_over_pieces_is_the_loss_of_all(
    counts: list[list[int]], over_ranks: bool
) -> None:
    pieces = [
        {
            'loss': Divisor(torch.tensor(one), over_ranks=over_ranks),
            'loss_of_mmseg': Divisor(torch.tensor(other), above_zero),
        }
        for one, other in counts
    ]
    sums = torch.arange(1.0, len(counts) + 1).double()
    factors = step_factors(pieces)
    for place, (name, of) in enumerate(
        (('loss', lambda c: max(c, 1)), ('loss_of_mmseg', lambda c: c + 2**-23))
    ):
        losses = [s / of(c[place]) for s, c in zip(sums, counts, strict=True)]
        mean = sum(
            loss * factor[name] for loss, factor in zip(losses, factors, strict=True)
        ) / len(counts)
        wanted = sums.sum() / of(sum(c[place] for c in counts))
        torch.testing.assert_close(mean, wanted, rtol=1e-12, atol=0)
