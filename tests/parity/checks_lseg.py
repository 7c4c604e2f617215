"""LSeg against the official code: networks, their parts, and one training step."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torch.nn.functional as F
from checks_esda import samples_of, text_tower
from registry import GoldenFile, assert_close, check, one_thread_or_two
from torch import Tensor, nn

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.models.backbones import ResNet
from mmseg.models.decode_heads.dpt_head import FeatureFusionBlock
from mmseg.registry import MODELS, PARAM_SCHEDULERS, TRANSFORMS

from zs3_mmseg.datasets.class_prompt_dataset import binary_mask
from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.engine.converters import Conversion, apply_rules
from zs3_mmseg.engine.converters.lseg import lseg_rules
from zs3_mmseg.evaluation import FoldIoUMetric
from zs3_mmseg.evaluation.counters import count_pixels
from zs3_mmseg.evaluation.scores import class_scores
from zs3_mmseg.models.backbones import TowerOutput
from zs3_mmseg.models.class_embeddings import ClassEmbeddingBank, ClassQueries
from zs3_mmseg.models.decode_heads import LSegHead
from zs3_mmseg.models.segmentors.zero_shot_tta import multi_scale_windows
from zs3_mmseg.models.towers import text_features
from zs3_mmseg.models.towers.positions import resize_positions
from zs3_mmseg.utils.labels import IGNORE_INDEX

CONFIGS = Path(__file__).parents[2] / 'configs'
SCHEDULE = CONFIGS / '_base_/schedules/lseg_240e.py'
BLOCKS = {0: None, 1: 'bottleneck', 2: 'depthwise'}
#: Ignored pixels in the official code, and here.
IGNORED = -1


def official_ignore(labels: Tensor) -> Tensor:
    return labels.long().masked_fill(labels == IGNORED, IGNORE_INDEX)


class ShrunkResNet(ResNet):
    """The ResNet of our configs with stages of any width and number of blocks."""

    def __init__(self, stem: int, planes: list[int], blocks: list[int]) -> None:
        super().__init__(101, style='pytorch', norm_cfg=dict(type='BN'))
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        inner = stem
        for index, (width, count) in enumerate(zip(planes, blocks, strict=True)):
            stage = self.make_res_layer(
                block=self.block,
                inplanes=inner,
                planes=width,
                num_blocks=count,
                stride=self.strides[index],
                dilation=self.dilations[index],
                style=self.style,
                norm_cfg=self.norm_cfg,
            )
            setattr(self, f'layer{index + 1}', stage)
            inner = width * self.block.expansion


def backbone_of(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    if 'planes' in config:
        return ShrunkResNet(config['stem'], config['planes'], config['res_blocks'])
    patch = state['pretrained.model.patch_embed.proj.weight'].shape[-1]
    return MODELS.build(
        dict(
            type='TimmViT',
            model='vit_base_patch16_384',
            img_size=config['pos_grid'] * patch,
            patch_size=patch,
            embed_dim=config['width'],
            depth=config['depth'],
            num_heads=config['heads'],
            out_indices=config['hooks'],
        )
    )


def head_of(config: Mapping[str, Any], two_words: bool, patch: int | None) -> LSegHead:
    reassemble: dict[str, Any] = dict(in_channels=config['scratch_in'])
    if patch is not None:
        reassemble = dict(
            in_channels=[config['width']] * 4,
            post_process_channels=config['reassemble'],
            patch_size=patch,
        )
    # The two-word networks have no spatial block, whatever the option says.
    block = None if two_words else BLOCKS[config['arch_option']]
    return LSegHead(
        channels=config['features'],
        embed_dim=config['text_dim'],
        spatial_block=block,
        block_depth=config['block_depth'],
        activation=config['activation'],
        void_pixels='background' if two_words else 'ignore',
        **reassemble,
    )


class Model(nn.Module):
    """Text tower, backbone and head, joined as the segmentors join them."""

    conversion: Conversion

    def __init__(self, golden: GoldenFile) -> None:
        super().__init__()
        config, state = golden.json['config'], golden.state()
        self.two_words = 'class_id' in golden.tensors()
        self.backbone = backbone_of(config, state)
        patch = getattr(self.backbone, 'patch_size', None)
        self.decode_head = head_of(config, self.two_words, patch)
        self.conversion = apply_rules(state, lseg_rules(), self.state_dict())
        assert self.conversion.complete, str(self.conversion)
        self.load_state_dict(self.conversion.state)
        # Outside the module list: the text tower is no part of the checkpoint.
        text = {
            key.removeprefix('clip_pretrained.'): value
            for key, value in state.items()
            if key.startswith('clip_pretrained.') and 'logit_scale' not in key
        }
        self.text = [text_tower(tower_of(config), text)]

    def encode_text(self, tokens: Tensor) -> Tensor:
        with torch.no_grad():
            rows = text_features(self.text[0], tokens.flatten(0, -2).long())[0]
        return rows.unflatten(0, tokens.shape[:-1])

    def features(self, image: Tensor, rows: Tensor) -> tuple[Any, dict[str, Any]]:
        output = TowerOutput.of(self.backbone(image))
        count = rows.shape[-2]
        queries = ClassQueries(
            rows, torch.arange(count), torch.ones(count, dtype=torch.bool)
        )
        return output.maps, dict(queries=queries, cls_tokens=output.cls_tokens)

    def scores(self, image: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores at half and at full size."""
        maps, given = self.features(image, rows)
        given = {k: v for k, v in given.items() if v is not None}
        half = self.decode_head.forward(maps, **given)
        return half, full_size(half)


def tower_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the text tower as the recordings of ESDA name them."""
    return dict(
        embed_dim=config['text_dim'],
        train_h=32,
        patch_size=32,
        width=64,
        heads=1,
        layers=1,
        context_length=config['context_length'],
        vocab_size=config['vocab_size'],
        transformer_width=config['text_width'],
        transformer_heads=config['text_heads'],
        transformer_layers=config['text_layers'],
    )


def full_size(half: Tensor) -> Tensor:
    return F.interpolate(half, scale_factor=2, mode='bilinear', align_corners=True)


def compare(tensors: Mapping[str, Tensor], where: str, **ours: Tensor) -> None:
    for name, value in ours.items():
        if f'{where}.{name}' in tensors:
            assert_close(value, tensors[f'{where}.{name}'], what=f'{where}.{name}')


def rows_for(
    model: Model, tensors: Mapping[str, Tensor], tokens: str, classes: str
) -> Tensor:
    """Return the rows of all images, or those of each one in the two-word mode."""
    rows = model.encode_text(tensors[tokens])
    return rows[tensors[classes].long()] if model.two_words else rows


def subsampled(full: Tensor, recorded: Tensor) -> Tensor:
    """Take the rows and columns that were recorded."""
    step = full.shape[-1] // recorded.shape[-1]
    return full[..., ::step, ::step]


def check_evaluation(model: Model, golden: GoldenFile) -> None:
    tensors, head = golden.tensors(), model.decode_head
    model.eval()
    rows = rows_for(model, tensors, 'tokens', 'class_id')
    compare(tensors, 'eval', text_features=rows)
    seen: dict[str, Tensor] = {}
    hooks = [
        head.convs[level].register_forward_pre_hook(
            lambda _, args, name=f'layer_{level + 1}': seen.update({name: args[0]})
        )
        for level in range(4)
    ] + [
        head.fusion_blocks[4 - level].register_forward_hook(
            lambda *args, name=f'path_{level}': seen.update({name: args[-1]})
        )
        for level in range(1, 5)
    ]
    hooks.append(
        head.projection.register_forward_hook(
            lambda *args: seen.update(image_embedding_crop=args[-1][..., :2, :3])
        )
    )
    with torch.no_grad():
        half, out = model.scores(tensors['x'], rows)
    for hook in hooks:
        hook.remove()
    compare(tensors, 'eval', logits_half=half, out=out, **seen)
    loose = golden.json['tolerance']['fp16_output_abs']
    low = tensors['eval.out_fp16']
    assert (subsampled(out, low) - low).abs().max() <= loose
    if 'eval.out_labelset' in tensors:
        with torch.no_grad():
            _, out = model.scores(
                tensors['x'], model.encode_text(tensors['tokens_labelset'])
            )
        compare(tensors, 'eval', out_labelset=out)


def optimizer_of(model: nn.Module, **changes: Any) -> torch.optim.Optimizer:
    """Make the optimiser of our configs."""
    config = Config.fromfile(SCHEDULE)
    wrapper = config.optim_wrapper
    wrapper.optimizer.update(changes)
    if changes.get('type') == 'Adam':
        del wrapper.optimizer['momentum']
    return build_optim_wrapper(model, wrapper).optimizer


def rate_of(config: Mapping[str, Any]) -> float:
    """Return the rate for ``batch_size`` images per process."""
    return config['base_lr'] * config['batch_size'] / 16


def check_training_step(model: Model, golden: GoldenFile) -> None:
    """Compare one step, with sums in the order of one thread or of two.

    A ReLU whose input lies within rounding of 0 has either of two gradients.
    """
    one_thread_or_two(lambda: check_one_step(copy.deepcopy(model), golden))


def check_one_step(model: Model, golden: GoldenFile) -> None:
    tensors, config = golden.tensors(), golden.json['config']
    model.train()
    optimizer = optimizer_of(model, lr=rate_of(config))
    rows = rows_for(model, tensors, 'tokens', 'class_id_train')
    maps, given = model.features(tensors['x_train'], rows)
    outputs = model.decode_head.training_outputs(maps, **given)
    recorded = tensors['train.out']
    assert_close(subsampled(full_size(outputs), recorded), recorded, what='train.out')
    samples = samples_of(official_ignore(tensors['label']))
    losses = model.decode_head.loss_by_feat(outputs, samples)
    assert_close(losses['loss_ce'], tensors['train.loss'][0], what='train.loss')
    losses['loss_ce'].backward()
    check_groups(model, optimizer, golden)
    parameters = dict(model.named_parameters())
    official = {old: new for new, old in model.conversion.sources.items()}
    gradients = [key for key in tensors if key.startswith('grad.')]
    for key in gradients:
        ours = official[key.removeprefix('grad.')]
        assert_close(parameters[ours].grad, tensors[key], 'gradient', what=key)
    assert gradients
    optimizer.step()
    state = model.state_dict()
    for key in [k for k in tensors if k.startswith('after.')]:
        old = key.removeprefix('after.')
        # What nothing reads does not exist here, and stays as it is there.
        if old in model.conversion.dropped:
            assert_close(tensors[f'state.{old}'], tensors[key], what=key)
        else:
            assert_close(state[official[old]], tensors[key], what=key)


def check_groups(
    model: Model, optimizer: torch.optim.Optimizer, golden: GoldenFile
) -> None:
    """Compare how many parameters have which rate and decay."""
    unread = golden.json['trainable_without_gradient']
    assert set(unread) <= set(model.conversion.dropped)
    ours: dict[tuple, int] = {}
    for group in optimizer.param_groups:
        key = group['lr'], group['weight_decay'], group['momentum']
        ours[key] = ours.get(key, 0) + len(group['params'])
    theirs = {}
    for name, group in zip(
        ('pretrained.', 'scratch.'), golden.json['optimizer_groups'], strict=False
    ):
        dead = sum(key.startswith(name) for key in unread)
        key = group['lr'], group['weight_decay'], group['momentum']
        theirs[key] = group['n_params'] - dead
    assert ours == theirs


@check('lseg_whole', 'lseg_zs')
def network(golden: GoldenFile) -> None:
    init_default_scope('mmseg')
    model = Model(golden)
    assert (
        model.decode_head.scale == golden.json['logit_scale']
        or abs(model.decode_head.scale / golden.json['logit_scale'] - 1) < 1e-6
    )
    assert not [key for key in model.state_dict() if 'scale' in key]
    check_evaluation(model, golden)
    check_training_step(model, golden)


def probe(out: Tensor) -> Tensor:
    return (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum()


@check('lseg_head')
def head(golden: GoldenFile) -> None:
    tensors = golden.tensors()
    for number, case in enumerate(golden.json['cases']):
        part = {
            key.removeprefix(f'c{number}.'): value
            for key, value in tensors.items()
            if key.startswith(f'c{number}.')
        }
        model = LSegHead(
            [4] * 4,
            4,
            embed_dim=part['text'].shape[1],
            spatial_block=BLOCKS[case['arch_option']],
            block_depth=case['block_depth'],
            activation=case['activation'],
        )
        image = part['image'].requires_grad_()
        # The decoder is given, and so is its projection.
        model.pixel_features = lambda *_, image=image: image
        model.projection = nn.Identity()
        block = model.spatial_block
        if block is not None:
            block.conv.load_state_dict(dict(weight=part['weight'], bias=part['bias']))
        classes = case['classes']
        queries = ClassQueries(
            part['text'], torch.arange(classes), torch.ones(classes, dtype=torch.bool)
        )
        half = model.forward((), queries=queries)
        assert_close(half, part['half'], what=f'c{number}.half')
        out = full_size(half)
        assert_close(out, part['out'], what=f'c{number}.out')
        probe(out).backward()
        gradients = {'image': image.grad}
        if block is not None:
            gradients |= {
                'weight': block.conv.weight.grad,
                'bias': block.conv.bias.grad,
            }
        for name, value in gradients.items():
            assert_close(value, part[f'grad.{name}'], 'gradient', what=name)


@check('lseg_fusion')
def fusion(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    theirs, ours = 'scratch.refinenet3', 'decode_head.fusion_blocks.1'
    for mode in ('two', 'one'):
        block = FeatureFusionBlock(
            config['features'], dict(type='ReLU', inplace=False), dict(type='BN')
        )
        target = {f'{ours}.{key}': value for key, value in block.state_dict().items()}
        conversion = apply_rules(
            {f'{theirs}.{key}': value for key, value in golden.state().items()},
            lseg_rules(),
            target,
        )
        assert conversion.complete, str(conversion)
        renamed = {
            old.removeprefix(f'{theirs}.'): new.removeprefix(f'{ours}.')
            for new, old in conversion.sources.items()
        }
        block.load_state_dict(
            {k.removeprefix(f'{ours}.'): v for k, v in conversion.state.items()}
        )
        names = ('x0', 'x1') if mode == 'two' else ('x0',)
        inputs = [tensors[name].clone().requires_grad_() for name in names]
        with torch.no_grad():
            assert_close(block.eval()(*inputs), tensors[f'{mode}.eval'])
        out = block.train()(*inputs)
        assert_close(out, tensors[f'{mode}.train'])
        probe(out).backward()
        found = {
            **dict(zip(names, [value.grad for value in inputs], strict=True)),
            **{
                old: dict(block.named_parameters())[new].grad
                for old, new in renamed.items()
                if new in dict(block.named_parameters())
            },
        }
        for key in [k for k in tensors if k.startswith(f'{mode}.grad.')]:
            gradient = found[key.removeprefix(f'{mode}.grad.')]
            assert_close(gradient, tensors[key], 'gradient', what=key)
        for key in [k for k in tensors if k.startswith(f'{mode}.after.')]:
            value = block.state_dict()[renamed[key.removeprefix(f'{mode}.after.')]]
            assert_close(value, tensors[key], what=key)


@check('lseg_pos_resize')
def positions(golden: GoldenFile) -> None:
    tensors, grid = golden.tensors(), golden.json['config']['grid']
    for number, size in enumerate(golden.json['sizes']):
        resized = resize_positions(
            tensors['pos_embed'][0], tuple(size), (grid, grid), 'bilinear'
        )
        assert_close(resized[None], tensors[f'out{number}'])


@check('lseg_optimizer')
def rates(golden: GoldenFile) -> None:
    schedule = Config.fromfile(SCHEDULE).param_scheduler
    for case in golden.json['cases']:
        model = nn.ModuleDict(
            dict(backbone=nn.Linear(1, 1), decode_head=nn.ModuleDict())
        )
        model.decode_head.update(
            dict(reassemble_blocks=nn.Linear(1, 1), convs=nn.Linear(1, 1))
        )
        optimizer = optimizer_of(model, type=case['optimizer'], lr=rate_of(case))
        for key, value in case['defaults'].items():
            ours = optimizer.defaults[key]
            assert ours == (tuple(value) if isinstance(value, list) else value), key
        epochs = case['max_epochs']
        scheduler = PARAM_SCHEDULERS.build(
            dict(schedule[0], optimizer=optimizer, begin=0, end=epochs)
        )
        recorded = case['lr_by_epoch']
        for epoch in range(epochs):
            if str(epoch) in recorded:
                slow, fast = recorded[str(epoch)][:2]
                by_group = [group['lr'] for group in optimizer.param_groups]
                # Backbone, and the layers behind it: weights and biases.
                assert_close(by_group[:4], [slow] * 4, what=case['name'])
                assert_close(by_group[4:], [fast] * 2, what=case['name'])
            optimizer.step()
            scheduler.step()


@check('lseg_labels')
def labels(golden: GoldenFile) -> None:
    for key, split, texts in (
        ('ade20k', 'ade20k_150', 'lseg_ade20k'),
        ('fewshot_pascal', 'pascal5i_0', None),
        ('fewshot_coco', 'coco20i_0', 'lseg_coco'),
    ):
        bank = ClassEmbeddingBank(
            dict(type='clip_text', arch='zs3-shapes-tiny', pretrained='shapes'),
            texts=texts,
        )
        names = get_split(split).classes
        assert [bank.texts.get(name, name) for name in names] == golden.json[key]


@check('lseg_multieval')
def multi_scale(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    for number, case in enumerate(golden.json['cases']):
        calls = []

        def network(window: Tensor, calls: list = calls) -> Tensor:
            calls.append(window.shape)
            return F.conv2d(window, tensors['weight'], tensors['bias'], padding=1)

        out = multi_scale_windows(
            tensors[f'c{number}.image'],
            network,
            base_size=config['base_size'],
            crop_size=config['crop_size'],
            stride=config['stride'],
            scales=case['scales'],
            flip=case['flip'],
            fill=-config['mean'] / config['std'],
        )
        assert_close(out, tensors[f'c{number}.out'], what=f'c{number}.out')
        assert len(calls) == case['n_calls']


@check('lseg_metrics')
def metrics(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    classes = config['sem_classes']
    confusion = np.zeros((classes, classes), dtype=np.int64)
    truths = official_ignore(tensors['sem.label'])
    for scores, truth in zip(tensors['sem.scores'], truths, strict=True):
        counts = count_pixels(scores.argmax(dim=0), truth, classes, IGNORE_INDEX)
        counts.add_to(confusion)
    inter, rows, columns = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    assert_close(inter, tensors['sem.inter'])
    assert_close(rows + columns - inter, tensors['sem.union'])
    pixels = [inter.sum(), confusion.sum()]
    assert_close(pixels, tensors['sem.correct_labelled'])
    mean = class_scores(confusion, absent='zero')[0].mean()
    assert_close([pixels[0] / pixels[1], mean], tensors['sem.pixacc_miou'])

    metric = FoldIoUMetric()
    metric.dataset_meta = dict(
        classes=[str(index) for index in range(config['fs_nclass'])],
        prompted=config['fs_class_ids'],
    )
    ignored = IGNORE_INDEX if config['fs_void_map_used'] else -1
    for index, prompt in enumerate(tensors['fs.class_id'].tolist()):
        raw = tensors['fs.label'][index].numpy()
        truth = torch.from_numpy(binary_mask(raw, prompt + 1, ignored))
        assert_close((truth == 1).float(), tensors['fs.mask'][index])
        if config['fs_void_map_used']:
            void = (truth == IGNORE_INDEX).float()
            assert_close(void, tensors['fs.ignore'][index])
        sample = dict(
            prompt_class=prompt,
            pred_sem_seg=dict(data=tensors['fs.scores'][index].argmax(0)[None]),
            gt_sem_seg=dict(data=truth[None]),
        )
        metric.process(None, [sample])
        (_, counted), theirs = metric.results[-1], tensors['fs.inter'][:, index]
        assert_close(counted.diagonal(), theirs)
        union = counted.sum(0) + counted.sum(1) - counted.diagonal()
        assert_close(union, tensors['fs.union'][:, index])
    found = metric.evaluate(len(tensors['fs.class_id']))
    assert_close(found['mIoU'], tensors['fs.miou'][0])
    assert_close(found['FB_IoU'], tensors['fs.fb_iou'][0])


def drawn_pipeline(
    config: Config, sizes: Mapping[str, int], case: Mapping[str, Any]
) -> list[Any]:
    """Return the transforms of our training with the recorded draws, and our sizes.

    Draws come in the official order: flip, long side, then the corner of the crop.
    """
    parts = {part.type: dict(part) for part in config.train_pipeline}
    draws, (height, width) = random.Random(case['seed']), case['hw']
    base, crop = sizes['base_size'], sizes['crop_size']
    low, high = parts['RandomResize']['ratio_range']
    flip = draws.random() < parts['RandomFlip']['prob']
    long_side = draws.randint(int(base * low), int(base * high))
    longest = max(height, width)
    resized = [int(side * long_side / longest + 0.5) for side in (height, width)]
    left, top = (draws.randint(0, max(side, crop) - crop) for side in reversed(resized))
    cropped = TRANSFORMS.build(dict(type='RandomCrop', crop_size=(crop, crop)))
    cropped.crop_bbox = lambda _: (top, top + crop, left, left + crop)
    assert parts['RandomResize']['keep_ratio']
    resize = dict(
        type='Resize',
        # By its sides: those that end in .5 may be rounded either way.
        scale=tuple(resized[::-1]),
        keep_ratio=False,
        backend=parts['RandomResize']['backend'],
    )
    return [
        TRANSFORMS.build(dict(parts['RandomFlip'], prob=float(flip))),
        TRANSFORMS.build(resize),
        cropped,
        TRANSFORMS.build(dict(parts['Pad'], size=(crop, crop))),
    ]


def validated(sizes: Mapping[str, int], case: Mapping[str, Any]) -> list[Any]:
    """Return the official validation: short side, and the middle."""
    (height, width), crop = case['hw'], sizes['crop_size']
    shortest = min(height, width)
    resized = [int(side * crop / shortest) for side in (height, width)]
    top, left = (round((side - crop) / 2) for side in resized)
    middle = TRANSFORMS.build(dict(type='RandomCrop', crop_size=(crop, crop)))
    middle.crop_bbox = lambda _: (top, top + crop, left, left + crop)
    resize = dict(
        type='Resize', scale=tuple(resized[::-1]), keep_ratio=False, backend='pillow'
    )
    return [TRANSFORMS.build(resize), middle]


@check('lseg_transforms')
def transforms(golden: GoldenFile) -> None:
    config = Config.fromfile(CONFIGS / 'lseg/ade20k_vitl16.py')
    init_default_scope(config.default_scope)
    sizes, tensors = golden.json['config'], golden.tensors()
    normalisation = config.model.data_preprocessor
    load = dict(type='LoadAnnotations', reduce_zero_label=True)
    for number, case in enumerate(golden.json['cases']):
        image, mask = (tensors[f'c{number}.{part}'] for part in ('image', 'mask'))
        labels = mask.numpy().astype(np.uint8)
        # As ``LoadAnnotations`` reads a file of such a data set.
        assert TRANSFORMS.build(load).reduce_zero_label
        results = dict(
            img=image.numpy(),
            gt_seg_map=np.where(labels == 0, IGNORE_INDEX, labels - 1),
            seg_fields=['gt_seg_map'],
            img_shape=image.shape[:2],
        )
        steps = (
            validated(sizes, case)
            if case['mode'] == 'val'
            else drawn_pipeline(config, sizes, case)
        )
        for step in steps:
            results = step(results)
        pixels = torch.from_numpy(results['img'].copy()).permute(2, 0, 1).float()
        mean, std = (
            torch.tensor(normalisation[key])[:, None, None] for key in ('mean', 'std')
        )
        found_image = (pixels - mean) / std
        if golden.json['pillow'].split('.')[0] == PIL.__version__.split('.')[0]:
            assert_close(found_image, tensors[f'c{number}.out_image'])
        else:  # another release may round a resized pixel to the next grey level
            level = 1 / (std.min() * tensors[f'c{number}.out_image'].abs().max())
            limit = 1.001 * level.item()
            assert_close(found_image, tensors[f'c{number}.out_image'], tolerance=limit)
        found = torch.from_numpy(results['gt_seg_map'].astype(np.int64))
        assert torch.equal(found, official_ignore(tensors[f'c{number}.out_mask']))
