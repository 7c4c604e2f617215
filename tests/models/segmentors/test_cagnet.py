"""CaGNet: its losses against brute force, its steps, and several processes."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapperDict
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from zs3_mmseg.engine.part_optimizers import PartsOptimWrapperConstructor
from zs3_mmseg.models.backbones import DeepLabV2ResNet
from zs3_mmseg.models.decode_heads.cagnet_head import ContextualModule
from zs3_mmseg.models.losses.features import CAGNET_BANDWIDTHS, ContentLoss
from zs3_mmseg.models.segmentors import CaGNet
from zs3_mmseg.models.segmentors.cagnet import Cycle, Step

CLASSES = ['ground', 'square', 'stripe', 'dot']
#: One step of each kind.
ROUND = dict(joint_iters=1, real_iters=1, generated_iters=1)


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope('mmseg')


def build(folder: Path, **changes: Any) -> CaGNet:
    """A small CaGNet on a small convolutional trunk."""
    rows = folder / 'rows.npy'
    if not rows.exists():
        np.save(rows, np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32))
    config: dict[str, Any] = dict(
        backbone=dict(
            type='UNet',
            base_channels=4,
            num_stages=2,
            strides=(1, 1),
            enc_num_convs=(1, 1),
            dec_num_convs=(1,),
            downsamples=(True,),
            enc_dilations=(1, 1),
            dec_dilations=(1,),
            norm_cfg=None,
        ),
        decode_head=dict(
            type='CaGNetHead',
            in_index=1,
            in_channels=4,
            channels=6,
            num_classes=4,
            dilations=(1, 2),
            context=dict(mid_channels=5),
            hidden_channels=7,
            dropout_ratio=0.3,
        ),
        generator=dict(hidden_channels=(8, 8), dropout=(0.2, 0.2)),
        cycle=ROUND,
        class_embeddings=dict(
            type='ClassEmbeddingBank',
            source=dict(type='tensor', path=str(rows), names=CLASSES),
        ),
        split=dict(name='toy', classes=CLASSES, unseen=['dot']),
        setting='inductive',
        data_preprocessor=dict(
            type='SegDataPreProcessor', mean=[127.5] * 3, std=[64.0] * 3, size=(16, 16)
        ),
    )
    torch.manual_seed(0)
    return CaGNet(**{**config, **changes})


def optimisers(model: CaGNet, **optimizer: Any) -> OptimWrapperDict:
    wrapper = dict(
        type='OptimWrapper', optimizer=optimizer or dict(type='SGD', lr=0.01)
    )
    parts = dict.fromkeys(('segmentor', 'classifier', 'generator'), wrapper)
    return PartsOptimWrapperConstructor(ConfigDict(parts))(model)


def batch(size: int = 4, *, ignored: bool = False) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(1)
    samples = []
    for _ in range(size):
        labels = torch.randint(0, 3, (1, 4, 4), generator=draw)
        labels = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
        sample = SegDataSample(metainfo=dict(img_shape=(16, 16), ori_shape=(8, 8)))
        labels[:, :3] = 255
        sample.gt_sem_seg = PixelData(data=labels.fill_(255) if ignored else labels)
        samples.append(sample)
    images = torch.randint(0, 255, (size, 3, 16, 16), generator=draw)
    return dict(inputs=list(images), data_samples=samples)


def take_steps(
    model: CaGNet, wrappers: OptimWrapperDict, data: dict, steps: range = range(3)
) -> list[dict[str, Tensor]]:
    model.train()
    hub = MessageHub.get_current_instance()
    logs = []
    for iteration in steps:
        hub.update_info('iter', iteration)
        logs.append(model.train_step(data, wrappers))
    hub.update_info('iter', 0)
    return logs


def copied(model: CaGNet) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def moved(before: dict[str, Tensor], model: CaGNet) -> set[str]:
    after = dict(model.named_parameters())
    return {name for name in before if not torch.equal(before[name], after[name])}


# ------------------------------------------------------------------------------ losses


def mmd(made: Tensor, real: Tensor) -> float:
    """Half of the biased squared discrepancy, and its root, from the definition."""
    total = 0.0
    for one, other, sign in ((made, made, 1), (real, real, 1), (made, real, -2)):
        for x in one.tolist():
            for y in other.tolist():
                distance = sum((a - b) ** 2 for a, b in zip(x, y, strict=True))
                kernel = sum(np.exp(-distance / 2 / v) for v in CAGNET_BANDWIDTHS)
                total += sign * kernel / len(one) ** 2
    return max(total / 2, 0) ** 0.5


@pytest.mark.parametrize('grouping', ['class', 'run'])
def test_content_loss_is_the_mean_over_groups(grouping: str) -> None:
    torch.manual_seed(3)
    labels = torch.randint(0, 3, (2, 4, 5))
    labels[0, 1] = 255
    made, real = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    places = [
        (image, int(labels[image, y, x]), y, x)
        for image in range(2)
        for y in range(4)
        for x in range(5)
        if labels[image, y, x] != 255
    ]
    if grouping == 'class':
        groups = [list(g) for _, g in groupby(sorted(places), key=lambda p: p[:2])]
    else:
        groups = [list(g) for _, g in groupby(places, key=lambda p: p[1])]
    expected = [
        mmd(*(torch.stack([m[i, :, y, x] for i, _, y, x in g]) for m in (made, real)))
        for g in groups
    ]
    total, count = ContentLoss(grouping=grouping)(made, real, labels)
    assert count == len(groups)
    assert total / count == pytest.approx(np.mean(expected), rel=1e-4)


def test_samples_of_a_group_are_no_more_than_asked_for() -> None:
    labels = torch.zeros(1, 6, 6, dtype=torch.long)
    made = torch.rand(1, 2, 6, 6)
    found = {
        float(ContentLoss(samples_per_group=5)(made, torch.rand(1, 2, 6, 6), labels)[0])
        for _ in range(4)
    }
    assert len(found) == 4
    real = made.square()
    whole = ContentLoss(samples_per_group=36)(made, real, labels)[0]
    plain = ContentLoss()(made, real, labels)[0]
    assert whole == pytest.approx(float(plain), rel=1e-4)


# ------------------------------------------------------------------------------- steps


def test_steps_alternate_after_joint_training() -> None:
    cycle = Cycle(joint_iters=3, real_iters=2, generated_iters=1)
    names = ''.join(cycle.step_at(iteration)[0] for iteration in range(10))
    assert names == 'jjj' + 'rrg' * 2 + 'r'
    assert Cycle().step_at(10**6) is Step.JOINT


def test_each_step_moves_its_parts(tmp_path: Path) -> None:
    model = build(tmp_path)
    wrappers = optimisers(model)
    segmentor = ('backbone', 'decode_head.pyramid', 'decode_head.context')
    for iteration in range(3):
        before = copied(model)
        take_steps(model, wrappers, batch(), range(iteration, iteration + 1))
        found = moved(before, model)
        assert any(n.startswith(segmentor) for n in found) == (iteration == 0)
        assert ('decode_head.discriminator.real_fake.weight' in found) == (
            iteration < 2
        )
        assert 'decode_head.discriminator.classes.weight' in found
        assert any(n.startswith('generator') for n in found) == (iteration < 2)
    assert not any(p.grad is not None for p in model.parameters())


def test_released_optimisers_move_what_no_loss_reaches(tmp_path: Path) -> None:
    drifted = {}
    for idle in (False, True):
        model = build(tmp_path, idle_steps=idle)
        wrappers = optimisers(model, type='Adam', lr=1e-3)
        take_steps(model, wrappers, batch(), range(2))
        before = copied(model)
        take_steps(model, wrappers, batch(), range(2, 3))
        drifted[idle] = moved(before, model)
    assert not any(name.startswith('generator') for name in drifted[False])
    assert {n for n in before if n.startswith('generator')} <= drifted[True]
    assert 'decode_head.discriminator.real_fake.weight' in drifted[True]


def test_a_batch_without_labels_changes_nothing(tmp_path: Path) -> None:
    model = build(tmp_path)
    wrappers = optimisers(model, type='Adam', lr=1e-3)
    take_steps(model, wrappers, batch())
    before = copied(model)
    take_steps(model, wrappers, batch(ignored=True), range(2))
    assert not moved(before, model)


def test_the_released_selector_never_learns(tmp_path: Path) -> None:
    model = build(tmp_path)
    options = dict(mid_channels=5, train_selector=False)
    model.decode_head.context = ContextualModule(6, **options)
    before = copied(model)
    take_steps(model, optimisers(model), batch(), range(1))
    still = {n for n in before if 'context' in n} - moved(before, model)
    assert still == {'decode_head.context.selector.weight'}


def test_unseen_classes_are_drawn_as_often_as_they_weigh(tmp_path: Path) -> None:
    model = build(tmp_path, unseen_weight=3.0)
    drawn = model.draws.labels(model._shares, (4, 50, 50))
    shares = torch.bincount(drawn.flatten(), minlength=4) / drawn.numel()
    torch.testing.assert_close(
        shares, torch.tensor([1 / 6, 1 / 6, 1 / 6, 1 / 2]), atol=0.02, rtol=0
    )


def test_self_training_labels_ignored_pixels_before_a_step(tmp_path: Path) -> None:
    split = dict(name='toy', classes=CLASSES, unseen=['dot'])
    model = build(
        tmp_path, split=split, setting='transductive', self_training_top=4
    ).train()
    data = model.data_preprocessor(batch(), True)
    labels = model._training_labels(**data)
    known = torch.cat([sample.gt_sem_seg.data for sample in data['data_samples']])
    # All of four outputs are looked at, so each ignored pixel becomes the unseen class.
    assert torch.equal(labels, known.masked_fill(known == 255, CLASSES.index('dot')))


def test_evaluation_at_the_size_of_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(
        tmp_path, evaluate_at='features', test_cfg=dict(mode='whole', mask_size=(8, 8))
    ).eval()
    data = model.data_preprocessor(batch(2), False)
    with torch.no_grad():
        logits = model.decode_head.predict(model.extract_feat(data['inputs']), [], {})
        expected = torch.nn.functional.interpolate(logits, (8, 8), mode='bilinear')
        found = model.predict(**data)
    for sample, scores, truth in zip(
        found, expected, batch(2)['data_samples'], strict=True
    ):
        assert torch.equal(sample.pred_sem_seg.data[0], scores.argmax(dim=0))
        assert torch.equal(sample.gt_sem_seg.data, truth.gt_sem_seg.data[:, ::2, ::2])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(evaluate_at='features'), r'needs model\.test_cfg\.mask_size'),
        (dict(evaluate_at='feature'), "Did you mean 'features'"),
        (dict(self_training_top=3), 'transductive setting go together'),
        (dict(setting='transductive'), 'transductive setting go together'),
        (dict(unseen_weight=0), r'model\.unseen_weight must be > 0'),
        (dict(loss_weights=dict(joint=dict(kld=1))), "'kl'"),
        (dict(loss_weights=dict(step1=dict())), r'model\.loss_weights: a step'),
        (dict(cycle=dict(real_iters=0, generated_iters=0)), 'cannot be empty'),
        (dict(class_embeddings=None), r'set model\.class_embeddings'),
        (dict(content=dict(kind='l1', grouping='run')), 'compares pixel by pixel'),
    ],
)
def test_impossible_options_are_named(
    changes: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        build(tmp_path, **changes)


def test_every_part_needs_an_optimiser(tmp_path: Path) -> None:
    model = build(tmp_path)
    wrappers = optimisers(model)
    with pytest.raises(ValueError, match='PartsOptimWrapperConstructor'):
        model.train_step(batch(), wrappers['segmentor'])
    only = ConfigDict(segmentor=dict(type='OptimWrapper', optimizer=dict(type='SGD')))
    with pytest.raises(ValueError, match=r'optim_wrapper\.classifier is missing'):
        PartsOptimWrapperConstructor(only)(model)


@pytest.mark.parametrize(('side', 'expected'), [(368, 47), (513, 65), (184, 24)])
def test_sizes_of_the_trunk_are_those_of_caffe(side: int, expected: int) -> None:
    trunk = DeepLabV2ResNet(50, base_channels=4, stem_channels=4)
    with torch.no_grad():
        maps = trunk(torch.rand(1, 3, side, side))
    assert maps[3].shape[2:] == (expected, expected)


# ------------------------------------------------------------------- several processes


def all_steps(folder: Path, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
    model = build(
        folder,
        adversarial=dict(kind='wgan_gp'),
        content=dict(samples_per_group=6),
        loss_weights=dict(generated=dict(generator_fake=1.0)),
    )
    whole = batch()
    part = {name: values[rank::world] for name, values in whole.items()}
    torch.manual_seed(7)
    take_steps(model, optimisers(model), part, range(4))
    return copied(model)


def on_rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    init_default_scope('mmseg')
    torch.save(all_steps(folder, rank, 2), folder / f'{rank}.pt')
    dist.destroy_process_group()


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    alone = all_steps(tmp_path)
    mp.start_processes(on_rank, (tmp_path,), nprocs=2, start_method='fork')
    ranks = [torch.load(tmp_path / f'{r}.pt', weights_only=True) for r in range(2)]
    start = copied(build(tmp_path))
    for name, value in alone.items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        torch.testing.assert_close(ranks[0][name], value, rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(start[name], alone[name]) for name in alone)
