"""The keys of ESDA's official checkpoints."""

from __future__ import annotations

from .clip_parts import DROP_TEXT_TOWER
from .conversion import Rule

_BLOCK = r'resblocks\.0\.(.*)'


def esda_rules(num_blocks: int) -> list[Rule]:
    """Return what becomes of the keys of an official ESDA state dict.

    Args:
        num_blocks: blocks of its image tower.
    """
    return [
        *_low_rank_rules(num_blocks),
        Rule(r'image_encoder\.text_cls_proj\.(.*)', r'backbone.class_prompt.proj.\1'),
        Rule(r'image_encoder\.(.*)', r'backbone.visual.\1', "open_clip's names"),
        Rule(r'decoder\.text_embedding_proj\.(.*)', r'decode_head.text_proj.\1'),
        Rule(r'decoder\.text_img_concat_proj\.(.*)', r'decode_head.joint_proj.\1'),
        *(
            Rule(
                rf'decoder\.{theirs}\.(\d+)\.{_BLOCK}',
                rf'decode_head.interaction.{ours}.\1.\2',
            )
            for theirs, ours in (
                ('VL_interaction', 'joint'),
                ('IEE', 'image'),
                ('SSE', 'support'),
            )
        ),
        Rule(r'decoder\.res2\.([02])\.(.*)', r'decode_head.convs.\1.\2'),
        Rule(r'decoder\.cls\.0\.(.*)', r'decode_head.convs.4.\1'),
        Rule(r'decoder\.cls\.3\.(.*)', r'decode_head.conv_seg.\1'),
        DROP_TEXT_TOWER,
    ]


def _low_rank_rules(num_blocks: int) -> list[Rule]:
    """Return rules for ``prompt.{2 i}`` and ``prompt.{2 i + 1}`` of block ``i``."""
    return [
        Rule(
            rf'image_encoder\.prompt\.{2 * block + offset}',
            f'backbone.low_rank.{block}.{name}',
            'low-rank path',
        )
        for block in range(num_blocks)
        for offset, name in enumerate(('down', 'up'))
    ]
