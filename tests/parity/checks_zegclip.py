"""The whole ZegCLIP segmentor and its image encoder against the official code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from registry import GoldenFile, assert_close, check
from safetensors.torch import save_file
from torch import Tensor, nn

from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from zs3_mmseg.engine.converters import apply_rules
from zs3_mmseg.engine.converters.zegclip import zegclip_rules
from zs3_mmseg.models.class_embeddings import ClassEmbeddingBank, ClassEmbeddings


class FixedRows:
    """A bank that knows the recorded text rows, ``(C, E)`` or ``(C, P, E)``."""

    def __init__(self, names: Sequence[str], rows: Tensor) -> None:
        rows = rows.float().view(len(rows), -1, rows.shape[-1])
        self._rows = dict(zip(names, rows, strict=True))
        _, self.prompts_per_row, self.dim = rows.shape

    def embed(self, names: Sequence[str]) -> ClassEmbeddings:
        return ClassEmbeddings(
            embeddings=torch.cat([self._rows[name] for name in names]),
            query_to_class=torch.arange(len(names)),
            names=tuple(names),
            provenance={},
        )


def backbone_config(config: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """Translate the official options of an image encoder, and add some of ours."""
    arch = dict(
        embed_dim=config['output_dim'],
        quick_gelu=True,
        vision_cfg=dict(
            image_size=config['input_resolution'],
            patch_size=config['patch_size'],
            width=config['width'],
            head_width=config['width'] // config['heads'],
            layers=config['layers'],
        ),
        text_cfg=dict(context_length=4, vocab_size=8, width=8, heads=1, layers=1),
    )
    indices = tuple(config['out_indices'])
    prompts = None
    if 'num_tokens' in config:
        prompts = dict(
            num_tokens=config['num_tokens'], depth=config['total_d_layer'], dropout=0.0
        )
    return (
        dict(
            type='OpenCLIPViT',
            arch=arch,
            # One index means the projected tokens, several mean raw block outputs.
            out_indices=indices if len(indices) > 1 else (-1,),
            out_global=True,
            grid='floor',
            pos_interp='bilinear',
            cls_embed_twice=True,
            normalize=True,
            prompts=prompts,
        )
        | options
    )


def load_official(model: nn.Module, state: Mapping[str, Tensor], layers: int) -> None:
    """Load an official state dict; nothing may be left over or missing."""
    conversion = apply_rules(state, zegclip_rules(layers), tensors_of(model))
    # Shallow prompts leave the norm unused, and d < 0 has no first embeddings.
    assert conversion.complete, str(conversion)
    model.load_state_dict(conversion.state, strict=False)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}


def build_segmentor(
    config: Mapping[str, Any],
    names: Sequence[str],
    bank: Any,
    *,
    backbone: Mapping[str, Any] | None = None,
    **head_options: Any,
) -> nn.Module:
    """Build ours from the official config, dropouts off."""
    head, unseen = config['decode_head'], config['novel_class']
    inductive = not config['self_training'] and bool(unseen)
    setting = 'inductive' if inductive else 'transductive'
    if not unseen:
        setting = 'supervised'
    test_cfg = dict(config['test_cfg'], mask_size=head['img_size'])
    return MODELS.build(
        dict(
            type='ZeroShotEncoderDecoder',
            backbone=backbone_config(config['backbone'], **backbone or {}),
            decode_head=dict(
                type='ZegCLIPHead',
                num_layers=head['num_layers'],
                num_heads=head['num_heads'],
                dropout=0.0,
                project_patches=head.get('use_proj', False),
                loss_decode=dict(
                    type='NonExclusiveLoss',
                    mask_weight=head['loss_decode']['mask_weight'],
                    dice_weight=head['loss_decode']['dice_weight'],
                    loss_weight=head['loss_decode']['loss_weight'],
                ),
                **head_options,
            ),
            class_embeddings=bank,
            split=dict(classes=list(names), unseen=[names[i] for i in unseen]),
            setting=setting,
            calibrators=(
                [] if config['self_training'] else [dict(type='SeenShift', shift=0.1)]
            ),
            test_cfg=test_cfg,
        )
    )


def check_evaluation(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    model.eval()
    with torch.no_grad():
        maps, given = model._features(tensors['img'], model.current_queries())
        assert_close(maps[-1], tensors['eval.patch_feat'], what='patches')
        assert_close(
            given['global_token'], tensors['eval.global_feat'], what='global token'
        )
        scores = model.encode_decode(tensors['img'], [{}] * len(tensors['img']))
        assert_close(scores, tensors['eval.logits'], what='scores')
        for key in [k for k in tensors if k.endswith('.img') and k != 'img']:
            prefix = key.removesuffix('.img')
            if prefix.startswith('eval'):
                image = tensors[key]
                scores = model.encode_decode(image, [{}] * len(image))
                assert_close(scores, tensors[f'{prefix}.logits'], what=prefix)


def check_training_step(
    model: nn.Module, tensors: Mapping[str, Tensor], official: Mapping[str, str]
) -> list[Tensor]:
    """Check losses and gradients; return the masks that entered the losses."""
    model.train()
    samples = []
    for label, hidden in zip(
        tensors['train.gt'], hidden_labels(model, tensors['train.gt']), strict=True
    ):
        sample = SegDataSample()
        sample.gt_sem_seg = PixelData(data=torch.where(hidden, 254, label.long()))
        samples.append(sample)
    used, masks = [], []
    by_feat = model.decode_head.loss_by_feat

    def spy(outputs: Any, given: list[SegDataSample], *rest: Any, **more: Any) -> Any:
        masks.extend(outputs)
        used.extend((outputs[-1], *(sample.gt_sem_seg.data for sample in given)))
        return by_feat(outputs, given, *rest, **more)

    model.decode_head.loss_by_feat = spy
    losses = model.loss(tensors['img'], samples)
    del model.decode_head.loss_by_feat
    check_used(tensors, *used)
    for name, value in losses.items():
        # The official code logs the score path of OTSeg beside the head.
        theirs = name.replace('decode.score.', 'score.')
        assert_close(value, tensors[f'train.{theirs}'][0], what=name)
    total = sum(value for name, value in losses.items() if 'loss' in name)
    assert_close(total, tensors['train.total'][0], what='total loss')
    total.backward()
    parameters = dict(model.named_parameters())
    gradients = [key for key in tensors if key.startswith('grad.')]
    assert gradients
    for key in gradients:
        ours = official[key.removeprefix('grad.')]
        assert_close(parameters[ours].grad, tensors[key], 'gradient', what=key)
    return masks


def check_used(tensors: Mapping[str, Tensor], masks: Tensor, *labels: Tensor) -> None:
    """Compare masks and labels, pseudo-labels included, that the loss was made of."""
    if 'train.pred_masks' in tensors:
        recorded = tensors['train.pred_masks']
        assert_close(
            F.interpolate(masks, recorded.shape[-2:], mode='bilinear'), recorded
        )
    if 'train.gt_used' in tensors:
        recorded = tensors['train.gt_used']
        assert torch.equal(torch.cat(labels).view_as(recorded), recorded.long())


def hidden_labels(model: nn.Module, labels: Tensor) -> Tensor:
    """Pixels that the data set of a transductive training hands out unlabelled."""
    if model.setting != 'transductive':
        return torch.zeros_like(labels, dtype=torch.bool)
    return torch.isin(labels, torch.tensor(model.split.unseen_indices))


@check(
    'zegclip_inductive',
    'zegclip_transductive',
    'zegclip_supervised',
    'zegclip_use_proj',
)
def segmentor(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    rows = tensors['text_feat']
    names = [f'class{index}' for index in range(len(rows))]
    model = build_segmentor(config, names, FixedRows(names, rows))
    layers = config['decode_head']['num_layers']
    conversion = apply_rules(golden.state(), zegclip_rules(layers), tensors_of(model))
    load_official(model, golden.state(), layers)
    check_evaluation(model, tensors)
    official = {old: new for new, old in conversion.sources.items()}
    check_training_step(model, tensors, official)


@check('zegclip_slide')
def slide(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    rows = tensors['text_feat']
    names = [f'class{index}' for index in range(len(rows))]
    model = build_segmentor(config, names, FixedRows(names, rows)).eval()
    load_official(model, golden.state(), config['decode_head']['num_layers'])
    check_evaluation(model, tensors)
    image, original = tensors['slide.img'], tuple(golden.json['slide']['ori_shape'])
    sample = SegDataSample(
        metainfo=dict(
            ori_shape=original, img_shape=image.shape[2:], pad_shape=image.shape[2:]
        )
    )
    with torch.no_grad():
        scores = model.slide_inference(image, [sample.metainfo])
        result = model.predict(image, [sample])[0]
    assert_close(scores, tensors['slide.scores'], what='scores')
    rescaled = tensors['slide.scores_rescaled'][0]
    assert_close(result.seg_logits.data, rescaled, what='rescaled scores')
    assert torch.equal(result.pred_sem_seg.data[0], tensors['slide.pred'].long())


@check('zegclip_text_segmentor')
def from_names(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    sizes = config['text_encoder']
    arch = dict(
        backbone_config(config['backbone'])['arch'],
        text_cfg=dict(
            context_length=sizes['context_length'],
            vocab_size=sizes['vocab_size'],
            width=sizes['transformer_width'],
            heads=sizes['transformer_heads'],
            layers=sizes['transformer_layers'],
        ),
    )
    with TemporaryDirectory() as folder:
        tower = Path(folder) / 'text_tower.safetensors'
        save_file(golden.state('state.text_encoder.'), tower)
        bank = ClassEmbeddingBank(
            dict(type='clip_text', arch=arch, pretrained=str(tower), cache=False),
            templates='single',
        )
        model = build_segmentor(config, golden.json['class_names'], bank).eval()
        load_official(model, golden.state(), config['decode_head']['num_layers'])
        rows = model.current_queries().embeddings
    assert_close(rows, tensors['text_feat'], what='text rows')
    with torch.no_grad():
        scores = model.encode_decode(tensors['img'], [{}] * len(tensors['img']))
    assert_close(scores, tensors['logits'], what='scores')


@check('zegclip_backbone_variants')
def backbone_variants(golden: GoldenFile) -> None:
    tensors = golden.tensors()
    for name, variant in golden.json['variants'].items():
        model = MODELS.build(backbone_config(variant['config'])).eval()
        state = golden.state(f'{name}.state.') or golden.state(f'state.{name}.')
        prefixed = {f'backbone.{key}': value for key, value in state.items()}
        holder = nn.Module()
        holder.backbone = model
        load_official(holder, prefixed, 1)
        keys = [k for k in tensors if k.startswith(f'{name}.') and k.endswith('.img')]
        assert keys, name
        for key in keys:
            where = key.removesuffix('.img')
            with torch.no_grad():
                *maps, token = model(tensors[key])
            assert f'{where}.feat{len(maps)}' not in tensors
            for index, feature in enumerate(maps):
                assert_close(feature, tensors[f'{where}.feat{index}'], what=where)
            assert_close(token, tensors[f'{where}.global'], what=where)
