"""The whole ESDA model against the official code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from registry import GoldenFile, assert_close, check
from torch import Tensor, nn

from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from zs3_mmseg.engine.converters import Conversion, apply_rules
from zs3_mmseg.engine.converters.esda import esda_rules
from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.towers import load_clip, text_features

#: Our losses, the official ones, and the weights of these in the total.
LOSSES = {
    'loss_ce': ('main_loss', 1.0),
    'loss_prior_last': ('aux_loss1', 0.2),
    'loss_prior_rest': ('aux_loss2', 0.1),
}


def architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(
        embed_dim=config['embed_dim'],
        quick_gelu=True,
        vision_cfg=dict(
            image_size=config['train_h'],
            patch_size=config['patch_size'],
            width=config['width'],
            head_width=config['width'] // config['heads'],
            layers=config['layers'],
        ),
        text_cfg=dict(
            context_length=config['context_length'],
            vocab_size=config['vocab_size'],
            width=config['transformer_width'],
            heads=config['transformer_heads'],
            layers=config['transformer_layers'],
        ),
    )


class Model(nn.Module):
    """Text tower, backbone and head, joined as the segmentor joins them."""

    def __init__(self, golden: GoldenFile, **head: Any) -> None:
        super().__init__()
        config, state = golden.json['config'], golden.state()
        low_rank = state.get('image_encoder.prompt.0')
        self.backbone = MODELS.build(
            dict(
                type='OpenCLIPViT',
                arch=architecture(config),
                out_indices=sorted(config['out_indices']),
                out_global=True,
                grid='floor',
                pos_interp='bilinear',
                cls_embed_twice=True,
                normalize=True,
                low_rank=None if low_rank is None else low_rank.shape[1],
                replace_cls=config['replace_indices'],
                priors=config['prior_indices'],
            )
        )
        self.decode_head = MODELS.build(
            dict(
                type='ESDAHead',
                in_channels=config['width'],
                embed_dim=config['embed_dim'],
                num_heads=config['heads'],
                dropout_ratio=0.0,
                **head,
            )
        )
        self.conversion = apply_rules(
            state, esda_rules(config['layers']), self.state_dict()
        )
        assert self.conversion.complete, str(self.conversion)
        self.load_state_dict(self.conversion.state)
        # Outside the module list: the text tower is no part of the checkpoint.
        self.text = [text_tower(config, golden.state('state.text_encoder.'))]

    def encode_text(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return text_features(self.text[0], tokens.long())

    def features(
        self, img: Tensor, tokens: Tensor, foreground: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        """Return the maps, and what else the head reads."""
        rows, text_tokens = self.encode_text(tokens)
        # Without a replaced class token, nothing in the tower reads the text.
        given = rows if self.backbone.replace_cls else None
        *maps, token = self.backbone(img, given, foreground)
        owners = torch.arange(len(rows))
        queries = ClassQueries(rows, owners, torch.ones(len(rows), dtype=torch.bool))
        return tuple(maps), dict(
            queries=queries, text_tokens=text_tokens, global_token=token
        )


def text_tower(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    model = load_clip(architecture(config)).model
    loaded = model.load_state_dict(state, strict=False)
    assert not loaded.unexpected_keys
    assert all(key.startswith(('visual.', 'logit_')) for key in loaded.missing_keys)
    return model


def final(logits: Tensor, img: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Resize logits as the official model does at its end."""
    if config['zoom_factor'] == 1:
        return logits
    return nn.functional.interpolate(
        logits, size=img.shape[2:], mode='bilinear', align_corners=True
    )


@contextmanager
def recorded_inputs(**modules: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Keep the input of some modules."""
    seen: dict[str, Tensor] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _, args, name=name: seen.update({name: args[0]})
        )
        for name, module in modules.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def compare(tensors: Mapping[str, Tensor], where: str, **ours: Tensor) -> None:
    """Compare values with those that were recorded of them."""
    for name, value in ours.items():
        if f'{where}.{name}' in tensors:
            assert_close(value, tensors[f'{where}.{name}'], what=f'{where}.{name}')


def by_number(name: str, values: Iterable[Tensor]) -> dict[str, Tensor]:
    return {f'{name}{index}': value for index, value in enumerate(values)}


def check_evaluation(model: Model, golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    head, img, tokens = model.decode_head, tensors['img'], tensors['tokens']
    rows, text_tokens = model.encode_text(tokens)
    compare(tensors, 'eval', text_cls=rows, text_tokens=text_tokens)
    blocks = head.interaction
    inside = dict(
        support0=blocks.support[0].ln_1,
        image0=blocks.image[0].ln_1,
        image1=blocks.image[1].ln_1,
        conv=head.convs,
    )
    with torch.no_grad(), recorded_inputs(**inside) as seen:
        maps, given = model.features(img, tokens)
        logits = head.forward(maps, **given)
    *features, priors = maps
    compare(tensors, 'eval', **by_number('img_feat', features))
    compare(tensors, 'eval', **by_number('prior', priors.split(1, dim=1)))
    compare(
        tensors,
        'eval',
        img_cls=given['global_token'],
        # The official code has the tokens first.
        vl0_out=torch.cat([seen['support0'], seen['image0']], dim=1).transpose(0, 1),
        iee0_in=seen['image0'].transpose(0, 1),
        iee1_in=seen['image1'].transpose(0, 1),
        conv_in=seen['conv'],
        dec_low=logits,
    )
    assert_close(final(logits, img, config), tensors['eval.logits'], what='logits')


def check_labels_do_not_matter(model: Model, golden: GoldenFile) -> None:
    """Only training knows the foreground; its prototypes change no prediction."""
    img, tokens = (golden.tensors()[key] for key in ('img', 'tokens'))
    foreground = torch.zeros(len(img), *img.shape[2:], dtype=torch.bool)
    foreground[:, : img.shape[2] // 2] = True
    with torch.no_grad():
        maps, given = model.features(img, tokens)
        told, _ = model.features(img, tokens, foreground)
        for ours, theirs in zip(maps[:-1], told[:-1], strict=True):
            assert torch.equal(ours, theirs)
        if model.backbone.priors[-1] == golden.json['config']['layers'] - 1:
            predictions = [model.decode_head.forward(m, **given) for m in (maps, told)]
            assert torch.equal(*predictions)


def token_row(golden: GoldenFile, where: str) -> int:
    """Return the row of tokens that an ``eval_bN`` was recorded with.

    N counts the inputs and says nothing about the row.
    """
    about = golden.json.get('tensors', {}).get(f'{where}.img', {})
    said = re.search(r'token row (\d+)', about.get('meaning', ''))
    return int(said[1]) if said else 0


def check_other_inputs(model: Model, golden: GoldenFile) -> None:
    """Images of other sizes, all of one input with the same tokens."""
    config, tensors = golden.json['config'], golden.tensors()
    for key in [k for k in tensors if k.startswith('eval_b') and k.endswith('.img')]:
        where, img = key.removesuffix('.img'), tensors[key]
        tokens = tensors['tokens'][token_row(golden, where)].expand(len(img), -1)
        with torch.no_grad():
            maps, given = model.features(img, tokens)
            logits = model.decode_head.forward(maps, **given)
        compare(tensors, where, dec_low=logits, prior_last=maps[-1][:, -1:])
        assert_close(final(logits, img, config), tensors[f'{where}.logits'], what=where)


def samples_of(labels: Tensor) -> list[SegDataSample]:
    samples = []
    for label in labels:
        sample = SegDataSample()
        sample.gt_sem_seg = PixelData(data=label[None])
        samples.append(sample)
    return samples


def check_training_step(model: Model, golden: GoldenFile) -> None:
    tensors = golden.tensors()
    model.train()
    head, labels = model.decode_head, tensors['train.gt'].long()
    kept = labels.clone()
    maps, given = model.features(
        tensors['img'], tensors['tokens'], head.foreground(labels)
    )
    logits = head.forward(maps, **given)
    *features, priors = maps
    compare(tensors, 'train', dec_low=logits, **by_number('img_feat', features))
    compare(tensors, 'train', **by_number('prior', priors.split(1, dim=1)))
    prediction = final(logits, tensors['img'], golden.json['config']).argmax(dim=1)
    assert torch.equal(prediction, tensors['train.pred'].long())
    losses = head.loss(maps, samples_of(labels), None, **given)
    assert torch.equal(labels, kept), 'the labels were changed'
    for ours, (theirs, weight) in LOSSES.items():
        recorded = weight * tensors[f'train.{theirs}'][0]
        assert_close(losses[ours], recorded, what=ours)
    total = sum(losses[name] for name in LOSSES)
    assert_close(total, tensors['train.total'][0], what='total loss')
    total.backward()
    check_gradients(model, model.conversion, golden)


def check_gradients(model: Model, conversion: Conversion, golden: GoldenFile) -> None:
    parameters = dict(model.named_parameters())
    official = {old: new for new, old in conversion.sources.items()}
    tensors = golden.tensors()
    for key in [k for k in tensors if k.startswith('grad.')]:
        ours = official[key.removeprefix('grad.')]
        assert_close(parameters[ours].grad, tensors[key], 'gradient', what=key)
    trainable = golden.json.get('trainable_parameters')
    if trainable is not None:
        learning = {n for n, p in parameters.items() if p.requires_grad}
        assert learning == {official[name] for name in trainable}
    for key, norm in golden.json.get('grad_norms', {}).items():
        gradient = parameters[official[key]].grad
        assert_close(gradient.norm(), norm, 'gradient', what=f'norm of {key}')


@check('esda_main', 'esda_noprompt')
def model(golden: GoldenFile) -> None:
    model = Model(golden).eval()
    check_evaluation(model, golden)
    check_labels_do_not_matter(model, golden)
    check_other_inputs(model, golden)
    if 'train.gt' in golden.tensors():
        check_training_step(model, golden)
