"""Official ESDA checkpoints as checkpoints of this package."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from zs3_mmseg.datasets.splits import plain_split, resolve_split
from zs3_mmseg.models.towers import Architecture, resolve_architecture
from zs3_mmseg.utils.checkpoint import safe_load, state_dict_of

from .clip import (
    DROP_TEXT_TOWER,
    TowerSizes,
    add_tower_arguments,
    encoded_rows,
    require_quick_gelu,
    text_tower,
)
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

#: The CLIP of OpenAI that ESDA was published with.
PUBLISHED_ARCH = 'ViT-B-16-quickgelu'
#: Blocks before which the published model replaces the class token.
PUBLISHED_REPLACE = (2, 3, 4)


def _architecture(
    weights: OfficialWeights, sizes: TowerSizes, arch: str | None
) -> Architecture:
    """Return the CLIP of a checkpoint; without a name it is the published one."""
    architecture = resolve_architecture(arch or PUBLISHED_ARCH)
    vision, text = (architecture.config[k] for k in ('vision_cfg', 'text_cfg'))
    text_width = weights.shape('text_encoder.token_embedding.weight', 2)[1]
    text_blocks = weights.count('text_encoder.transformer.resblocks')
    wrong = [
        f'{name} {theirs} instead of {ours}'
        for name, theirs, ours in (
            ('width', vision['width'], sizes.width),
            ('patch_size', vision['patch_size'], sizes.patch_size),
            ('num_blocks', vision['layers'], sizes.num_blocks),
            ('embed_dim', architecture.embed_dim, sizes.embed_dim),
            ('text_width', text['width'], text_width),
            ('text_blocks', text['layers'], text_blocks),
        )
        if theirs != ours
    ]
    if wrong:
        raise ValueError(
            f'{architecture.name} is not what the checkpoint was made from: it has '
            f'{", ".join(wrong)}. Say with --arch which CLIP it was'
        )
    return require_quick_gelu(architecture, 'ESDA')


def _parts(
    weights: OfficialWeights, sizes: TowerSizes, architecture: Architecture
) -> dict[str, Any]:
    """Return the config of the backbone and head that official weights fit.

    Which blocks replace the class token and give priors is not in the file: these are
    the published ones.
    """
    first = 'image_encoder.prompt.0'
    replaces = 'image_encoder.text_cls_proj.weight' in weights
    convs = tuple(
        weights.shape(f'decoder.{name}.weight', 4)[0]
        for name in ('res2.0', 'res2.2', 'cls.0')
    )
    head = {} if convs == (256, 128, 64) else dict(conv_channels=convs)
    return dict(
        backbone=sizes.backbone(
            architecture,
            out_indices=(sizes.num_blocks - 1,),
            low_rank=weights.shape(first, 2)[1] if first in weights else None,
            replace_cls=PUBLISHED_REPLACE if replaces else (),
            priors=tuple(range(sizes.num_blocks)),
        ),
        decode_head=dict(type='ESDAHead', **head),
    )


_BLOCK = r'resblocks\.0\.(.*)'


def esda_rules(num_blocks: int) -> list[KeyRule]:
    """Return what becomes of the keys of an official ESDA state dict.

    ``num_blocks`` counts those of its image tower.
    """
    return [
        *_low_rank_rules(num_blocks),
        KeyRule(
            r'image_encoder\.text_cls_proj\.(.*)', r'backbone.class_prompt.proj.\1'
        ),
        KeyRule(r'image_encoder\.(.*)', r'backbone.visual.\1', "open_clip's names"),
        KeyRule(r'decoder\.text_embedding_proj\.(.*)', r'decode_head.text_proj.\1'),
        KeyRule(r'decoder\.text_img_concat_proj\.(.*)', r'decode_head.joint_proj.\1'),
        *(
            KeyRule(
                rf'decoder\.{theirs}\.(\d+)\.{_BLOCK}',
                rf'decode_head.interaction.{ours}.\1.\2',
            )
            for theirs, ours in (
                ('VL_interaction', 'joint'),
                ('IEE', 'image'),
                ('SSE', 'support'),
            )
        ),
        KeyRule(r'decoder\.res2\.([02])\.(.*)', r'decode_head.convs.\1.\2'),
        KeyRule(r'decoder\.cls\.0\.(.*)', r'decode_head.convs.4.\1'),
        KeyRule(r'decoder\.cls\.3\.(.*)', r'decode_head.conv_seg.\1'),
        DROP_TEXT_TOWER,
    ]


def _low_rank_rules(num_blocks: int) -> list[KeyRule]:
    """Return rules for ``prompt.{2 i}`` and ``prompt.{2 i + 1}`` of block ``i``."""
    return [
        KeyRule(
            rf'image_encoder\.prompt\.{2 * block + offset}',
            f'backbone.low_rank.{block}.{name}',
            'low-rank path',
        )
        for block in range(num_blocks)
        for offset, name in enumerate(('down', 'up'))
    ]


#: Options of the bank that gives the rows.
_BANK: dict[str, Any] = dict(templates='bare', normalize=False, token_features=True)
_NOTES = (
    'It fits a model with the following parts. What the file does not tell is as in '
    'configs/esda: replace_cls, priors, the heads of the decoder, the '
    'data_preprocessor.\n'
)


@register_converter
class ESDAConverter(Converter):
    """Official ESDA checkpoints (.pth) -> .pth.

    The text of the split's class names is encoded here, once, with the text tower in
    the file, and goes into the result. Sizes are read from the shapes, and the report
    ends with the model config that the result fits.
    """

    name: ClassVar[str] = 'esda'
    help: ClassVar[str] = 'official ESDA checkpoints (.pth)'
    suffix: ClassVar[str] = '.pth'

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the flags that tell what the file itself does not."""
        parser.add_argument(
            '--split',
            required=True,
            help='the fold it was trained with: pascal5i_0 .. pascal5i_3, coco20i_0 .. '
            'coco20i_3, coco20i_contiguous_0 .. coco20i_contiguous_3',
        )
        add_tower_arguments(parser, 'the published one if it is left out')

    def convert(self, source: Path, arguments: argparse.Namespace) -> Conversion:
        """Read the file, rename its keys and add the rows of the class names.

        Raises:
            CheckpointError: if the file cannot be read or is no ESDA checkpoint.
            ValueError: if the flags do not fit the file.
            KeyError: if no split has the name.
        """
        content = safe_load(source, trust=arguments.trust)
        state = state_dict_of(content, str(source))
        weights = OfficialWeights(state, f'{source} is no official ESDA checkpoint')
        sizes = TowerSizes.of(weights, 'image_encoder')
        architecture = _architecture(weights, sizes, arguments.arch)
        split = resolve_split(arguments.split)
        setting = 'inductive' if split.unseen else 'supervised'
        out: Path | None = arguments.text_tower_out
        name = f'{source.stem}_text.safetensors' if out is None else out.name
        model = dict(
            type='ClassPromptedSegmentor',
            split=plain_split(split),
            setting=setting,
            **_parts(weights, sizes, architecture),
            class_embeddings=dict(
                type='ClassEmbeddingBank',
                source=dict(type='clip_text', arch=architecture.name, pretrained=name),
                **_BANK,
            ),
        )
        empty = empty_model(
            model, in_channels=sizes.width, embed_dim=sizes.embed_dim, num_heads=1
        )
        rules = esda_rules(sizes.num_blocks)
        conversion = apply_rules(state, rules, empty.state_dict())
        tower = text_tower(state, architecture, str(source))
        if not tower.complete:
            # Its report says which keys; rows cannot be made.
            return replace(conversion, files={Path('the text tower'): tower})
        rows = encoded_rows(tower, name, architecture, split, setting, _BANK)
        return replace(
            conversion,
            extra_state=dict(rows),
            classes=split.classes,
            files={} if out is None else {out: tower},
            notes=_NOTES + as_text(model=model),
        )
