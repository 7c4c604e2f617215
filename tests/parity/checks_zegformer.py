"""ZegFormer against the official code: its parts, the second look, and one step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from checks_esda import samples_of
from registry import GoldenFile, assert_close, check, one_thread_or_two
from safetensors.torch import save_file
from torch import Tensor, nn

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.models.backbones import ResNet
from mmseg.registry import MODELS, TRANSFORMS

from zs3_mmseg.engine.converters import Conversion, apply_rules
from zs3_mmseg.engine.converters.zegformer import zegformer_rules
from zs3_mmseg.models.backbones import FrozenBatchNorm
from zs3_mmseg.models.calibrators import SeenShift
from zs3_mmseg.models.class_embeddings import (
    ClassEmbeddingBank,
    ClassEmbeddings,
    ClassQueries,
)
from zs3_mmseg.models.decode_heads import MaskScores, ZegFormerHead
from zs3_mmseg.models.decode_heads.query_mask_head import covered_pixels
from zs3_mmseg.models.decode_heads.query_masks import FPNPixelDecoder, sine_positions
from zs3_mmseg.models.losses import MaskClassificationLoss, MaskTargets
from zs3_mmseg.models.region_classifiers import CropClassifier, Regions, mask_box
from zs3_mmseg.models.segmentors.inference import (
    MaskSums,
    ScoringRule,
    resize_maps,
    to_original,
)
from zs3_mmseg.models.segmentors.input_image import input_image
from zs3_mmseg.utils.labels import IGNORE_INDEX

CONFIGS = Path(__file__).parents[2] / 'configs'
DECODER, PREDICTOR = 'sem_seg_head.pixel_decoder.', 'sem_seg_head.predictor.'


def converted(
    state: Mapping[str, Tensor], model: nn.Module, theirs: str, ours: str
) -> Conversion:
    """Load official weights of a part, found below ``theirs`` in the whole model.

    ``ours`` is the same for ours; other parts of the head may be missing.
    """
    target = {f'{ours}{key}': value for key, value in model.state_dict().items()}
    official = {f'{theirs}{key}': value for key, value in state.items()}
    conversion = apply_rules(official, zegformer_rules(), target)
    assert not conversion.unknown
    assert not conversion.mismatched
    state = {key.removeprefix(ours): v for key, v in conversion.state.items()}
    model.load_state_dict(state, strict=False)
    return conversion


def check_gradients(
    model: nn.Module,
    golden: GoldenFile,
    conversion: Conversion,
    theirs: str = '',
    ours: str = '',
) -> None:
    """Compare the recorded gradients of weights."""
    official = {old: new for new, old in conversion.sources.items()}
    parameters, tensors = dict(model.named_parameters()), golden.tensors()
    keys = [
        k for k in tensors if k.startswith('grad.') and not k.startswith('grad.in.')
    ]
    largest = max(float(tensors[key].abs().max()) for key in keys)
    for key in keys:
        name = official[theirs + key.removeprefix('grad.')].removeprefix(ours)
        found = parameters[name].grad
        if tensors[key].abs().max() < 1e-6 * largest:
            # Contents of queries start at zero, so nothing depends on the matrix that
            # the first layer asks them with: rounding, here and there.
            assert found.abs().max() < 1e-6 * largest, key
            continue
        assert_close(found, tensors[key], 'gradient', what=key)


@check('zegformer_pixel_decoder')
def pixel_decoder(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    model = FPNPixelDecoder(
        config['channels'],
        config['conv_dim'],
        config['mask_dim'],
        num_groups=config['groups'],
    )
    ours = 'decode_head.pixel_decoder.'
    conversion = converted(golden.state(), model, DECODER, ours)
    assert not conversion.missing
    names = [f'res{level + 2}' for level in range(len(config['channels']))]
    maps = [tensors[f'in.{name}'].clone().requires_grad_() for name in names]
    out = model(maps)[0]
    assert_close(out, tensors['out.mask_features'], what='mask features')
    (out * tensors['cotangent']).sum().backward()
    for name, found in zip(names, maps, strict=True):
        key = f'grad.in.{name}'
        if key in tensors:
            assert_close(found.grad, tensors[key], 'gradient', what=key)
    check_gradients(model, golden, conversion, DECODER, ours)


def queries_of(rows: Tensor, seen: Tensor | None = None) -> ClassQueries:
    count = len(rows)
    seen = torch.ones(count, dtype=torch.bool) if seen is None else seen
    return ClassQueries(rows, torch.arange(count), seen)


def head_of(config: Mapping[str, Any], channels: list[int], **options: Any) -> Any:
    scale = 1 / config['temperature'] if 'temperature' in config else 100.0
    return ZegFormerHead(
        channels,
        config['hidden_dim'],
        mask_channels=config['mask_dim'],
        num_queries=config['num_queries'],
        num_layers=config['dec_layers'],
        num_heads=config['nheads'],
        feedforward_channels=config['dim_feedforward'],
        dropout=0.0,
        scale=scale,
        **options,
    )


@check('zegformer_predictor')
def predictor(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    width = config['in_channels']
    rows = tensors['text.train']
    # Any pixel decoder: its features are given.
    head = head_of(config, [width] * 4, embed_dim=rows.shape[1], num_groups=1)
    conversion = converted(golden.state(), head, PREDICTOR, 'decode_head.')
    left = [k for k in conversion.missing if 'pixel_decoder' not in k]
    assert not left
    maps = tensors['in.x'].clone().requires_grad_()
    features = tensors['in.mask_features'].clone().requires_grad_()
    projected = head.query_decoder.input_proj(maps)
    positions = sine_positions(projected).expand(len(maps), -1, -1, -1)
    assert_close(positions, tensors['pos'], what='pos')
    out = head._found(head.query_decoder(maps), features, queries_of(rows))
    assert_close(out.class_logits, tensors['train.logits'], what='train.logits')
    assert_close(out.masks, tensors['train.masks'], what='train.masks')
    total = (out.class_logits * tensors['cotangent.logits']).sum()
    (total + (out.masks * tensors['cotangent.masks']).sum()).backward()
    for name, value in (('x', maps), ('mask_features', features)):
        key = f'grad.in.{name}'
        assert_close(value.grad, tensors[key], 'gradient', what=key)
    check_gradients(head, golden, conversion, PREDICTOR, 'decode_head.')
    head.eval()
    with torch.no_grad():
        found = head.query_decoder(maps)[-1:]
        out = head._found(found, features, queries_of(tensors['text.test']))
    assert_close(out.class_logits[0], tensors['eval.logits'], what='eval.logits')
    assert_close(out.masks[0], tensors['eval.masks'], what='eval.masks')


@check('zegformer_criterion')
def criterion(golden: GoldenFile) -> None:
    tensors = golden.tensors()
    for name, case in golden.json['config']['cases'].items():
        part = {
            key.removeprefix(f'{name}.'): value
            for key, value in tensors.items()
            if key.startswith(f'{name}.')
        }
        loss = MaskClassificationLoss(
            mask_weight=case['mask_weight'],
            dice_weight=case['dice_weight'],
            no_object_weight=case['eos_coef'],
        )
        targets = [
            MaskTargets(
                part[f'in.labels.{image}'].long(),
                part[f'in.gt.{image}'].bool(),
                torch.zeros(case['gt_hw'], dtype=torch.bool),
            )
            for image in range(case['B'])
        ]
        logits = part['in.logits'].clone().requires_grad_()
        masks = part['in.masks'].clone().requires_grad_()
        for layer in range(case['layers']):
            for image, target in enumerate(targets):
                given = logits[layer, image], masks[layer, image], target
                where = f'{layer}.{image}'
                cost = loss.cost(*given)
                assert_close(cost, part[f'cost.{where}'], what=f'{name}.cost.{where}')
                pairs = torch.stack(loss.match(*given))
                assert torch.equal(pairs, part[f'match.{where}'].long()), where
        losses = loss(logits, masks, targets)
        recorded = {k.removeprefix('loss.') for k in part if k.startswith('loss.')}
        assert losses.keys() == recorded
        for key, value in losses.items():
            assert_close(value, part[f'loss.{key}'][0], what=f'{name}.{key}')
        total = sum(losses.values())
        assert_close(total, part['total'][0], what=f'{name}.total')
        total.backward()
        for key, value in (('logits', logits), ('masks', masks)):
            recorded = part[f'grad.{key}']
            assert_close(value.grad, recorded, 'gradient', what=f'{name}.grad.{key}')


# --------------------------------------------------------------------- a whole model


class ShrunkResNet(ResNet):
    """The ResNet of our configs with stages of any width."""

    def __init__(self, stem: int, inner: int, outer: list[int], **options: Any) -> None:
        super().__init__(**options)
        narrow = type(
            'Narrow', (self.block,), dict(expansion=outer[0] // inner, __doc__='')
        )
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = FrozenBatchNorm(stem)
        width = stem
        for index, (channels, count) in enumerate(
            zip(outer, self.stage_blocks, strict=True)
        ):
            stage = self.make_res_layer(
                block=narrow,
                inplanes=width,
                planes=channels // narrow.expansion,
                num_blocks=count,
                stride=self.strides[index],
                dilation=1,
                style=self.style,
                norm_cfg=self.norm_cfg,
            )
            setattr(self, f'layer{index + 1}', stage)
            width = channels


class RecordedRows:
    """A bank of recorded rows."""

    def __init__(self, rows: Mapping[str, Tensor]) -> None:
        self.table = dict(rows)
        self.dim = len(next(iter(rows.values())))

    def embed(self, names: list[str]) -> ClassEmbeddings:
        rows = torch.stack([self.table[name] for name in names])
        return ClassEmbeddings(rows, torch.arange(len(names)), tuple(names), {})


def segmentor_of(golden: GoldenFile) -> nn.Module:
    """Build our config in small, without the second look, with recorded rows."""
    config, tensors = golden.json['config'], golden.tensors()
    train, test = config['train_classes'], config['test_classes']
    ours = Config.fromfile(CONFIGS / 'zegformer/voc_r101.py').model
    shapes = config['backbone']
    backbone = dict(
        ours.backbone,
        type=ShrunkResNet,
        stem=shapes['stem'],
        inner=shapes['width_per_group'],
        outer=shapes['out_channels'],
        depth=shapes['depth'],
        init_cfg=None,
    )
    head = dict(
        type=ours.decode_head.type,
        in_channels=shapes['out_channels'],
        channels=config['hidden_dim'],
        pixel_channels=config['conv_dim'],
        mask_channels=config['mask_dim'],
        num_queries=config['num_queries'],
        num_layers=config['dec_layers'],
        num_heads=config['nheads'],
        feedforward_channels=config['dim_feedforward'],
        dropout=0.0,
    )
    gamma = config['gzero_calibrate']
    divisor = config['size_divisibility']
    preprocessor = dict(
        ours.data_preprocessor,
        # Images are recorded in RGB.
        bgr_to_rgb=False,
        size_divisor=divisor,
        test_cfg=dict(size_divisor=divisor),
    )
    return MODELS.build(
        dict(
            type=ours.type,
            setting=ours.setting,
            split=dict(classes=test, unseen=[n for n in test if n not in train]),
            backbone=backbone,
            decode_head=head,
            class_embeddings=RecordedRows(
                dict(zip(test, tensors['text.test'], strict=True))
            ),
            calibrators=[dict(ours.calibrators[0], shift=gamma)] if gamma > 0 else [],
            data_preprocessor=preprocessor,
            test_cfg=ours.test_cfg,
        )
    )


def mapped(golden: GoldenFile) -> tuple[list[Tensor], Tensor]:
    """Return the training images and labels as our pipeline fills them up."""
    config, tensors = golden.json['config'], golden.tensors()
    pipeline = Config.fromfile(CONFIGS / 'zegformer/voc_r101.py').train_pipeline
    (fill,) = (step for step in pipeline if step.type == 'Pad')
    side = config['mapper_pad']
    pad = TRANSFORMS.build(dict(fill, size=(side, side)))
    images, labels = [], []
    for index in range(config['B']):
        image = tensors[f'train.image.{index}'].permute(1, 2, 0).numpy()
        results = dict(
            img=image,
            gt_seg_map=tensors[f'train.label.{index}'].numpy(),
            seg_fields=['gt_seg_map'],
            img_shape=image.shape[:2],
        )
        results = pad(results)
        images.append(torch.from_numpy(results['img']).permute(2, 0, 1))
        labels.append(torch.from_numpy(results['gt_seg_map']))
        assert torch.equal(images[-1], tensors[f'mapper.image.{index}'])
        assert torch.equal(labels[-1], tensors[f'mapper.sem_seg.{index}'])
        targets = MaskTargets.of(labels[-1], IGNORE_INDEX)
        assert_close(targets.labels, tensors[f'mapper.gt_classes.{index}'])
        assert_close(targets.masks.float(), tensors[f'mapper.gt_masks.{index}'].float())
    return images, torch.stack(labels)


@check('zegformer_main')
def whole(golden: GoldenFile) -> None:
    """Compare with sums in the order of one thread or of two.

    A ReLU whose input lies within rounding of 0 has either of two gradients.
    """
    init_default_scope('mmseg')
    one_thread_or_two(lambda: check_whole(golden))


def check_whole(golden: GoldenFile) -> None:
    model = segmentor_of(golden)
    state = golden.state()
    conversion = converted(state, model, '', '')
    assert set(conversion.missing) == {'_extra_state'}
    check_step(model, golden, conversion)
    model = segmentor_of(golden)
    converted(state, model, '', '')
    check_evaluation(model.eval(), golden)


def check_step(model: nn.Module, golden: GoldenFile, conversion: Conversion) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    images, labels = mapped(golden)
    order = [config['test_classes'].index(n) for n in config['train_classes']]
    table = torch.full((IGNORE_INDEX + 1,), IGNORE_INDEX)
    table[: len(order)] = torch.tensor(order)
    samples = samples_of(table[labels.long()])
    model.train()
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), True)
    maps = model.extract_feat(data['inputs'])
    for level, found in enumerate(maps, start=2):
        assert_close(found, tensors[f'train.res{level}'], what=f'train.res{level}')
    outputs = model.decode_head.training_outputs(maps, queries=model.training_queries())
    assert_close(outputs.class_logits, tensors['train.logits'], what='train.logits')
    assert_close(outputs.masks[-1], tensors['train.masks_last'], what='train.masks')
    losses = model.loss(data['inputs'], data['data_samples'])
    for key, value in losses.items():
        name = key.replace('decode.', 'train.')
        assert_close(value, tensors[name][0], what=name)
    total = sum(losses.values())
    assert_close(total, tensors['train.total'][0], what='train.total')
    schedule = Config.fromfile(CONFIGS / '_base_/schedules/zegformer_60k.py')
    wrapper = build_optim_wrapper(model, schedule.optim_wrapper)
    total.backward()
    learned = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learned)
    norm = torch.stack([p.grad.norm() for p in learned]).norm()
    assert_close(norm, tensors['train.grad_norm'][0], 'gradient', what='grad_norm')
    check_gradients(model, golden, conversion)
    wrapper.step()
    official = {old: new for new, old in conversion.sources.items()}
    state = model.state_dict()
    keys = [key for key in tensors if key.startswith('step.')]
    for key in keys:
        ours = state[official[key.removeprefix('step.')]]
        assert_close(ours, tensors[key], what=key)
    assert keys


def check_evaluation(model: nn.Module, golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    image = tensors['eval.image']
    (sample,) = samples_of(torch.zeros(1, *image.shape[1:]))
    sample.set_metainfo(
        dict(img_shape=image.shape[1:], ori_shape=tuple(config['eval_out']))
    )
    found: dict[str, MaskScores] = {}
    named = model.decode_head.named
    model.decode_head.named = lambda *given: found.update(given=given) or named(*given)
    with torch.no_grad():
        (result,) = model.test_step(dict(inputs=[image], data_samples=[sample]))
    logits, masks = found['given'][:2]
    assert_close(logits, tensors['eval.logits'], what='eval.logits')
    assert_close(masks, tensors['eval.masks'], what='eval.masks')
    scores = result.seg_logits.data
    assert_close(scores, tensors['eval.sem_seg'], what='eval.sem_seg')
    agree = result.pred_sem_seg.data[0] == tensors['eval.pred']
    best = tensors['eval.sem_seg'].topk(2, dim=0).values
    # Scores within rounding of each other have no order.
    assert (agree | (best[0] - best[1] < 1e-5 * best.abs().max())).all()


# -------------------------------------------------------------------- the second look


def crop_classifier(golden: GoldenFile, style: str, folder: str) -> CropClassifier:
    clip = golden.json['config']['clip']
    path = Path(folder) / 'clip.safetensors'
    save_file(golden.state('state.clip_model.'), path)
    arch = dict(
        embed_dim=clip['embed_dim'],
        quick_gelu=True,
        vision_cfg=dict(
            image_size=clip['image_resolution'],
            patch_size=clip['vision_patch_size'],
            width=clip['vision_width'],
            head_width=clip['vision_width'] // clip['vision_heads'],
            layers=clip['vision_layers'],
        ),
        # Never run: rows are recorded.
        text_cfg=dict(context_length=8, vocab_size=8, width=8, heads=1, layers=1),
    )
    # Three pictures at a time: any number gives the same.
    return CropClassifier(arch, path, style=style, batch_size=3)


def ensemble_of(kind: str | None, weight: float) -> dict[str, Any]:
    """Return our options for the official ``lambda``."""
    return {
        None: dict(seen_weight=1.0, unseen_weight=1.0, pool_seen=False),
        'all': dict(seen_weight=weight, unseen_weight=weight, pool_seen=False),
        'seen_unseen': dict(seen_weight=1 - weight, unseen_weight=weight),
    }[kind]


@check('zegformer_clip_inference')
def second_look(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    init_default_scope('mmseg')
    settings = Config.fromfile(CONFIGS / 'zegformer/voc_r101.py').model
    preprocessor = MODELS.build(dict(settings.data_preprocessor, bgr_to_rgb=False))
    batch = preprocessor(
        dict(
            inputs=[tensors[f'in.image.{i}'] for i in range(config['B'])],
            data_samples=[
                sample
                for size in config['image_hw']
                for sample in samples_of(torch.zeros(1, *size))
            ],
        ),
        True,
    )
    metas = [
        {**sample.metainfo, 'ori_shape': tuple(size)}
        for sample, size in zip(batch['data_samples'], config['out'], strict=True)
    ]
    # Our masks of 3 channels are swapped where the preprocessor swaps them.
    preprocessor._channel_conversion = True
    image = input_image(batch['inputs'], metas, preprocessor)
    unseen = config['unseen_classes']
    seen = torch.tensor([name not in unseen for name in config['test_classes']])
    queries = queries_of(tensors['text.clip'], seen)
    with TemporaryDirectory() as folder:
        for name, mode in config['modes'].items():
            classifier = None
            if mode.get('clip', True):
                classifier = crop_classifier(golden, mode['style'], folder)
            head = ZegFormerHead(
                [8] * 4,
                8,
                embed_dim=len(tensors['text.clip'][0]),
                num_queries=1,
                num_layers=1,
                num_groups=1,
                region_classifier=classifier,
                **ensemble_of(mode.get('ens'), config['lambda_']),
            )
            check_mode(golden, name, head, queries, image, metas)


def check_mode(
    golden: GoldenFile,
    name: str,
    head: ZegFormerHead,
    queries: ClassQueries,
    image: Any,
    metas: list[dict],
) -> None:
    tensors, mode = golden.tensors(), golden.json['config']['modes'][name]
    masks, size = tensors['in.masks'], tuple(image.pixels.shape[-2:])
    if mode.get('probe'):
        classifier = head.region_classifier
        covered = covered_pixels(masks, size)
        regions = Regions(covered, image, (), mask_logits=masks)
        pictures = torch.stack([*classifier.pictures(regions)])
        pictures = pictures.unflatten(0, masks.shape[:2])
        probe = tensors[f'{name}.clip_input_probe']
        step = pictures.shape[-1] // probe.shape[-1]
        assert_close(pictures[..., ::step, ::step], probe, what=f'{name} pictures')
        mean = pictures.abs().mean(dim=(-2, -1))
        assert_close(mean, tensors[f'{name}.clip_input_sum'], what=f'{name} means')
        boxes = [[mask_box(mask) for mask in some] for some in covered]
        assert_close(boxes, tensors[f'{name}.boxes'], what=f'{name}.boxes')
        features = classifier.features(regions)
        assert_close(features, tensors[f'{name}.image_features'], what=name)
        logits = classifier.logits(regions, queries)
        assert_close(logits, tensors[f'{name}.clip_logits'], what=f'{name}.clip_logits')
    with torch.no_grad():
        found = head.named(tensors['in.logits'], masks, size, queries, image)
    gamma = mode.get('gamma', 0)
    rule = ScoringRule(
        score_kind=head.score_kind,
        query_reduce='max',
        calibrators=(SeenShift(gamma),) if gamma > 0 else (),
        mask_size=None,
        align_corners=False,
        class_chunk=2,
    )
    for index, meta in enumerate(metas):
        own = found.split(1)[index]
        covered, out = size, meta['ori_shape']
        if mode.get('before'):
            full = resize_maps(own.masks, size, False)
            resized = to_original(full, meta, False)
            own = MaskScores(resized, own.class_scores)
            covered = out
        crop = MaskSums(own, queries, None, covered, covered, rule)
        scores = torch.cat([crop(classes) for classes in crop.chunks()], dim=1)
        if not mode.get('before'):
            scores = to_original(scores, meta, False)
        key = f'{name}.sem_seg.{index}'
        assert_close(scores[0], tensors[key], what=key)


# --------------------------------------------------------------------- text and names


@check('zegformer_text')
def text_rows(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    ids, sizes = torch.tensor(config['token_ids']), config['text']
    arch = dict(
        embed_dim=sizes['embed_dim'],
        quick_gelu=True,
        # Never run: the recording has the text tower alone.
        vision_cfg=dict(image_size=8, patch_size=8, width=8, head_width=8, layers=1),
        text_cfg=dict(
            context_length=sizes['context'],
            vocab_size=len(ids),
            width=sizes['width'],
            heads=sizes['heads'],
            layers=sizes['layers'],
        ),
    )
    names = {
        # What they separate by ", " we separate by "|".
        key: [name.replace(', ', '|') for name in config[f'{key}_classes']]
        for key in ('train', 'test')
    }
    ours = {'single': 'zegformer', 'clip_branch': 'zegformer_crops'}
    tokens: list[Tensor] = []

    def compact(clip: Any, prompts: list[str]) -> Tensor:
        found = torch.searchsorted(ids, clip.tokenizer(prompts))
        tokens.append(found)
        return found

    with TemporaryDirectory() as folder:
        path = Path(folder) / 'text_tower.safetensors'
        save_file(golden.state('state.clip_model.'), path)
        for kind in [*config['types'], 'clip_branch']:
            source = dict(type='clip_text', arch=arch, pretrained=path, cache=False)
            templates = ours.get(kind, kind)
            bank = ClassEmbeddingBank(source, templates=templates, reduce_synonyms=True)
            assert list(bank.source.templates) == golden.json['templates'][kind]
            bank.source._tokens = compact
            for key, suffix in (('train', ''), ('test', '_test')):
                recorded = tensors.get(f'{kind}.text_features{suffix}')
                if recorded is not None:
                    rows = bank.embed(names[key]).embeddings
                    assert_close(rows, recorded, what=f'{kind} {key}')
            if kind == 'single':
                assert torch.equal(tokens[-1], tensors['tokens.single'].long())
