"""Parts of ours among mmseg's: they work, or one line says which key to set."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from zs3_mmseg.engine.protocol import ProtocolError, require_fitting_parts

CLASSES = ['star', 'boat', 'car', 'house']
CLIP = dict(arch='zs3-shapes-tiny', pretrained='shapes')
ROWS = dict(type='ClassEmbeddingBank', source=dict(type='clip_text', **CLIP))
WIDTH = 128
VIT = dict(type='OpenCLIPViT', **CLIP)
TOKEN_VIT = dict(VIT, out_global=True)
#: Maps of 8, 16, 32 and 64 channels.
RESNET = dict(type='ResNet', depth=18, base_channels=8, norm_eval=False)
FCN = dict(type='FCNHead', in_channels=64, channels=8, num_convs=1, num_classes=3)
ZEGCLIP = dict(type='ZegCLIPHead')
PIXEL = dict(type='TextPixelHead', in_channels=64, embed_dim=WIDTH)
ESDA = dict(type='ESDAHead', num_heads=4, conv_channels=(8, 8))
PROMPTED_VIT = dict(
    TOKEN_VIT, normalize=True, low_rank=2, replace_cls=(1, 2), priors=(0, 1)
)
DEEPLAB = dict(type='ZS3DeepLabHead', in_channels=64, num_classes=3)
FPN = dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=16, num_outs=4)
GATE = dict(type='ImageLevelGate', weight=1.0)
STOCK_LOSSES = [
    dict(type='CrossEntropyLoss', loss_name='loss_ce'),
    dict(type='DiceLoss', loss_name='loss_dice'),
]
PREPROCESSOR = dict(
    type='SegDataPreProcessor',
    mean=[127.5] * 3,
    std=[64.0] * 3,
    size=(32, 32),
    test_cfg=dict(size_divisor=32),
)
LEFT_OUT = 'left out'


def ours(backbone: dict, head: dict, **changes: Any) -> dict[str, Any]:
    config = dict(
        type='ZeroShotEncoderDecoder',
        backbone=backbone,
        decode_head=head,
        class_embeddings=ROWS,
        split=dict(classes=CLASSES, unseen=['boat']),
        setting='inductive',
        data_preprocessor=PREPROCESSOR,
        test_cfg=dict(mode='whole'),
    )
    changed = config | changes
    return {key: value for key, value in changed.items() if value is not LEFT_OUT}


def stock(backbone: dict, head: Any, **changes: Any) -> dict[str, Any]:
    config = dict(
        type='EncoderDecoder',
        backbone=backbone,
        decode_head=head,
        data_preprocessor=PREPROCESSOR,
        test_cfg=dict(mode='whole'),
    )
    return config | changes


def pairs(backbone: dict, head: dict, **changes: Any) -> dict[str, Any]:
    rows = dict(ROWS, templates='bare', normalize=False, token_features=True)
    changed = dict(type='ClassPromptedSegmentor', class_embeddings=rows) | changes
    return ours(backbone, head, **changed)


def data(config: dict[str, Any], size: int = 32) -> dict[str, Any]:
    torch.manual_seed(0)
    samples = []
    for _ in range(2):
        shape: dict[str, Any] = dict(ori_shape=(size, size), img_shape=(size, size))
        if config['type'] == 'ClassPromptedSegmentor':
            shape['prompt_name'] = 'star'
        sample = SegDataSample(metainfo=shape)
        number = 2 if 'prompt_name' in shape else len(CLASSES)
        labels = torch.randint(0, number, (1, size, size))
        sample.gt_sem_seg = PixelData(data=labels)
        samples.append(sample)
    images = [torch.randint(0, 256, (3, size, size), dtype=torch.uint8)] * 2
    return dict(inputs=images, data_samples=samples)


def run(config: dict[str, Any]) -> None:
    """Do what a tool does: look at the config, build, predict, and train a step."""
    init_default_scope('mmseg')
    require_fitting_parts(config)
    model = MODELS.build(ConfigDict(config))
    if 'module' in config:
        return
    with torch.no_grad():
        model.eval().test_step(data(config))
    if any(parameter.requires_grad for parameter in model.parameters()):
        batch = model.data_preprocessor(data(config), True)
        losses = model.train()(**batch, mode='loss')
        assert all(torch.as_tensor(value).isfinite().all() for value in losses.values())


WORKING = {
    'averaging of logits by mmseg': dict(
        type='SegTTAModel', module=ours(RESNET, FCN, class_embeddings=LEFT_OUT)
    ),
    'a stock head': ours(RESNET, FCN),
    'a stock head of all classes': ours(RESNET, dict(FCN, num_classes=4)),
    'a stock head needs no rows': ours(RESNET, FCN, class_embeddings=LEFT_OUT),
    'stock losses in it': ours(RESNET, dict(FCN, loss_decode=STOCK_LOSSES)),
    'several maps': ours(
        RESNET,
        dict(
            type='UPerHead',
            in_channels=[8, 16, 32, 64],
            in_index=[0, 1, 2, 3],
            channels=8,
            num_classes=3,
        ),
    ),
    'joined maps': ours(
        RESNET,
        dict(
            FCN,
            in_channels=[8, 16],
            in_index=[0, 1],
            input_transform='resize_concat',
        ),
    ),
    'a head of ours on a stock backbone': ours(RESNET, PIXEL),
    'behind a neck': ours(RESNET, dict(PIXEL, in_channels=16), neck=FPN),
    'auxiliary heads of both kinds': ours(
        RESNET, FCN, auxiliary_head=[FCN, dict(PIXEL, in_channels=32, in_index=2)]
    ),
    'a descriptor without the token': ours(VIT, dict(ZEGCLIP, descriptor=('text',))),
    'a descriptor without it, on other maps': ours(
        RESNET,
        dict(ZEGCLIP, in_channels=WIDTH, descriptor=('text',)),
        neck=dict(FPN, out_channels=WIDTH),
    ),
    'no num_classes of a head of ours': ours(VIT, dict(PIXEL, in_channels=WIDTH)),
    'an idle num_classes': ours(VIT, dict(type='TextPixelHead', num_classes=19)),
    'pairs': pairs(PROMPTED_VIT, ESDA),
    'a stock head of pairs': pairs(
        PROMPTED_VIT, dict(FCN, in_channels=WIDTH, num_classes=2)
    ),
    'ZS3DeepLabHead in a stock segmentor': stock(
        RESNET, dict(DEEPLAB, c1_in_channels=8, num_classes=4)
    ),
}


@pytest.mark.parametrize('name', WORKING)
def test_mixtures_that_work(name: str) -> None:
    run(WORKING[name])


REFUSED = {
    'our head in a stock segmentor': (
        stock(TOKEN_VIT, ZEGCLIP),
        "model.type='ZeroShotEncoderDecoder', with model.class_embeddings, split",
    ),
    'with its channels': (
        stock(TOKEN_VIT, dict(ZEGCLIP, in_channels=WIDTH)),
        "model.type='ZeroShotEncoderDecoder', with",
    ),
    'as an auxiliary head': (
        stock(RESNET, FCN, auxiliary_head=[PIXEL]),
        "model.auxiliary_head.type is 'TextPixelHead'",
    ),
    'in a cascade': (
        stock(RESNET, [FCN, PIXEL], type='CascadeEncoderDecoder', num_stages=2),
        "model.decode_head.type is 'TextPixelHead'",
    ),
    'a head of pairs in a stock segmentor': (
        stock(TOKEN_VIT, dict(type='ESDAHead', in_channels=WIDTH, embed_dim=WIDTH)),
        "model.type='ClassPromptedSegmentor'",
    ),
    'a head of pairs for all classes': (
        ours(TOKEN_VIT, dict(type='ESDAHead')),
        "model.type='ClassPromptedSegmentor'",
    ),
    'a head of all classes for pairs': (
        ours(TOKEN_VIT, ZEGCLIP, type='ClassPromptedSegmentor'),
        'a head with two, such as ESDAHead',
    ),
    'no setting': (ours(VIT, PIXEL, setting=LEFT_OUT), 'model.setting is missing'),
    'no split': (ours(VIT, PIXEL, split=LEFT_OUT), 'model.split is missing'),
    'no rows': (
        ours(RESNET, PIXEL, class_embeddings=LEFT_OUT),
        'set model.class_embeddings',
    ),
    'no rows for pairs': (
        ours(
            VIT,
            dict(type='ESDAHead'),
            type='ClassPromptedSegmentor',
            class_embeddings=LEFT_OUT,
        ),
        'set model.class_embeddings',
    ),
    'a stock head of another number': (
        ours(RESNET, dict(FCN, num_classes=19)),
        'set num_classes=3',
    ),
    'no global token': (ours(VIT, ZEGCLIP), 'model.backbone.out_global=True'),
    'a stock backbone has none': (
        ours(RESNET, dict(ZEGCLIP, in_channels=64)),
        'which ResNet does not give',
    ),
    'a gate without it': (
        ours(RESNET, PIXEL, calibrators=[GATE]),
        'ImageLevelGate needs the global token',
    ),
    'channels that nothing tells': (
        ours(RESNET, dict(type='TextPixelHead')),
        'model.decode_head.in_channels is missing: ResNet does not tell',
    ),
    'wrong channels': (
        ours(TOKEN_VIT, dict(ZEGCLIP, in_channels=48)),
        'model.decode_head.in_channels is 48, but .* have 128 channels',
    ),
    'wrong channels of a stock head': (
        ours(RESNET, dict(FCN, in_channels=77)),
        'model.decode_head.in_channels is 77, but .* have 64 channels',
    ),
    'wrong channels of an auxiliary head': (
        ours(RESNET, FCN, auxiliary_head=dict(FCN, in_index=1)),
        'model.auxiliary_head.in_channels is 64, but .* have 16 channels',
    ),
    'wrong channels behind a neck': (
        ours(RESNET, PIXEL, neck=FPN),
        'model.decode_head.in_channels is 64, but .* have 16 channels',
    ),
    'no such map': (
        ours(VIT, dict(type='TextPixelHead', in_index=3)),
        'model.decode_head.in_index is 3, but .* 1 in all',
    ),
    'no such map of a stock backbone': (
        ours(RESNET, dict(FCN, in_index=4)),
        'model.decode_head.in_index is 4, but .* 4 in all',
    ),
    'a stock loss over masks': (
        ours(TOKEN_VIT, dict(ZEGCLIP, loss_decode=dict(type='CrossEntropyLoss'))),
        "expected dict\\(type='NonExclusiveLoss'\\)",
    ),
    'rows of another space': (
        ours(RESNET, dict(type='DenseTextHead', in_channels=64)),
        'must come from the same embedding space',
    ),
    'rows of another width': (
        ours(RESNET, dict(ZEGCLIP, in_channels=64, descriptor=('text',))),
        'class embeddings have 128 values and model.decode_head.in_channels is 64',
    ),
    'pairs without the token': (
        pairs(RESNET, dict(ESDA, in_channels=64, embed_dim=WIDTH)),
        'which ResNet does not give',
    ),
    'pairs without priors': (
        pairs(dict(PROMPTED_VIT, priors=()), ESDA),
        'set model.backbone.priors',
    ),
    'pairs without tokens of the text': (
        pairs(PROMPTED_VIT, ESDA, class_embeddings=ROWS),
        'set model.class_embeddings.token_features=True',
    ),
    'pairs of another width': (
        pairs(PROMPTED_VIT, dict(ESDA, embed_dim=64)),
        'and as model.decode_head.embed_dim',
    ),
    'a stock head of all classes for pairs': (
        pairs(PROMPTED_VIT, dict(FCN, in_channels=WIDTH)),
        'has 3 channels, and ClassPromptedSegmentor tells one name',
    ),
    'no preprocessor': (
        ours(VIT, dict(type='TextPixelHead'), data_preprocessor=LEFT_OUT),
        "model.data_preprocessor=dict.type='SegDataPreProcessor'",
    ),
    'details of another width': (
        ours(RESNET, DEEPLAB),
        'model.decode_head.c1_in_channels is 256, but .* 8 channels',
    ),
    "mmseg's averaging of our scores": (
        dict(type='SegTTAModel', module=ours(VIT, dict(type='DenseTextHead'))),
        "tta_model.type='ZeroShotTTAModel'",
    ),
    'our averaging of other scores': (
        dict(type='ZeroShotTTAModel', module=stock(RESNET, FCN)),
        "tta_model.type='SegTTAModel'",
    ),
    'our head inside of averaging': (
        dict(type='SegTTAModel', module=stock(RESNET, PIXEL)),
        "model.type='ZeroShotEncoderDecoder'",
    ),
}


@pytest.mark.parametrize('name', REFUSED)
def test_mixtures_that_are_refused_in_one_line(name: str) -> None:
    config, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as caught:
        run(config)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('mode', ['loss', 'predict'])
def test_a_head_says_so_itself_where_nobody_has_looked(mode: str) -> None:
    init_default_scope('mmseg')
    config = stock(RESNET, PIXEL)
    model = MODELS.build(ConfigDict(config))
    batch = model.data_preprocessor(data(config), mode == 'loss')
    with pytest.raises(ValueError, match=r"set model\.type='ZeroShotEncoderDecoder'"):
        model(**batch, mode=mode)


def test_parts_that_are_built_or_unknown_are_left_to_others() -> None:
    require_fitting_parts(torch.nn.Identity())
    require_fitting_parts(dict(type='NoSuchSegmentor'))
    with pytest.raises(ProtocolError, match='TextPixelHead'):
        require_fitting_parts(dict(type='EncoderDecoder', decode_head=PIXEL))
