"""Official FC-CLIP checkpoints as checkpoints of this package."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from zs3_mmseg.models.towers import resolve_architecture
from zs3_mmseg.utils.checkpoint import safe_load, state_dict_of

from .core import (
    Conversion,
    Converter,
    KeyRule,
    OfficialWeights,
    apply_rules,
    as_text,
    empty_model,
    register_converter,
)

#: The CLIP of the main model.
PUBLISHED_CLIP = 'convnext_large_d_320'
#: Heads of both decoders, which no shape tells.
PUBLISHED_HEADS = 8
_DECODER, _PREDICTOR = 'sem_seg_head.pixel_decoder', 'sem_seg_head.predictor'
_MAPS = 4
#: Layers of the official names that make one layer of ours, and its norms.
_STEPS = (
    ('self_attention', r'self_attn\.(.*)', r'self_attn.\2', 'norm1'),
    ('cross_attention', r'multihead_attn\.(.*)', r'multihead_attn.\2', 'norm2'),
    ('ffn', r'(linear\d\..*)', r'\2', 'norm3'),
)


def fcclip_rules() -> list[KeyRule]:
    """Return what becomes of the keys of an official state dict."""
    clip, look = r'backbone\.clip_model', 'decode_head.region_classifier'
    predictor, head = r'sem_seg_head\.predictor', 'decode_head'
    query = f'{head}.query_decoder'
    return [
        KeyRule(rf'{clip}\.visual\.trunk\.head\.(.*)', rf'{look}.head.pool.\1'),
        KeyRule(rf'{clip}\.visual\.head\.(.*)', rf'{look}.head.project.\1'),
        KeyRule(rf'{clip}\.visual\.attnpool\.(.*)', rf'{look}.head.pool.\1'),
        KeyRule(rf'{clip}\.visual\.(.*)', r'backbone.visual.\1'),
        KeyRule(rf'{clip}\.logit_scale', f'{look}.logit_scale'),
        KeyRule(rf'{clip}\..*', None, 'the text tower is loaded from its own weights'),
        *_pixel_decoder_rules(),
        *(rule for step in _STEPS for rule in _layer_rules(*step)),
        KeyRule(rf'{predictor}\.decoder_norm\.(.*)', rf'{query}.norm.\1'),
        KeyRule(
            rf'{predictor}\.((?:query_feat|query_embed|level_embed|input_proj)\..*)',
            rf'{query}.\1',
        ),
        KeyRule(
            rf'{predictor}\._mask_pooling_proj\.(.*)', rf'{head}.pool_projection.\1'
        ),
        *(
            # A ReLU stands between two layers, and counts.
            KeyRule(
                rf'{predictor}\.{name}\.layers\.{layer}\.(.*)',
                rf'{ours}.{name}.{2 * layer}.\1',
                'counting',
            )
            for name, ours in (('mask_embed', query), ('class_embed', head))
            for layer in range(3)
        ),
        KeyRule(rf'{predictor}\.logit_scale', f'{head}.logit_scale'),
        KeyRule(r'void_embedding\.weight', f'{head}.no_object'),
        KeyRule(r'criterion\.empty_weight', None, 'decode_head.loss_masks'),
    ]


def _pixel_decoder_rules() -> list[KeyRule]:
    theirs, ours = r'sem_seg_head\.pixel_decoder', 'decode_head.pixel_decoder'
    renamed = {
        r'input_proj\.(\d+)\.0\.(.*)': r'input_proj.\1.conv.\2',
        r'input_proj\.(\d+)\.1\.(.*)': r'input_proj.\1.gn.\2',
        r'transformer\.(?:encoder\.)?(.*)': r'\1',
        r'adapter_1\.norm\.(.*)': r'lateral.gn.\1',
        r'adapter_1\.(.*)': r'lateral.conv.\1',
        r'layer_1\.norm\.(.*)': r'output.gn.\1',
        r'layer_1\.(.*)': r'output.conv.\1',
        r'(mask_features\..*)': r'\1',
    }
    return [KeyRule(rf'{theirs}\.{a}', f'{ours}.{b}') for a, b in renamed.items()]


def _layer_rules(kind: str, part: str, ours: str, norm: str) -> list[KeyRule]:
    theirs = rf'sem_seg_head\.predictor\.transformer_{kind}_layers\.(\d+)'
    layer = r'decode_head.query_decoder.layers.\1'
    return [
        KeyRule(rf'{theirs}\.{part}', f'{layer}.{ours}'),
        KeyRule(rf'{theirs}\.norm\.(.*)', rf'{layer}.{norm}.\2'),
    ]


def _model(weights: OfficialWeights, arch: str, num_heads: int) -> dict[str, Any]:
    """Return the config of the model whose shapes a file has."""
    cross = f'{_PREDICTOR}.transformer_cross_attention_layers'
    encoder = f'{_DECODER}.transformer.encoder.layers'
    num_queries, channels = weights.shape(f'{_PREDICTOR}.query_feat.weight', 2)
    # The last of the levels comes first.
    coarser = [
        weights.shape(f'{_DECODER}.input_proj.{level}.0.weight', 4)
        for level in range(_MAPS - 1)
    ]
    places = weights.shape(f'{encoder}.0.self_attn.attention_weights.weight', 2)[0]
    architecture = resolve_architecture(arch)
    is_resnet = 'timm_model_name' not in architecture.config['vision_cfg']
    return dict(
        backbone=dict(
            type='OpenCLIPResNet' if is_resnet else 'OpenCLIPConvNeXt', arch=arch
        ),
        decode_head=dict(
            type='FCCLIPHead',
            in_channels=[
                weights.shape(f'{_DECODER}.adapter_1.weight', 4)[1],
                *(shape[1] for shape in reversed(coarser)),
            ],
            channels=channels,
            embed_dim=weights.shape('void_embedding.weight', 2)[1],
            pixel_channels=coarser[0][0],
            pixel_decoder_cfg=dict(
                num_layers=weights.count(encoder),
                num_heads=num_heads,
                num_points=places // (num_heads * len(coarser)),
                feedforward_channels=weights.shape(f'{encoder}.0.linear1.weight', 2)[0],
            ),
            num_queries=num_queries,
            num_layers=weights.count(cross),
            num_heads=num_heads,
            feedforward_channels=weights.shape(
                f'{_PREDICTOR}.transformer_ffn_layers.0.linear1.weight', 2
            )[0],
            region_classifier=dict(type='ConvCLIPClassifier', arch=arch),
            skip_uncovered=is_resnet,
        ),
    )


_NOTES = (
    'It fits a model with the following parts; split, class_embeddings, which encode '
    'names with the same CLIP, and data_preprocessor are as in configs/fcclip.\n'
)


@register_converter
class FCCLIPConverter(Converter):
    """Official FC-CLIP checkpoints (.pth) -> .pth.

    CLIP's image tower is in these files and stays; its text tower is not kept. The
    report ends with the model config that the result fits.
    """

    name: ClassVar[str] = 'fcclip'
    help: ClassVar[str] = 'official FC-CLIP checkpoints (.pth)'
    suffix: ClassVar[str] = '.pth'

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the flags that tell what the file itself does not."""
        parser.add_argument(
            '--arch',
            default=PUBLISHED_CLIP,
            help='the CLIP it was trained with; "-quickgelu" belongs to the names of '
            "OpenAI's ResNets (default: %(default)s)",
        )
        parser.add_argument(
            '--heads',
            type=int,
            default=PUBLISHED_HEADS,
            help='attention heads of both decoders (default: %(default)s)',
        )

    def convert(self, source: Path, arguments: argparse.Namespace) -> Conversion:
        """Read the file and rename its keys.

        Raises:
            CheckpointError: if the file cannot be read or is no FC-CLIP checkpoint.
            ValueError: if ``--arch`` is no model of open_clip.
        """
        content = safe_load(source, trust=arguments.trust)
        # detectron2 writes the weights under this key.
        content = content.get('model', content)
        state = state_dict_of(content, str(source))
        what = f'{source} is no official FC-CLIP checkpoint'
        weights = OfficialWeights(state, what)
        model = _model(weights, arguments.arch, arguments.heads)
        target = empty_model(model).state_dict()
        conversion = apply_rules(state, fcclip_rules(), target)
        return replace(conversion, notes=_NOTES + as_text(model=model))
