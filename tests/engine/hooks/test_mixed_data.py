"""Data sets, metrics and models of ours among mmseg's, and tiny vocabularies."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample

from zs3_mmseg.datasets.splits import resolve_split
from zs3_mmseg.datasets.zero_shot_dataset import split_metainfo
from zs3_mmseg.engine.hooks import ProtocolCheckHook
from zs3_mmseg.engine.protocol import ProtocolError
from zs3_mmseg.evaluation import FoldIoUMetric, ZeroShotIoUMetric

CLASSES = ('dog', 'cat', 'cow')


class Labels:
    """A data set of two samples that hold each of some labels."""

    def __init__(self, labels: list[int], **metainfo: Any) -> None:
        self.labels, self.metainfo = labels, metainfo

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = SegDataSample()
        sample.gt_sem_seg = PixelData(data=torch.tensor([[self.labels]]))
        return dict(inputs=torch.zeros(3, 1, len(self.labels)), data_samples=sample)


def ours(
    phase: str,
    classes: tuple[str, ...] = CLASSES,
    unseen: tuple[str, ...] = ('cow',),
    setting: str = 'inductive',
    **metainfo: Any,
) -> Labels:
    split = resolve_split(dict(classes=classes, unseen=unseen))
    hidden = phase == 'train' and setting != 'supervised'
    shown = split.seen_indices if hidden else range(len(classes))
    found = split_metainfo(split, []) | dict(phase=phase, setting=setting)
    found.pop('palette')
    return Labels([*shown, found['ignore_index']], **found, **metainfo)


class Segmentor(nn.Module):
    """What the hook may know of a segmentor of ours."""

    def __init__(
        self,
        classes: tuple[str, ...] = CLASSES,
        unseen: tuple[str, ...] = ('cow',),
        setting: str = 'inductive',
        score_kind: str = 'softmax',
        **more: Any,
    ) -> None:
        super().__init__()
        self.split = resolve_split(dict(classes=classes, unseen=unseen))
        self.class_names, self.setting = self.split.classes, setting
        self.score_kind = score_kind
        vars(self).update(more)

    def training_names(self) -> tuple[str, ...]:
        inductive = self.setting == 'inductive'
        return self.split.seen if inductive else self.split.classes


def stock_head(num_classes: int) -> nn.Module:
    model = nn.Module()
    model.decode_head = nn.Module()
    model.decode_head.num_classes = num_classes  # type: ignore[assignment]
    model.decode_head.ignore_index = 255  # type: ignore[assignment]
    return model


def train(model: nn.Module, dataset: Any) -> None:
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset))
    hook = ProtocolCheckHook()
    parts = dict(train_loop=loop, val_loop=None, hooks=[hook], cfg=Config())
    hook.before_train(SimpleNamespace(model=model, **parts))


def evaluate(model: nn.Module, dataset: Any, *metrics: Any) -> None:
    loop = SimpleNamespace(
        dataloader=SimpleNamespace(dataset=dataset),
        evaluator=SimpleNamespace(metrics=metrics),
    )
    ProtocolCheckHook().before_test(SimpleNamespace(model=model, test_loop=loop))


ONE, TWO = ('dog',), ('dog', 'cat')
ALL_SEEN: dict[str, Any] = dict(unseen=(), setting='supervised')
MANY = tuple(f'name {index}' for index in range(300))
PAIRS = Labels([0, 1], **ours('test').metainfo, prompted=(2,))
PLAIN = Labels([0, 1, 2, 255], classes=CLASSES)


@pytest.mark.parametrize(
    'call',
    [
        lambda: evaluate(Segmentor(), PLAIN, IoUMetric()),
        lambda: evaluate(Segmentor(), PLAIN, ZeroShotIoUMetric(dict(
            classes=CLASSES, unseen=['cow']))),
        lambda: evaluate(Segmentor(), Labels([0]), IoUMetric()),
        lambda: evaluate(Segmentor(), ours('test'), IoUMetric(), ZeroShotIoUMetric()),
        lambda: evaluate(stock_head(3), ours('test'), IoUMetric()),
        lambda: train(stock_head(3), ours('train')),
        lambda: train(Segmentor(**ALL_SEEN), PLAIN),
        # the smallest and largest vocabularies
        lambda: evaluate(Segmentor(unseen=CLASSES), ours('test', unseen=CLASSES)),
        lambda: evaluate(
            Segmentor(unseen=CLASSES),
            ours('test', unseen=CLASSES),
            ZeroShotIoUMetric(boundary_ratio=0.02),
        ),
        lambda: train(Segmentor(**ALL_SEEN), ours('train', **ALL_SEEN)),
        lambda: evaluate(Segmentor(TWO, ('cat',)), ours('test', TWO, ('cat',))),
        lambda: train(
            Segmentor(TWO, ('cat',), score_kind='sigmoid'),
            ours('train', TWO, ('cat',)),
        ),
        lambda: train(Segmentor(MANY, MANY[9:]), ours('train', MANY, MANY[9:])),
        lambda: evaluate(Segmentor(MANY, MANY[9:]), ours('test', MANY, MANY[9:])),
        # one name at a time has something to be told from
        lambda: evaluate(
            Segmentor(ONE, (), 'supervised', reads_prompts=True),
            Labels(
                [0, 1],
                **ours('test', ONE, (), 'supervised').metainfo,
                prompted=(0,),
            ),
            FoldIoUMetric(),
        ),
    ],
)  # fmt: skip
def test_pairs_that_work(call: Any) -> None:
    call()


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (
            lambda: evaluate(Segmentor(ONE, ()), ours('test', ONE, ())),
            "test_dataloader.dataset has one class, 'dog'.*'background'",
        ),
        (
            lambda: evaluate(Segmentor(ONE, ()), Labels([0], classes=ONE), IoUMetric()),
            "has one class, 'dog'",
        ),
        (
            lambda: evaluate(stock_head(1), ours('test', ONE, ())),
            "has one class, 'dog'",
        ),
        (
            lambda: train(
                Segmentor(ONE, (), 'supervised'), ours('train', ONE, (), 'supervised')
            ),
            "train_dataloader.dataset has one class, 'dog'",
        ),
        (
            lambda: train(Segmentor(TWO, ('cat',)), ours('train', TWO, ('cat',))),
            "model.split trains one class, 'dog', and a softmax",
        ),
        (
            lambda: evaluate(Segmentor(), PLAIN, ZeroShotIoUMetric()),
            'test_evaluator: .*the data set has no split',
        ),
        (
            lambda: evaluate(Segmentor(), Labels([0]), ZeroShotIoUMetric()),
            'test_evaluator: .*the data set has no class names',
        ),
        (
            lambda: evaluate(Segmentor(), PLAIN, FoldIoUMetric()),
            r"test_evaluator is a FoldIoUMetric.*dict\(type='ZeroShotIoUMetric'\)",
        ),
        (
            lambda: evaluate(
                Segmentor(reads_prompts=True), PAIRS, FoldIoUMetric(), IoUMetric()
            ),
            r"is a IoUMetric.*one named class; use dict\(type='FoldIoUMetric'\)",
        ),
        (
            lambda: evaluate(Segmentor(), Labels([0], classes=TWO), IoUMetric()),
            "only in the model: .'cow'.; only in the data set: none",
        ),
        (
            lambda: evaluate(stock_head(19), ours('test'), IoUMetric()),
            'model.decode_head.num_classes is 19, but .* set num_classes=3',
        ),
        (
            lambda: train(stock_head(3), ours('train', setting='transductive')),
            "train_dataloader.dataset.setting is 'transductive'",
        ),
        (
            lambda: train(Segmentor(reads_prompts=True), PLAIN),
            "make train_dataloader.dataset a dict.type='ClassPromptDataset'",
        ),
        (
            lambda: evaluate(Segmentor(MANY, ()), ours('test', MANY, ()), IoUMetric()),
            'IoUMetric.ignore_index is 255, but .* set ignore_index=65535',
        ),
        (
            lambda: evaluate(
                Segmentor(unseen=CLASSES),
                ours('test', unseen=CLASSES),
                ZeroShotIoUMetric(modes=['gzsl', 'seen_only']),
            ),
            'has no seen class',
        ),
        (
            lambda: evaluate(
                Segmentor(unseen=CLASSES),
                ours('test', unseen=CLASSES),
                ZeroShotIoUMetric(gamma_sweep=[0.1]),
            ),
            'lacks one of the two',
        ),
    ],
)
def test_pairs_that_are_refused_in_one_line(call: Any, message: str) -> None:
    with pytest.raises(ProtocolError, match=message) as caught:
        call()
    assert '\n' not in str(caught.value)
