"""What becomes of the features of one batch between a head and its classifier."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.structures import SegDataSample

from zs3_mmseg.datasets.splits import make_split
from zs3_mmseg.engine.generative.classifier import ClassifierTap, ClassWeights
from zs3_mmseg.engine.generative.plan import Phase
from zs3_mmseg.engine.generative.retraining import Retraining
from zs3_mmseg.engine.generative.synthesis import PixelSynthesis, SynthesisFacts

SPLIT = make_split('toy', ['a', 'b', 'c'], ['c'])


class Bench:
    """A head without convolutions, with the tap in, and what its classifier gets."""

    def __init__(
        self,
        phase: Phase = Phase.INTERLEAVED,
        head: type[FCNHead] = FCNHead,
        decide_on: str = 'labels',
        **pixels: Any,
    ) -> None:
        self.head = head(
            in_channels=4,
            channels=4,
            num_convs=0,
            concat_input=False,
            num_classes=3,
            dropout_ratio=0,
            loss_decode=dict(type='CrossEntropyLoss'),
        )
        synthesis = PixelSynthesis(
            dict(type='GMMNGenerator', hidden_channels=6),
            generator_optimizer=dict(type='Adam', lr=0.1),
            **pixels,
        )
        weights = ClassWeights(self.head.loss_decode, SPLIT, 100.0, 255)
        weights.apply()
        facts = SynthesisFacts(SPLIT, torch.randn(3, 5), feature_dim=4, seed=0)
        self.retraining = Retraining(
            self.head, facts, [synthesis], weights, decide_on=decide_on
        )
        self.generator = synthesis.trainer.generator
        self.retraining.phase = phase
        self.retraining.training = True
        ClassifierTap(self.head, self.retraining).install()
        self.head.conv_seg.register_forward_pre_hook(self.keep)

    def keep(self, module: torch.nn.Module, inputs: tuple[Tensor]) -> None:
        self.got = inputs[0].detach()

    def loss(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        samples = []
        for label_map in labels:
            sample = SegDataSample()
            sample.gt_sem_seg = PixelData(data=label_map[None])
            samples.append(sample)
        return self.head.loss((features,), samples, {})


def batch() -> tuple[Tensor, Tensor]:
    """Return features, and labels of which the second image's hold class 2."""
    labels = torch.zeros(2, 8, 8, dtype=torch.long)
    labels[:, :, 4:] = 1
    labels[:, :2] = 255
    labels[1, 6:, 6:] = 2
    return torch.randn(2, 4, 4, 4), labels


@pytest.mark.parametrize('merge', ['image', 'pixel'])
def test_generated_features_stand_where_they_should(merge: str) -> None:
    bench = Bench(merge=merge)
    features, labels = batch()
    bench.loss(features, labels)
    assert torch.equal(bench.got[0], features[0])
    kept = (bench.got[1] == features[1]).all(dim=0)
    small = labels[1, ::2, ::2]
    if merge == 'image':
        assert not kept.any()
        assert not bench.got[1][:, small == 255].any()
    else:
        assert torch.equal(kept, small != 2)


@pytest.mark.parametrize(
    ('phase', 'learns', 'generates'),
    [
        (Phase.GENERATOR, True, False),
        (Phase.INTERLEAVED, True, True),
        (Phase.CLASSIFIER, False, True),
    ],
)
def test_phases(phase: Phase, learns: bool, generates: bool) -> None:
    bench = Bench(phase)
    before = bench.generator.model[0].weight.detach().clone()
    features, labels = batch()
    losses = bench.loss(features, labels)
    assert torch.equal(bench.generator.model[0].weight, before) is not learns
    assert ('mmd' in losses) is learns
    assert torch.equal(bench.got, features) is not generates
    assert (losses['loss_ce'].item() > 0) is generates


# Class 2 covers one pixel, which downsampling to half the size leaves out.
@pytest.mark.parametrize(
    ('decide_on', 'real'), [('labels', False), ('downsampled', True)]
)
def test_where_unseen_classes_are_looked_for(decide_on: str, real: bool) -> None:
    bench = Bench(decide_on=decide_on)
    features, labels = batch()
    labels[1, 6:, 6:] = 1
    labels[1, 7, 7] = 2
    bench.loss(features, labels)
    assert torch.equal(bench.got, features) is real


def test_generators_stay_in_float32_under_autocast() -> None:
    features, labels = batch()
    weights = []
    for enabled in (False, True):
        torch.manual_seed(0)
        bench = Bench()
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            # Numbers that bfloat16 holds exactly.
            losses = bench.loss(features.bfloat16().float(), labels)
        losses['loss_ce'].backward()
        weights.append(bench.generator.model[0].weight)
    assert torch.equal(*weights)
    bench = Bench()
    with torch.autocast('cpu', torch.bfloat16):
        bench.loss(features.bfloat16(), labels)
    assert bench.got.dtype == torch.bfloat16


def test_only_the_classifier_gets_gradients() -> None:
    bench = Bench()
    features, labels = batch()
    features.requires_grad_()
    bench.loss(features, labels)['loss_ce'].backward()
    assert features.grad is None
    assert bench.head.conv_seg.weight.grad.any()


def test_a_head_that_classifies_twice_is_refused() -> None:
    class TwiceHead(FCNHead):
        def forward(self, inputs: tuple[Tensor]) -> Tensor:
            return self.cls_seg(inputs[0]) + self.cls_seg(inputs[0])

    with pytest.raises(RuntimeError, match='TwiceHead used conv_seg 2 times'):
        Bench(head=TwiceHead).loss(*batch())
