"""The keys of ZegCLIP's official checkpoints."""

from __future__ import annotations

from .conversion import Rule

_NO_GRADIENT = 'no gradient ever reached it'


def zegclip_rules(num_layers: int) -> list[Rule]:
    """Return what becomes of the keys of an official ZegCLIP state dict.

    Args:
        num_layers: layers of its mask decoder.
    """
    decoder = r'decode_head\.decoder_1\.layers\.'
    last = num_layers - 1
    return [
        Rule(r'backbone\.((deep_)?prompt_.*)', r'backbone.prompts.\1', 'prompts'),
        Rule(r'backbone\.(.*)', r'backbone.visual.\1', "open_clip's names"),
        Rule(decoder + r'\d+\.(self_attn|norm1)\..*', None, 'never used'),
        Rule(
            decoder + rf'{last}\.multihead_attn\.([qk])\.(.*)',
            r'decode_head.decoder.matching.\1.\2',
            'the last layer only matches',
        ),
        Rule(decoder + rf'{last}\..*', None, _NO_GRADIENT),
        Rule(
            decoder + r'(\d+)\.multihead_attn\.(.*)',
            r'decode_head.decoder.layers.\1.attn.\2',
        ),
        Rule(decoder + r'(\d+\..*)', r'decode_head.decoder.layers.\1'),
        Rule(r'decode_head\.(input_proj|proj_norm)_1\.(.*)', r'decode_head.\1.\2'),
        Rule(r'decode_head\.q_proj\..*', r'\g<0>'),
        Rule(
            r'decode_head\.loss_decode\.criterion\.empty_weight',
            None,
            'a constant of the loss that is never read',
        ),
        Rule(r'text_encoder\..*', None, 'the rows it gave are kept instead'),
    ]
