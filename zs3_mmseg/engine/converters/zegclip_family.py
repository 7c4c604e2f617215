"""Official checkpoints of SPT-SEG, CLIP-RC and TagCLIP as checkpoints of this package.

The three were made from the code of ZegCLIP; each is known by a key that no other has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from zs3_mmseg.datasets.splits import ZeroShotSplit

from .core import KeyRule, OfficialWeights, register_converter
from .zegclip import (
    TOWER_RULES,
    UNUSED_RULES,
    ZegCLIPConverter,
    decoder_rules,
)

_NEVER = 'never used'
_Q_PROJ = KeyRule(r'decode_head\.q_proj\..*', r'\g<0>')


def spt_rules(num_layers: int) -> list[KeyRule]:
    """Return what becomes of the keys of an official SPT-SEG state dict."""
    layers, last = r'decode_head\.decoder_1\.layers\.', num_layers - 1
    ours = 'decode_head.decoder'
    return [
        KeyRule(r'backbone\.complex_weight', 'backbone.spectral.weight', 'the filter'),
        KeyRule(r'backbone\.proj_fre\..*', None, _NEVER),
        *TOWER_RULES,
        KeyRule(layers + r'\d+\.multihead_attn\..*', None, _NEVER),
        KeyRule(layers + r'\d+\.hlfs\.h_proj\..*', None, _NEVER),
        KeyRule(layers + rf'{last}\.hlfs\.proj\..*', None, 'no gradient reached it'),
        KeyRule(layers + rf'{last}\.hlfs\.(.*)', rf'{ours}.matching.filter.\1'),
        KeyRule(layers + r'(\d+)\.hlfs\.(proj\..*)', rf'{ours}.layers.\1.attn.\2'),
        KeyRule(layers + r'(\d+)\.hlfs\.(.*)', rf'{ours}.layers.\1.attn.filter.\2'),
        *decoder_rules('decode_head.decoder_1', ours, num_layers),
        _Q_PROJ,
        *UNUSED_RULES,
    ]


def clip_rc_rules() -> list[KeyRule]:
    """Return what becomes of the keys of an official CLIP-RC state dict."""
    places = {
        r'decoder_q\.layers\.': 'decoder.layers',
        r'decoder_v\.layers\.': 'decoder.memory_layers',
        r'recovery_decoder\.decouple_q\.': 'recovery.decouple_q',
        r'recovery_decoder\.decouple_v\.': 'recovery.decouple_v',
    }
    layers = []
    for theirs, ours in places.items():
        theirs, ours = rf'decode_head\.{theirs}', f'decode_head.{ours}'
        layers += [
            KeyRule(theirs + r'\d+\.(self_attn|norm1)\..*', None, _NEVER),
            KeyRule(theirs + r'(\d+)\.multihead_attn\.(.*)', rf'{ours}.\1.attn.\2'),
            KeyRule(theirs + r'(\d+\..*)', rf'{ours}.\1'),
        ]
    return [
        KeyRule(
            r'backbone\.region_level_bridge',
            'backbone.extra_tokens.tokens',
            'region tokens',
        ),
        *TOWER_RULES,
        *layers,
        KeyRule(r'decode_head\.recovery_decoder\.(.*)', r'decode_head.recovery.\1'),
        KeyRule(r'decode_head\.lateral_proj\.(.*)', r'decode_head.memory_proj.\1'),
        _Q_PROJ,
        *UNUSED_RULES,
    ]


def tagclip_rules(num_layers: int, self_attn_layers: tuple[int, ...]) -> list[KeyRule]:
    """Return what becomes of the keys of an official TagCLIP state dict."""
    looks = '|'.join(map(str, self_attn_layers)) or 'none'
    theirs, ours = 'decode_head.decoder', 'decode_head.decoder'
    layer = rf'decode_head\.decoder\.layers\.({looks})\.'
    own = rf'{ours}.self_attentions'
    return [
        *TOWER_RULES,
        KeyRule(r'decode_head\.disc_token', 'decode_head.trust_token', 'the token'),
        KeyRule(
            r'decode_head\.relationship_discriptor\.q_proj\.(.*)',
            r'decode_head.q_proj.\1',
        ),
        KeyRule(layer + r'self_attn\.(.*)', rf'{own}.\1.attn.\2'),
        KeyRule(layer + r'norm1\.(.*)', rf'{own}.\1.norm.\2'),
        *decoder_rules(theirs, ours, num_layers),
        *UNUSED_RULES,
    ]


@register_converter
class SPTSegConverter(ZegCLIPConverter):
    """Official SPT-SEG checkpoints with their text rows -> .pth.

    Whose settings of the loss and the training the file does not tell, and which nobody
    has released.
    """

    name: ClassVar[str] = 'spt_seg'
    help: ClassVar[str] = 'official SPT-SEG checkpoints (.pth) and text rows (.npy)'
    method: ClassVar[str] = 'SPT-SEG'
    marker: ClassVar[str | None] = 'backbone.complex_weight'

    def _tower_options(self, weights: OfficialWeights) -> dict[str, Any]:
        rows, columns = weights.shape('backbone.complex_weight', 4)[:2]
        # Only prompts that are drawn anew before each block let it act twice.
        deep = 'backbone.deep_prompt_embeddings' in weights
        deep = deep and 'backbone.prompt_embeddings' in weights
        grid = (rows, 2 * (columns - 1))
        return dict(spectral=dict(blocks=(0, 1) if deep else (0,), grid=grid))

    def _head(self, weights: OfficialWeights, dim: int) -> dict[str, Any]:
        loss = dict(type='NonExclusiveLoss', dice_weight=0.0, ssim_weight=1.0)
        # Of its attention, whatever the config of the authors says.
        heads = dict(num_heads=8)
        own = dict(attention='hilo', loss_decode=loss)
        return super()._head(weights, dim) | heads | own

    def _rules(self, head: Mapping[str, Any]) -> list[KeyRule]:
        return spt_rules(head['num_layers'])


@register_converter
class CLIPRCConverter(ZegCLIPConverter):
    """Official CLIP-RC checkpoints with their text rows -> .pth.

    Nothing in the file tells how many classes it was trained with: ``--setting`` does.
    """

    name: ClassVar[str] = 'clip_rc'
    help: ClassVar[str] = 'official CLIP-RC checkpoints (.pth) and text rows (.npy)'
    method: ClassVar[str] = 'CLIP-RC'
    marker: ClassVar[str | None] = 'backbone.region_level_bridge'
    decoder: ClassVar[str] = 'decode_head.decoder_q'

    def _tower_options(self, weights: OfficialWeights) -> dict[str, Any]:
        num_tokens = weights.shape('backbone.region_level_bridge', 2)[0]
        return dict(extra_tokens=dict(type='RegionTokens', num_tokens=num_tokens))

    def _head(self, weights: OfficialWeights, dim: int) -> dict[str, Any]:
        layers = weights.count('decode_head.recovery_decoder.decouple_q')
        return super()._head(weights, dim) | dict(
            query_context='groups',
            memory=('group', 'image', 'patch'),
            two_way=True,
            mask_from='dot',
            recovery=dict(num_layers=layers) if layers else None,
        )

    def _rules(self, head: Mapping[str, Any]) -> list[KeyRule]:
        return clip_rc_rules()


@register_converter
class TagCLIPConverter(ZegCLIPConverter):
    """Official TagCLIP checkpoints with their text rows -> .pth.

    One with a trusty token that was trained with seen classes only was told where
    unseen pixels are: its setting is ``unseen_location``.
    """

    name: ClassVar[str] = 'tagclip'
    help: ClassVar[str] = 'official TagCLIP checkpoints (.pth) and text rows (.npy)'
    method: ClassVar[str] = 'TagCLIP'
    marker: ClassVar[str | None] = 'decode_head.relationship_discriptor.q_proj.weight'
    decoder: ClassVar[str] = 'decode_head.decoder'

    def _head(self, weights: OfficialWeights, dim: int) -> dict[str, Any]:
        head = super()._head(weights, dim)
        layers = tuple(
            index
            for index in range(head['num_layers'])
            if f'{self.decoder}.layers.{index}.self_attn.in_proj_weight' in weights
        )
        trusty = dict(extra_query='trust') if _is_trusty(weights) else {}
        return head | dict(self_attn_layers=layers, **trusty)

    def _setting(
        self, weights: OfficialWeights, split: ZeroShotSplit, wanted: str | None
    ) -> str:
        if wanted == 'unseen_location' and _is_trusty(weights):
            return wanted
        found = super()._setting(weights, split, wanted)
        leaks = found == 'inductive' and _is_trusty(weights)
        return 'unseen_location' if leaks else found

    def _calibrators(self, weights: OfficialWeights, setting: str) -> list[dict]:
        gate = [dict(type='TrustGate')] if _is_trusty(weights) else []
        return super()._calibrators(weights, setting) + gate

    def _rules(self, head: Mapping[str, Any]) -> list[KeyRule]:
        return tagclip_rules(head['num_layers'], head['self_attn_layers'])


def _is_trusty(weights: OfficialWeights) -> bool:
    return 'decode_head.disc_token' in weights
