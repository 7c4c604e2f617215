import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.datasets.transforms import PackSegInputs
from mmseg.evaluation import IoUMetric
from mmseg.models import EncoderDecoder, SegTTAModel
from mmseg.registry import HOOKS, MODELS
from mmseg.structures import SegDataSample

from zs3_mmseg.datasets import ZeroShotDataset
from zs3_mmseg.datasets.splits import resolve_split
from zs3_mmseg.datasets.wrappers import leaves
from zs3_mmseg.engine.hooks import ProtocolCheckHook
from zs3_mmseg.engine.protocol import ProtocolError
from zs3_mmseg.evaluation import ZeroShotIoUMetric
from zs3_mmseg.models.segmentors import ZeroShotEncoderDecoder

CLASSES = ['dog', 'cat', 'cow']
SPLIT = dict(classes=CLASSES, unseen=['cow'])
MASK = np.array([[0, 1], [2, 255]], dtype=np.uint8)


@pytest.fixture(autouse=True)
def _mmseg_scope() -> None:
    if DefaultScope.get_current_instance() is None:
        DefaultScope.get_instance('protocol_check_hook', scope_name='mmseg')


@pytest.fixture
def folder(tmp_path: Path) -> dict[str, Any]:
    """The config of a data set of three equal images."""
    for kind in ('images', 'masks'):
        (tmp_path / kind).mkdir()
    for index in range(3):
        Image.fromarray(MASK).save(tmp_path / f'masks/{index}.png')
        Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(
            tmp_path / f'images/{index}.png'
        )
    return dict(
        type='BaseSegDataset',
        metainfo=dict(classes=CLASSES),
        data_root=str(tmp_path),
        data_prefix=dict(img_path='images', seg_map_path='masks'),
        img_suffix='.png',
        serialize_data=False,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs'),
        ],
    )


def data(folder: dict[str, Any], phase: str = 'train', **arguments: Any) -> Any:
    return ZeroShotDataset(folder, phase=phase, **{'split': SPLIT, **arguments})


class Segmentor(nn.Module):
    """What the hook may know of a zero-shot segmentor."""

    score_kind = 'softmax'

    def __init__(self, split: Any = SPLIT, setting: str = 'inductive', **more: Any):
        super().__init__()
        self.split = resolve_split(split)
        self.setting = setting
        self.class_names = self.split.classes
        self.understands_unlabelled = setting == 'transductive'
        self.names = self.split.seen if setting == 'inductive' else self.split.classes
        vars(self).update(more)

    def training_names(self) -> tuple[str, ...]:
        return self.names


@pytest.fixture(scope='module')
def stock() -> EncoderDecoder:
    """MMSegmentation's own segmentor with three classes."""
    head = dict(type='FCNHead', in_channels=4, channels=4, num_convs=0, num_classes=3)
    norm = dict(type='BN', requires_grad=False)
    blocks = dict(num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
    backbone = dict(type='mmseg.ResNet', depth=18, base_channels=4, norm_cfg=norm)
    scoped = MODELS.build(
        dict(
            type='mmseg.EncoderDecoder',
            data_preprocessor=dict(type='mmseg.SegDataPreProcessor', size=(8, 8)),
            backbone={**backbone, **blocks},
            decode_head={**head, 'type': 'mmseg.FCNHead'},
        )
    )
    return scoped


def test_the_real_segmentor_answers_what_the_hook_asks(folder: dict) -> None:
    model = ZeroShotEncoderDecoder(
        backbone=dict(type='mmseg.ResNet', depth=18),
        decode_head=dict(
            type='mmseg.FCNHead', in_channels=512, channels=4, num_classes=3
        ),
        class_embeddings=None,
        split=SPLIT,
        setting='inductive',
        data_preprocessor=dict(type='mmseg.SegDataPreProcessor', size=(8, 8)),
    )
    run(model, data(folder), data(folder, 'test'), [ZeroShotIoUMetric()])
    with pytest.raises(ProtocolError, match=r"model\.setting is 'inductive'"):
        run(model, data(folder, setting='supervised'))


def run(
    model: nn.Module,
    train: Any = None,
    val: Any = None,
    metrics: Any = (),
    hooks: Any = (),
    **options: Any,
) -> None:
    """Call the hook as a runner would before training, or validation alone."""

    def loop(dataset: Any) -> Any:
        if dataset is None:
            return None
        return SimpleNamespace(
            dataloader=SimpleNamespace(dataset=dataset),
            evaluator=SimpleNamespace(metrics=list(metrics)),
        )

    runner = SimpleNamespace(
        model=model,
        train_loop=loop(train),
        val_loop=loop(val),
        hooks=list(hooks),
        cfg=Config(),
    )
    hook = ProtocolCheckHook(**options)
    if train is not None:
        hook.before_train(runner)
    else:
        hook.before_val(runner)


@pytest.mark.parametrize('setting', ['inductive', 'transductive', 'supervised'])
def test_parts_that_agree_pass(folder: dict, setting: str) -> None:
    train, val = data(folder, setting=setting), data(folder, 'test')
    run(Segmentor(setting=setting), train, val, [ZeroShotIoUMetric(), IoUMetric()])


def test_a_model_may_be_tested_on_other_classes(folder: dict) -> None:
    """Cross-dataset: training data have the model's split, test data another one."""
    trained = resolve_split(dict(classes=['owl', 'fox', 'elk'], unseen=['elk']))
    model = Segmentor(trained, test_split=resolve_split(SPLIT), class_names=CLASSES)
    run(model, val=data(folder, 'test'))
    with pytest.raises(ProtocolError, match='name different classes'):
        run(model, data(folder))
    model.test_split = resolve_split(dict(classes=CLASSES, unseen=['cat']))
    with pytest.raises(ProtocolError, match='disagree on what is'):
        run(model, val=data(folder, 'test'))


def test_models_inside_wrappers_are_found(folder: dict) -> None:
    other = Segmentor(dict(classes=CLASSES[::-1], unseen=['cow']))
    wrapped = nn.DataParallel(other)
    with pytest.raises(ProtocolError, match='the order differs'):
        run(wrapped, data(folder))


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        (
            Segmentor(dict(classes=['cat', 'dog', 'cow'], unseen=['cow'])),
            r"class 0 is 'cat' in the model and 'dog' in the data set",
        ),
        (
            Segmentor(dict(classes=['dog', 'cat', 'horse'], unseen=['horse'])),
            r"only in the model: \['horse'\]; only in the data set: \['cow'\]",
        ),
        (
            Segmentor(dict(classes=CLASSES, unseen=['cat'])),
            'disagree on what is unseen: cat, cow',
        ),
        (Segmentor(setting='supervised'), r"model\.setting is 'supervised'"),
        (Segmentor(names=('dog', 'cat', 'cow')), 'unseen names: cow'),
        (Segmentor(names=('cat', 'dog')), 'not the seen names'),
        (
            Segmentor(data_preprocessor=SimpleNamespace(seg_pad_val=0)),
            r'data_preprocessor\.seg_pad_val is 0',
        ),
    ],
)
def test_segmentors_that_disagree(folder: dict, model: Any, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        run(model, data(folder))


def test_order_is_checked_for_validation_too(folder: dict) -> None:
    with pytest.raises(ProtocolError, match='the order differs'):
        run(
            Segmentor(dict(classes=CLASSES[::-1], unseen=['cow'])),
            val=data(folder, 'test'),
        )


@pytest.mark.parametrize(('train', 'val'), [('test', None), (None, 'train')])
def test_phases_must_not_be_swapped(folder: dict, train: Any, val: Any) -> None:
    made = [None if phase is None else data(folder, phase) for phase in (train, val)]
    with pytest.raises(ProtocolError, match=r'dataset\.phase is'):
        run(Segmentor(), *made)


def test_stock_segmentor_works_unless_transductive(folder: dict, stock: Any) -> None:
    run(stock, data(folder), data(folder, 'test'))
    with pytest.raises(ProtocolError, match='254, which EncoderDecoder with FCNHead'):
        run(stock, data(folder, setting='transductive'))


def test_stock_head_needs_a_channel_for_each_class(folder: dict, stock: Any) -> None:
    two = data(folder, split=dict(classes=['dog', 'cow'], unseen=['cow']))
    with pytest.raises(ProtocolError, match=r'decode_head\.num_classes is 3.*=2'):
        run(stock, two)


def test_unlabelled_pixels_need_a_head_that_fills_them(folder: dict) -> None:
    model = Segmentor(setting='transductive', understands_unlabelled=False)
    with pytest.raises(ProtocolError, match='does not understand'):
        run(model, data(folder, setting='transductive'))


def test_the_location_of_unseen_pixels_needs_consent(folder: dict, stock: Any) -> None:
    model = Segmentor(setting='unseen_location', names=('dog', 'cat'))
    leaking = data(folder, setting='unseen_location')
    with pytest.raises(ProtocolError, match='allow_leak=True of ProtocolCheckHook'):
        run(model, leaking)
    run(model, leaking, allow_leak=True)
    with pytest.raises(ProtocolError, match=r'model\.setting is None'):
        run(stock, leaking, allow_leak=True)
    model = Segmentor(setting='unseen_location', names=('dog', 'cat', 'cow'))
    with pytest.raises(ProtocolError, match='embeddings of unseen names: cow'):
        run(model, leaking, allow_leak=True)


def test_layout_oracle_needs_a_hook_that_asks_for_it(folder: dict, stock: Any) -> None:
    oracle = data(folder, setting='layout_oracle')
    with pytest.raises(ProtocolError, match='GenerativeRetrainingHook'):
        run(stock, oracle, hooks=[Hook()])
    run(stock, oracle, hooks=[SimpleNamespace(allows_layout_oracle=True)])


@pytest.mark.parametrize(
    ('metric', 'message'),
    [
        (
            ZeroShotIoUMetric(dict(classes=CLASSES, unseen=['cat'])),
            'val_evaluator.*is not the split',
        ),
        (ZeroShotIoUMetric(ignore_index=0), r'ignore_index is 0'),
        (IoUMetric(ignore_index=0), r'IoUMetric\.ignore_index is 0'),
    ],
)
def test_metrics_that_disagree(folder: dict, metric: Any, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        run(Segmentor(), data(folder), data(folder, 'test'), [metric])


def test_metrics_that_need_scores_get_them(folder: dict) -> None:
    metrics = [ZeroShotIoUMetric(modes=['gzsl', 'zsl_only'])]
    run(Segmentor(), val=data(folder, 'test'), metrics=metrics)
    without = Segmentor(test_cfg=dict(return_scores=False))
    with pytest.raises(ProtocolError, match=r'val_evaluator.*return_scores is False'):
        run(without, val=data(folder, 'test'), metrics=metrics)


class Fixed:
    """A data set whose every sample has the same label map."""

    sizes = ((4, 4), (4, 4))

    def __init__(self, meta: dict[str, Any], labels: Any) -> None:
        self.metainfo = meta
        self.labels = labels

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = SegDataSample()
        if self.labels is not None:
            sample.gt_sem_seg = PixelData(data=torch.tensor(self.labels)[None])
        return dict(inputs=torch.zeros(3, *self.sizes[index]), data_samples=sample)


@pytest.mark.parametrize(
    ('labels', 'message'),
    [
        ([[0, 2]], "label 2 of the unseen class 'cow' reaches training"),
        ([[0, 254]], 'label 254 is none of the 3 classes'),
        ([[0, 3]], 'label 3 is none of the 3 classes'),
        ([[255, 255]], 'every pixel of 2 samples is ignored'),
        (None, '2 samples hold no label map'),
    ],
)
def test_labels_that_training_must_not_see(
    folder: dict, labels: Any, message: str
) -> None:
    meta = data(folder).metainfo
    with pytest.raises(ProtocolError, match=message):
        run(Segmentor(), Fixed(meta, labels))


def test_unseen_labels_are_fine_in_testing(folder: dict) -> None:
    run(Segmentor(), val=Fixed(data(folder, 'test').metainfo, [[0, 2]]))


def test_plain_data_set_would_leak_into_zero_shot_training(folder: dict) -> None:
    plain = Fixed(dict(classes=CLASSES), [[0]])
    with pytest.raises(ProtocolError, match='is no ZeroShotDataset'):
        run(Segmentor(), plain)
    run(Segmentor(setting='supervised'), plain)


def test_foreign_experiments_are_left_alone(stock: Any) -> None:
    run(stock, Fixed({}, [[7]]), Fixed({}, None))


def test_pseudo_labels_need_rows_of_unseen_classes(folder: dict) -> None:
    meta = {**data(folder).metainfo, 'pseudo_labels': 'some model'}
    with pytest.raises(ProtocolError, match='no rows in inductive training'):
        run(Segmentor(), Fixed(meta, [[0, 2]]))


def test_a_file_that_cannot_be_read_is_named_with_the_key(folder: dict) -> None:
    path = Path(folder['data_root']) / 'masks/2.png'
    Image.fromarray(np.full((2, 2), 7, np.uint8)).save(path)
    with pytest.raises(
        ProtocolError, match=r'train_dataloader\.dataset: .*masks/2\.png.* 7 '
    ):
        run(Segmentor(), data(folder))


def test_random_states_are_left_as_they_were(folder: dict) -> None:
    train = data(folder)
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - pipelines use this generator
    expected = torch.rand(2).tolist(), random.random(), np.random.rand()  # noqa: NPY002
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    run(Segmentor(), train)
    assert (torch.rand(2).tolist(), random.random(), np.random.rand()) == expected  # noqa: NPY002


def test_validation_within_training_is_checked_once(
    folder: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Any] = []
    monkeypatch.setattr(
        Fixed,
        '__getitem__',
        lambda _, index: (
            looked.append(index) or dict(inputs=torch.zeros(3, 4, 4), data_samples=None)
        ),
    )
    loop = SimpleNamespace(
        dataloader=SimpleNamespace(dataset=Fixed(data(folder, 'test').metainfo, [[0]]))
    )
    runner = SimpleNamespace(model=Segmentor(), val_loop=loop)
    hook = ProtocolCheckHook()
    hook.before_val(runner)
    hook.before_val(runner)
    assert looked == [0, 1]


def val_of(folder: dict, sample: Any, model: Any, batch_size: int = 1) -> Any:
    """A runner whose validation data give one sample, or one of those in a list."""

    class Given(Fixed):
        def __getitem__(self, index: int) -> Any:
            return sample[index] if isinstance(sample, list) else sample

    dataset = Given(data(folder, 'test').metainfo, None)
    loader = SimpleNamespace(dataset=dataset, batch_size=batch_size)
    return SimpleNamespace(model=model, val_loop=SimpleNamespace(dataloader=loader))


def packed(*size: int, views: int = 0) -> dict[str, Any]:
    picture = torch.zeros(3, *size)
    if views:
        samples = [SegDataSample()] * views
        return dict(inputs=[picture] * views, data_samples=samples)
    return dict(inputs=picture, data_samples=SegDataSample())


@pytest.mark.parametrize(
    ('sample', 'batch_size', 'message'),
    [
        ({}, 1, 'no inputs and no data_samples; does its pipeline'),
        (dict(data_samples=SegDataSample()), 1, 'hold no inputs; does its pipeline'),
        (None, 1, 'no inputs and no data_samples'),
        (
            [packed(4, 4), packed(4, 6)],
            2,
            'batch_size is 2, but .* 4 x 4 and 6',
        ),
        ([packed(4, 4), packed(4, 6)], 1, None),
        ([packed(4, 4), packed(4, 4)], 2, None),
        (packed(4, 4, views=2), 1, 'several views of a picture .* --tta'),
    ],
)
def test_samples_that_no_model_takes(
    folder: dict, sample: Any, batch_size: int, message: str | None
) -> None:
    runner = val_of(folder, sample, Segmentor(), batch_size)
    if message is None:
        ProtocolCheckHook().before_val(runner)
        return
    with pytest.raises(ProtocolError, match=rf'val_dataloader.*{message}'):
        ProtocolCheckHook().before_val(runner)


def test_averages_need_several_views(folder: dict) -> None:
    model = SegTTAModel(Segmentor(test_step=None, test_cfg={}))
    ProtocolCheckHook().before_val(val_of(folder, packed(4, 4, views=2), model))
    with pytest.raises(ProtocolError, match="needs dict\\(type='TestTimeAug'"):
        ProtocolCheckHook().before_val(val_of(folder, packed(4, 4), model))


def test_the_failing_transform_is_named(folder: dict) -> None:
    dataset = data(folder, 'test')
    (leaf,) = leaves(dataset.dataset)
    leaf.pipeline.transforms.insert(0, PackSegInputs(meta_keys=None))
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset))
    runner = SimpleNamespace(model=Segmentor(), val_loop=loop)
    with pytest.raises(ProtocolError, match='PackSegInputs fails with TypeError'):
        ProtocolCheckHook().before_val(runner)


def test_built_from_a_config() -> None:
    assert HOOKS.build(dict(type='ProtocolCheckHook', num_samples=0)).num_samples == 0
    with pytest.raises(ValueError, match='0 or more, got -1'):
        ProtocolCheckHook(num_samples=-1)


def test_a_runner_of_anybody_refuses_a_config_of_two_minds(tmp_path: Path) -> None:
    (tmp_path / 'base.py').write_text(
        "default_scope = 'mmseg'\ntest_pipeline = [dict(type='PackSegInputs')]\n"
        'test_dataloader = dict(dataset=dict(pipeline=test_pipeline))\n'
    )
    mine = tmp_path / 'mine.py'
    mine.write_text("_base_ = 'base.py'\ntest_pipeline = [dict(type='Other')]\n")
    runner = Runner(
        nn.Linear(1, 1), str(tmp_path), cfg=Config.fromfile(mine), default_scope='mmseg'
    )
    with pytest.raises(ValueError, match=r'Set this to test_pipeline as well'):
        ProtocolCheckHook().before_run(runner)
