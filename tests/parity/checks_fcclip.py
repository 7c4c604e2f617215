"""FC-CLIP against the official code: its parts, its frozen CLIP, and one step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import timm
import torch
import torch.nn.functional as F
from checks_esda import samples_of
from registry import TOLERANCE, GoldenFile, assert_close, check, one_thread_or_two
from safetensors.torch import save_file
from torch import Tensor, nn

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from zs3_mmseg.datasets.splits import exactly_seen
from zs3_mmseg.engine.converters import Conversion, apply_rules
from zs3_mmseg.engine.converters.fcclip import fcclip_rules
from zs3_mmseg.models.backbones import OpenCLIPConvNeXt, OpenCLIPResNet
from zs3_mmseg.models.class_embeddings import ClassEmbeddingBank, ClassQueries
from zs3_mmseg.models.conv_clip_classifier import ConvCLIPClassifier
from zs3_mmseg.models.decode_heads import FCCLIPHead, MaskScores
from zs3_mmseg.models.decode_heads.deformable import (
    DeformableAttention,
    DeformablePixelDecoder,
    weighted_samples,
)
from zs3_mmseg.models.decode_heads.query_masks import cells_outside, pooled
from zs3_mmseg.models.losses import MaskClassificationLoss, MaskTargets
from zs3_mmseg.models.region_classifiers import Regions
from zs3_mmseg.models.segmentors.inference import (
    MaskSums,
    ScoringRule,
    resize_maps,
    to_original,
)
from zs3_mmseg.models.towers import load_clip, release_towers

CONFIGS = Path(__file__).parents[2] / 'configs'
DECODER, PREDICTOR = 'sem_seg_head.pixel_decoder.', 'sem_seg_head.predictor.'
CLIP = 'backbone.clip_model.'


def converted(
    state: Mapping[str, Tensor], model: nn.Module, theirs: str = '', ours: str = ''
) -> Conversion:
    """Load official weights of a part, found below ``theirs`` in the whole model.

    ``ours`` is the same for ours; other parts may be missing. Scalars are recorded as
    vectors of length 1.
    """
    target = {f'{ours}{key}': value for key, value in model.state_dict().items()}
    official = {f'{theirs}{key}': value for key, value in state.items()}
    conversion = apply_rules(official, fcclip_rules(), target)
    assert not conversion.unknown, conversion.unknown
    found = {
        key: value.reshape(target[key].shape) if value.numel() == 1 else value
        for key, value in conversion.state.items()
    }
    model.load_state_dict(
        {key.removeprefix(ours): v for key, v in found.items()}, strict=False
    )
    return conversion


def check_gradients(
    model: nn.Module,
    golden: GoldenFile,
    conversion: Conversion,
    theirs: str = '',
    ours: str = '',
    close: Any = assert_close,
) -> None:
    """Compare the recorded gradients of weights."""
    official = {old: new for new, old in conversion.sources.items()}
    parameters, tensors = dict(model.named_parameters()), golden.tensors()
    keys = [
        key
        for key in tensors
        if key.startswith('grad.') and not key.startswith(('grad.in.', 'grad.text.'))
    ]
    assert keys
    for key in keys:
        name = official[theirs + key.removeprefix('grad.')].removeprefix(ours)
        found = parameters[name].grad.reshape(tensors[key].shape)
        close(found, tensors[key], 'gradient', what=key)


def inputs(tensors: Mapping[str, Tensor], *names: str) -> list[Tensor]:
    return [tensors[f'in.{name}'].clone().requires_grad_() for name in names]


@check('fcclip_deform_attn')
def deformable_attention(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    sizes = [(height, width) for height, width in config['levels']]
    model = DeformableAttention(
        config['d_model'],
        config['heads'],
        num_levels=len(sizes),
        num_points=config['points'],
    )
    key = 'init.sampling_offsets.bias'
    assert_close(model.sampling_offsets.bias, tensors[key], what=key)
    # Named alike.
    model.load_state_dict(golden.state())
    names = ['query', 'reference_points', 'value']
    given = inputs(tensors, *names)
    out = model(*given, sizes)
    assert_close(out, tensors['out.no_padding'], what='out.no_padding')
    (out * tensors['cotangent']).sum().backward()
    for name, value in zip(names, given, strict=True):
        key = f'grad.in.{name}'
        assert_close(value.grad, tensors[key], 'gradient', what=key)
    for name, weight in model.named_parameters():
        if (key := f'grad.{name}') in tensors:
            assert_close(weight.grad, tensors[key], 'gradient', what=key)
    with torch.no_grad():
        query, references, value = given
        points, weights = model.places(query, references, sizes)
        core = weighted_samples(model.value_proj(value), sizes, points, weights)
        padded = model(*given, sizes, tensors['in.padding'].bool())
    assert_close(points, tensors['out.sampling_locations'], what='points')
    assert_close(weights, tensors['out.attention_weights'], what='weights')
    assert_close(core, tensors['out.core'], what='core')
    assert_close(padded, tensors['out.padding'], what='out.padding')


@check('fcclip_pixel_decoder')
def pixel_decoder(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    model = DeformablePixelDecoder(
        config['channels'],
        config['conv_dim'],
        config['mask_dim'],
        num_layers=config['enc_layers'],
        num_heads=config['heads'],
        num_points=config['points'],
        feedforward_channels=config['dim_feedforward'],
        dropout=config['dropout'],
    )
    ours = 'decode_head.pixel_decoder.'
    conversion = converted(golden.state(), model, DECODER, ours)
    assert not conversion.missing
    names = [f'res{level + 2}' for level in range(len(config['channels']))]
    maps = inputs(tensors, *names)
    with torch.no_grad():
        projected = model.projected(maps[:0:-1])
        cells, positions, references = model.cells(projected)
        references = references.expand(len(cells), -1, -1, -1)
        sizes = [tuple(each.shape[-2:]) for each in projected]
        assert_close(cells, tensors['out.encoder_in'], what='cells')
        recorded = tensors['out.encoder_pos'].expand_as(cells)
        assert_close(positions.expand_as(cells), recorded, what='positions')
        assert_close(references, tensors['out.reference_points'], what='centres')
        for index, layer in enumerate(model.layers):
            key = f'out.attention.{index}'
            if key in tensors:
                seen = layer.self_attn(cells + positions, references, cells, sizes)
                assert_close(seen, tensors[key], what=key)
            cells = layer(cells, positions, references, sizes)
            key = f'out.encoder.{index}'
            assert_close(cells, tensors[key], what=key)
    features, found = model(maps)
    assert_close(features, tensors['out.mask_features'], what='mask features')
    total = (features * tensors['cotangent.mask_features']).sum()
    for index, each in enumerate(found):
        key = f'multi_scale.{index}'
        assert_close(each, tensors[f'out.{key}'], what=key)
        total = total + (each * tensors[f'cotangent.{key}']).sum()
    total.backward()
    for name, value in zip(names, maps, strict=True):
        key = f'grad.in.{name}'
        if key in tensors:
            assert_close(value.grad, tensors[key], 'gradient', what=key)
    check_gradients(model, golden, conversion, DECODER, ours)


# -------------------------------------------------------------------------- the head


def rows_of(counts: Sequence[int], rows: Tensor, seen: Tensor | None = None) -> Any:
    """Make queries of rows without "no object", so many for each class."""
    seen = torch.ones(len(counts), dtype=torch.bool) if seen is None else seen.bool()
    owners = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return ClassQueries(rows, owners, seen)


def small_head(embed_dim: int, **options: Any) -> FCCLIPHead:
    """Build a head whose pixel decoder is never run."""
    return FCCLIPHead(
        [4] * 4,
        embed_dim=embed_dim,
        pixel_decoder='fpn',
        num_groups=1,
        **{'num_queries': 1, 'num_layers': 1, 'feedforward_channels': 1, **options},
    )


@check('fcclip_predictor')
def predictor(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    assert config['mask_dim'] == config['hidden_dim']
    head = small_head(
        config['clip_embedding_dim'],
        channels=config['hidden_dim'],
        pixel_channels=config['in_channels'],
        num_queries=config['num_queries'],
        num_layers=config['dec_layers'],
        num_heads=config['nheads'],
        feedforward_channels=config['dim_feedforward'],
    )
    check_start(head, golden.json['initialisation'])
    conversion = converted(golden.state(), head, PREDICTOR, 'decode_head.')
    left = [k for k in conversion.missing if 'pixel_decoder' not in k]
    assert left == ['decode_head.no_object']
    names = [f'multi_scale.{level}' for level in range(len(config['sizes']))]
    *maps, features = inputs(tensors, *names, 'mask_features')
    text = tensors['text.train'].clone().requires_grad_()
    # Of length 1 already; normalised once more, its gradient is but across it.
    head.no_object.data.copy_(text[-1:].detach())
    queries = rows_of(config['train_rows'], text[:-1])
    found = head.decoded(maps, features, queries, every=True)
    assert_close(found.class_logits, tensors['train.logits'], what='train.logits')
    assert_close(found.masks, tensors['train.masks'], what='train.masks')
    for index, masks in enumerate(found.masks):
        size = config['sizes'][index % len(config['sizes'])]
        blocked = cells_outside(masks, size)
        assert torch.equal(blocked, tensors[f'train.blocked.{index}'].bool()), index
    total = (found.class_logits * tensors['cotangent.logits']).sum()
    (total + (found.masks * tensors['cotangent.masks']).sum()).backward()
    for name, value in zip([*names, 'mask_features'], [*maps, features], strict=True):
        key = f'grad.in.{name}'
        assert_close(value.grad, tensors[key], 'gradient', what=key)
    recorded = tensors['grad.text.train']
    assert_close(text.grad[:-1], recorded[:-1], 'gradient', what='grad.text.train')
    void, along = text[-1:].detach(), recorded[-1:]
    across = along - (along * void).sum() * void
    assert_close(head.no_object.grad, across, 'gradient', what='grad of void')
    check_gradients(head, golden, conversion, PREDICTOR, 'decode_head.')
    head.eval()
    rows = tensors['text.test']
    head.no_object.data.copy_(rows[-1:])
    counts = config['test_rows']
    with torch.no_grad():
        given = rows_of(counts, rows[:-1])
        found = head.decoded(maps, features, given, every=False)
    assert_close(found.class_logits[0], tensors['eval.logits'], what='eval.logits')
    assert_close(found.masks[0], tensors['eval.masks'], what='eval.masks')


def check_start(head: FCCLIPHead, recorded: Mapping[str, Any]) -> None:
    assert_close(head.logit_scale, recorded['logit_scale'], what='logit_scale')
    decoder = head.query_decoder
    for name in ('query_feat', 'query_embed', 'level_embed'):
        weight = getattr(decoder, name).weight
        assert recorded[name] == 'N(0,1)'
        assert abs(float(weight.detach().std()) - 1) < 0.5, name


@check('fcclip_pooling_logits')
def pooling_and_logits(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    for name in config['cases']:
        maps, masks = inputs(tensors_of(tensors, name), 'x', 'mask')
        out = pooled(maps, masks)
        assert_close(out, tensors[f'{name}.out.pooled'], what=f'{name}.pooled')
        (out * tensors[f'{name}.cotangent']).sum().backward()
        key = f'{name}.grad.x'
        assert_close(maps.grad, tensors[key], 'gradient', what=key)
        assert masks.grad is None
    for name, case in config['logit_cases'].items():
        part = tensors_of(tensors, name)
        embedding, text = inputs(part, 'embedding', 'text')
        head = small_head(case['D'], channels=8)
        head.logit_scale.data.copy_(part['in.log_scale'].reshape(()))
        scale = head.scale()
        directions = F.normalize(embedding, dim=-1)
        queries = rows_of(case['rows_per_class'], text[:-1])
        out = head._text_logits(directions, queries, text[-1:], scale)
        assert_close(out, part['out.logits'], what=f'{name}.logits')
        (out * part['cotangent']).sum().backward()
        for key, value in (
            ('embedding', embedding),
            ('text', text),
            ('log_scale', head.logit_scale),
        ):
            recorded = part[f'grad.{key}']
            found = value.grad.reshape(recorded.shape)
            assert_close(found, recorded, 'gradient', what=f'{name}.grad.{key}')


def tensors_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(f'{prefix}.'): value
        for key, value in tensors.items()
        if key.startswith(f'{prefix}.')
    }


# ------------------------------------------------------------------------- criterion


class RecordedDraws(MaskClassificationLoss):
    """The loss with recorded points, which have to be asked for in their order."""

    def give(self, part: Mapping[str, Tensor], layers: int, images: int) -> None:
        self.left: list[Tensor] = []
        self.final: list[Tensor] = []
        for layer in (layers - 1, *range(layers - 1)):
            self.left += [part[f'match.{layer}.{image}'] for image in range(images)]
            self.left += [part[f'candidates.{layer}'], part[f'random.{layer}']]

    def draw(self, count: int, points: int, like: Tensor) -> Tensor:
        given = self.left.pop(0)
        assert given.numel() == count * points * 2
        return given.reshape(count, points, 2)

    def _telling_points(self, masks: Tensor) -> Tensor:
        self.final.append(super()._telling_points(masks))
        return self.final[-1]


def loss_options(case: Mapping[str, Any]) -> dict[str, Any]:
    return dict(
        class_weight=case['class_weight'],
        mask_weight=case['mask_weight'],
        dice_weight=case['dice_weight'],
        no_object_weight=case['eos_coef'],
        mask_loss='bce',
        num_points=case['num_points'],
        oversampling=case['oversample_ratio'],
        importance_share=case['importance_sample_ratio'],
    )


@check('fcclip_criterion')
def criterion(golden: GoldenFile) -> None:
    tensors = golden.tensors()
    for name, case in golden.json['config']['cases'].items():
        part = tensors_of(tensors, name)
        points = tensors_of(part, 'points')
        loss = RecordedDraws(**loss_options(case))
        targets = [
            MaskTargets(
                part[f'in.labels.{image}'].long().flatten(),
                part[f'in.gt.{image}'].bool(),
                torch.zeros(part[f'in.gt.{image}'].shape[1:], dtype=torch.bool),
            )
            for image in range(case['B'])
        ]
        logits, masks = inputs(part, 'logits', 'masks')
        for layer in range(case['layers']):
            for image, target in enumerate(targets):
                given = logits[layer, image], masks[layer, image], target
                where = f'{layer}.{image}'
                drawn = points[f'match.{where}']
                loss.left = [drawn, drawn]
                if (key := f'cost.{where}') in part:
                    cost = loss.cost(*given)
                    recorded = part[key].reshape(cost.shape)
                    assert_close(cost, recorded, what=f'{name}.{key}')
                loss.left = [drawn]
                pairs = torch.stack(loss.match(*given))
                recorded = part[f'match.{where}'].long().reshape(pairs.shape)
                assert torch.equal(pairs, recorded), where
        loss.give(points, case['layers'], case['B'])
        losses = loss(logits, masks, targets)
        assert not loss.left
        last = case['layers'] - 1
        for layer, found in zip((last, *range(last)), loss.final, strict=True):
            recorded = points[f'final.{layer}'].reshape(found.shape)
            assert_close(found, recorded, what=f'{name}.points.final.{layer}')
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


# ------------------------------------------------------------------------ frozen CLIP


def arch_of(clip: Mapping[str, Any]) -> dict[str, Any]:
    """Return our model config of a recorded CLIP."""
    text = dict(
        context_length=77,
        vocab_size=len(clip['token_ids']),
        width=clip['text_width'],
        heads=clip['text_heads'],
        layers=clip['text_layers'],
    )
    if clip['type'] == 'rn':
        vision = dict(
            image_size=clip['image_size'],
            layers=clip['layers'],
            width=clip['width'],
            head_width=clip['head_width'],
            patch_size=None,
        )
    else:
        vision = dict(
            timm_model_name='convnext_large',
            timm_model_pretrained=False,
            timm_pool='',
            timm_proj=clip['proj'],
            timm_drop=0.0,
            timm_drop_path=0.1,
            image_size=32,
        )
    return dict(
        embed_dim=clip['embed_dim'],
        quick_gelu=clip.get('quick_gelu', False),
        vision_cfg=vision,
        text_cfg=text,
    )


@contextmanager
def recorded_clip(golden: GoldenFile) -> Iterator[dict[str, Any]]:
    """Give ``arch`` and ``pretrained`` of a recorded CLIP while its trunk is small."""
    clip = golden.json['config']['clip']
    real = timm.create_model

    def small(name: str, **options: Any) -> nn.Module:
        return real(name, depths=clip['depths'], dims=clip['dims'], **options)

    with TemporaryDirectory() as folder, mock.patch.object(timm, 'create_model', small):
        path = Path(folder) / 'clip.safetensors'
        state = golden.state(f'state.{CLIP}')
        # Scalars are recorded as vectors of length 1.
        counters = [key for key in state if key.endswith('num_batches_tracked')]
        save_file(state | {key: state[key].reshape(()) for key in counters}, path)
        try:
            yield dict(arch=arch_of(clip), pretrained=path)
        finally:
            release_towers()


def backbone_type(clip: Mapping[str, Any]) -> type:
    return OpenCLIPResNet if clip['type'] == 'rn' else OpenCLIPConvNeXt


@check('fcclip_backbone', 'fcclip_backbone_rn')
def backbone(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    with recorded_clip(golden) as given:
        model = backbone_type(config['clip'])(**given).train()
        classifier = ConvCLIPClassifier(**given)
        clip = load_clip(**given)
    text = clip.model.encode_text(tensors['tokens'])
    assert_close(text, tensors['out.text'], what='text')
    for index in range(len(config['images'])):
        image, masks = tensors[f'in.image.{index}'], tensors[f'in.masks.{index}']
        maps = model(image)
        assert [m.shape[1] for m in maps] == [*model.out_channels]
        for level, found in enumerate(maps, start=2):
            key = f'out.{index}.res{level}'
            assert_close(found, tensors[key], what=key)
        key = f'out.{index}.clip_vis_dense'
        assert_close(maps[-1], tensors.get(key, maps[-1]), what=key)
        if (key := f'out.{index}.pooled') in tensors:
            assert_close(pooled(maps[-1], masks), tensors[key], what=key)
        regions = Regions(masks > 0, None, maps, mask_logits=masks)
        key = f'out.{index}.clip_embedding'
        assert_close(classifier.features(regions), tensors[key], what=key)


def piped(name: str) -> str:
    """Separate synonyms as we do: they split at commas, and leave other blanks."""
    return name.replace(', ', ',').replace(',', '|')


def compacted(bank: ClassEmbeddingBank, ids: Sequence[int]) -> list[Tensor]:
    """Let a bank's tower read the ids it has, and return those it reads."""
    known, told = torch.tensor(ids), []

    def compact(clip: Any, prompts: list[str]) -> Tensor:
        told.append(torch.searchsorted(known, clip.tokenizer(prompts)))
        return told[-1]

    bank.source._tokens = compact
    return told


@check('fcclip_text')
def text_rows(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    with recorded_clip(golden) as given:
        source = dict(type='clip_text', cache=False, **given)
        bank = ClassEmbeddingBank(source, templates='vild')
        assert list(bank.source.templates) == golden.json['templates']
        told = compacted(bank, config['clip']['token_ids'])
        names = {
            kind: [piped(name) for name in config[f'{kind}_classes']]
            for kind in ('train', 'test', 'second_test')
        }
        for kind, classes in names.items():
            texts = [text for name in classes for text in name.split('|')]
            # As the bank asks for them, but for blanks at the end, which it removes.
            rows = bank.source.rows(texts, True, None)
            assert_close(rows, tensors[f'out.{kind}_text'], what=kind)
            counts = [len(name.split('|')) for name in classes]
            assert counts == tensors[f'out.{kind}_rows'].tolist()
            if kind == 'test':
                assert torch.equal(told[-1], tensors['tokens'].long())
                assert bank.source._prompts(texts) == golden.json['prompts_test']
                raw = bank.source._run(texts, lambda m, t: m.encode_text(t), None)
                assert_close(raw, tensors['out.raw_test'], what='raw')
    for kind, key in (('test', 'seen'), ('second_test', 'second_seen')):
        seen = exactly_seen(names[kind], names['train'])
        assert [*seen] == tensors[f'out.{key}'].bool().tolist()
    void = F.normalize(tensors['in.void_embedding'], dim=-1)
    both = torch.cat([tensors['out.test_text'], void])
    assert_close(both, tensors['out.with_void'], what='with void')


# --------------------------------------------------------------------------- ensemble


@check('fcclip_ensemble')
def ensemble(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    seen = exactly_seen(
        *([piped(n) for n in config[f'{k}_classes']] for k in ('test', 'train'))
    )
    assert [*seen] == [bool(flag) for flag in config['seen']]
    real, clip = timm.create_model, config['clip']

    def small(name: str, **options: Any) -> nn.Module:
        return real(name, depths=clip['depths'], dims=clip['dims'], **options)

    with mock.patch.object(timm, 'create_model', small):
        classifier = ConvCLIPClassifier(arch_of(clip))
    converted(golden.state(), classifier, '', 'decode_head.region_classifier.')
    rows, counts = tensors['text.test'], config['test_rows']
    void = F.normalize(tensors['in.void_embedding'], dim=-1)
    both = torch.cat([rows, void])
    assert_close(both, tensors['out.text_with_void'], what='with void')
    queries = rows_of(counts, rows, torch.tensor(seen))
    with_void = rows_of([*counts, 1], both)
    for name, mode in config['modes'].items():
        given = {
            key: tensors[f'in.{mode.get("inputs", "a")}.{key}']
            for key in ('logits', 'masks', 'dense')
        }
        if 'logit_scale' in mode:
            classifier.logit_scale.fill_(mode['logit_scale'])
        else:
            classifier.logit_scale.fill_(clip['logit_scale'])
        masks = given['masks']
        regions = Regions(masks > 0, None, (given['dense'],), mask_logits=masks)
        features = classifier.features(regions)
        key = f'{name}.clip_embedding'
        assert_close(features, tensors[key], what=key)
        key = f'{name}.out_vocab_logits'
        assert_close(classifier.logits(regions, with_void), tensors[key], what=key)
        head = small_head(
            rows.shape[1],
            channels=8,
            region_classifier=classifier,
            seen_weight=mode['alpha'],
            unseen_weight=mode['beta'],
            skip_uncovered=mode.get('valid_mask', False),
        )
        looked = classifier.logits(regions, queries)
        shares = head.shares(given['logits'], looked, queries.seen_mask, regions)
        undefined = name.startswith('underflow')
        key = f'{name}.log_scores'
        logs = (shares + 1e-8).log()
        assert_close(logs, tensors[key], what=key, undefined=undefined)
        found = head.named(
            given['logits'], masks, (1, 1), queries, None, (given['dense'],)
        )
        check_sums(golden, name, found, queries)


def check_sums(
    golden: GoldenFile, name: str, found: MaskScores, queries: ClassQueries
) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    mode = config['modes'][name]
    size = [32 * side for side in config['dense_hw']]
    rule = ScoringRule('mask_sum', 'max', (), None, False, 2)
    for index, (image, out) in enumerate(
        zip(config['image_hw'], config['out_hw'], strict=True)
    ):
        height, width = image
        own, meta = found.split(1)[index], dict(ori_shape=tuple(out))
        covered: Any = tuple(size)
        crop: Any = (height, width)
        if mode.get('before', True):
            masks = resize_maps(own.masks, covered, False)[..., :height, :width]
            own = MaskScores(to_original(masks, meta, False), own.class_scores)
            covered = crop = tuple(out)
        sums = MaskSums(own, queries, None, crop, covered, rule)
        scores = torch.cat([sums(classes) for classes in sums.chunks()], dim=1)
        scores = to_original(scores, meta, False)
        key = f'{name}.sem_seg.{index}'
        undefined = name.startswith('underflow')
        assert_close(scores[0], tensors[key], what=key, undefined=undefined)


# --------------------------------------------------------------------- a whole model


def segmentor_of(golden: GoldenFile, given: Mapping[str, Any]) -> nn.Module:
    """Build our config in small, with the recorded CLIP."""
    config = golden.json['config']
    resnet = config['clip']['type'] == 'rn'
    name = 'cocostuff_r50' if resnet else 'cocostuff_convnext_l'
    ours = Config.fromfile(CONFIGS / f'fcclip/{name}.py').model
    head = ours.decode_head
    assert config['mask_dim'] == config['conv_dim']
    clip = config['clip']
    widths = (
        [4 * clip['width'] * 2**level for level in range(4)] if resnet else clip['dims']
    )
    assert head.get('skip_uncovered', False) == config['valid_mask']
    decode_head = dict(
        head,
        in_channels=widths,
        channels=config['conv_dim'],
        num_queries=config['num_queries'],
        num_layers=config['dec_layers'],
        num_heads=config['nheads'],
        feedforward_channels=config['decoder_feedforward'],
        pixel_decoder_cfg=dict(
            num_layers=config['enc_layers'],
            num_heads=config['nheads'],
            feedforward_channels=config['encoder_feedforward'],
        ),
        seen_weight=config['alpha'],
        unseen_weight=config['beta'],
        loss_masks=loss_options(config['criterion']),
        region_classifier=dict(head.region_classifier, **given),
    )
    source = dict(ours.class_embeddings.source, cache=False, **given)
    bank = ClassEmbeddingBank(source, templates=ours.class_embeddings.templates)
    compacted(bank, config['clip']['token_ids'])
    classes = [piped(name) for name in config['train_classes']]
    model = MODELS.build(
        dict(
            type=ours.type,
            setting='supervised',
            split=dict(classes=classes, unseen=[]),
            backbone=dict(ours.backbone, **given),
            decode_head=decode_head,
            class_embeddings=bank,
            # Images are recorded in RGB.
            data_preprocessor=dict(ours.data_preprocessor, bgr_to_rgb=False),
            test_cfg=dict(mode='whole'),
        )
    )
    conversion = converted(golden.state(), model)
    assert set(conversion.missing) == {'_extra_state'}
    model.conversion = [conversion]
    return model


@check('fcclip_main', 'fcclip_main_rn')
def whole(golden: GoldenFile) -> None:
    """Compare with sums in the order of one thread or of two.

    Group norms of a few cells magnify what the order of sums leaves of the CLIP's maps,
    and a ReLU whose input lies within rounding of 0 has either of two gradients.
    """
    init_default_scope('mmseg')
    one_thread_or_two(lambda: check_whole(golden))


def check_whole(golden: GoldenFile) -> None:
    with recorded_clip(golden) as given:
        model = segmentor_of(golden, given)
        before = {k: v.clone() for k, v in model.state_dict().items() if k[0] != '_'}
        check_step(model, golden)
        after = model.state_dict()
        frozen = {k for k in before if 'visual' in k or 'region_classifier' in k}
        assert all(torch.equal(before[key], after[key]) for key in frozen)
        check_evaluation(segmentor_of(golden, given).eval(), golden)


#: A rounding error of float32, relative to the largest value.
ROUNDING = 6e-8


@torch.no_grad()
def magnified(model: nn.Module, maps: Sequence[Tensor], queries: ClassQueries) -> float:
    """Return how often the tolerance of outputs rounding errors of maps make up.

    At least 1; theirs and ours have errors of their own. Recordings of a narrow CLIP
    have maps of a few almost equal cells.
    """
    head, generator = model.decode_head, torch.Generator().manual_seed(0)

    def outputs(given: Sequence[Tensor]) -> list[Tensor]:
        found = head.find(given, queries, every=True)
        return [found.class_logits, found.masks]

    plain, largest = outputs(maps), 0.0
    for _ in range(4):
        noise = [
            each
            + ROUNDING * each.abs().max() * torch.randn(each.shape, generator=generator)
            for each in maps
        ]
        for before, after in zip(plain, outputs(noise), strict=True):
            moved = (after - before).abs().max() / before.abs().max()
            largest = max(largest, float(moved))
    return max(1.0, 2 * largest / TOLERANCE['output'])


def near(factor: float) -> Any:
    """Return ``assert_close`` with tolerances so many times as large."""

    def compare(
        actual: Any, reference: Any, kind: str = 'output', what: str = ''
    ) -> None:
        tolerance = factor * TOLERANCE[kind]
        assert_close(actual, reference, tolerance=tolerance, what=what)

    return compare


def check_rows(
    queries: ClassQueries, none: Tensor, recorded: Tensor, what: str
) -> None:
    rows = torch.cat([queries.embeddings, F.normalize(none, dim=-1)])
    assert_close(rows, recorded, what=what)


def check_step(model: nn.Module, golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    model.train()
    images = [tensors[f'train.image.{index}'] for index in range(config['B'])]
    samples = [
        sample
        for image in images
        for sample in samples_of(torch.zeros(1, *image.shape[1:]))
    ]
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), True)
    height, width = data['inputs'].shape[-2:]
    targets = []
    for index in range(config['B']):
        masks = tensors[f'train.gt.{index}'].bool()
        missing = (0, width - masks.shape[2], 0, height - masks.shape[1])
        labels = tensors[f'train.labels.{index}'].long()
        none = torch.zeros(height, width, dtype=torch.bool)
        targets.append(MaskTargets(labels, F.pad(masks, missing), none))
    maps = model.extract_feat(data['inputs'])
    for level, found in enumerate(maps, start=2):
        if (key := f'train.res{level}') in tensors:
            assert_close(found, tensors[key], what=key)
    head, queries = model.decode_head, model.training_queries()
    check_rows(queries, head.no_object, tensors['train.text'], 'train.text')
    close = near(magnified(model, maps, queries))
    outputs = head.training_outputs(maps, queries=queries)
    close(outputs.class_logits, tensors['train.logits'], what='train.logits')
    close(outputs.masks[-1], tensors['train.masks_last'], what='train.masks')
    loss = RecordedDraws(**loss_options(config['criterion']))
    points = tensors_of(tensors, 'train.points')
    loss.give(points, len(outputs.masks), config['B'])
    losses = loss(outputs.class_logits, outputs.masks, targets)
    assert not loss.left
    for key, value in losses.items():
        close(value, tensors[f'train.{key}'][0], what=f'train.{key}')
    for layer in range(len(outputs.masks)):
        for image, target in enumerate(targets):
            loss.left = [points[f'match.{layer}.{image}']]
            pairs = loss.match(
                outputs.class_logits[layer, image], outputs.masks[layer, image], target
            )
            recorded = tensors[f'train.match.{layer}.{image}'].long()
            assert torch.equal(torch.stack(pairs), recorded), (layer, image)
    total = sum(losses.values())
    close(total, tensors['train.total'][0], what='train.total')
    schedule = Config.fromfile(CONFIGS / '_base_/schedules/fcclip_368k.py')
    wrapper = build_optim_wrapper(model, schedule.optim_wrapper)
    total.backward()
    learned = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learned)
    norm = torch.stack([p.grad.norm() for p in learned]).norm()
    close(norm, tensors['train.grad_norm'][0], 'gradient', what='grad_norm')
    (conversion,) = model.conversion
    check_gradients(model, golden, conversion, close=close)
    wrapper.step()
    official = {old: new for new, old in conversion.sources.items()}
    state = model.state_dict()
    keys = [key for key in tensors if key.startswith('step.')]
    for key in keys:
        ours = state[official[key.removeprefix('step.')]]
        close(ours.reshape(tensors[key].shape), tensors[key], what=key)
    assert keys


def check_evaluation(model: nn.Module, golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    classes, trained = (
        [piped(name) for name in config[f'{kind}_classes']]
        for kind in ('test', 'train')
    )
    seen = exactly_seen(classes, trained)
    unseen = [name for name, known in zip(classes, seen, strict=True) if not known]
    model.set_classes(classes, unseen=unseen)
    head, image = model.decode_head, tensors['eval.image']
    check_rows(
        model.current_queries(), head.no_object, tensors['eval.text'], 'eval.text'
    )
    found: dict[str, Any] = {}
    shares, looks = head.shares, head.region_classifier.features
    head.shares = lambda *given: found.update(shares=shares(*given)) or found['shares']
    head.region_classifier.features = lambda *given: (
        found.update(look=looks(*given)) or found['look']
    )
    named = head.named
    head.named = lambda *given: found.update(given=given) or named(*given)
    inputs = model.data_preprocessor(
        dict(inputs=[image], data_samples=samples_of(torch.zeros(1, 1, 1))), False
    )['inputs']
    with torch.no_grad():
        maps = model.extract_feat(inputs)
    close = near(magnified(model, maps, model.current_queries()))
    for sums, key in (('original', 'eval.sem_seg'), ('input', 'eval.sem_seg_after')):
        (sample,) = samples_of(torch.zeros(1, *image.shape[1:]))
        sample.set_metainfo(
            dict(img_shape=image.shape[1:], ori_shape=tuple(config['eval_out']))
        )
        model.test_cfg = dict(mode='whole', mask_sums=sums, class_chunk=2)
        with torch.no_grad():
            (result,) = model.test_step(dict(inputs=[image], data_samples=[sample]))
        close(result.seg_logits.data, tensors[key], what=key)
        if sums == 'original':
            agree = result.pred_sem_seg.data[0] == tensors['eval.pred']
            best = tensors[key].topk(2, dim=0).values
            # Scores within rounding of each other have no order.
            assert (agree | (best[0] - best[1] < 1e-4 * best.abs().max())).all()
    logits, masks = found['given'][:2]
    close(logits, tensors['eval.logits'], what='eval.logits')
    close(masks, tensors['eval.masks'], what='eval.masks')
    assert_close(found['look'], tensors['eval.clip_embedding'], what='embedding')
    logs = (found['shares'] + 1e-8).log()[0]
    close(logs, tensors['eval.log_scores'], what='eval.log_scores')
