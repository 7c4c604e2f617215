"""Official checkpoints of ZegCLIP and its family as checkpoints of this package."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from zs3_mmseg.datasets.splits import (
    NameFinder,
    ZeroShotSplit,
    plain_split,
    resolve_split,
)
from zs3_mmseg.datasets.splits.zero_shot_split import SETTINGS
from zs3_mmseg.models.class_embeddings import ClassEmbeddingBank, ClassEmbeddings
from zs3_mmseg.models.segmentors.vocabulary import row_state, rows_by_class
from zs3_mmseg.models.towers import Architecture, resolve_architecture
from zs3_mmseg.utils.checkpoint import CheckpointError, safe_load, state_dict_of
from zs3_mmseg.utils.origins import CASCADE_ROWS, OTSEG_ROWS, ZEGCLIP_ROWS

from .clip import (
    DROP_TEXT_TOWER,
    TowerSizes,
    add_tower_arguments,
    require_quick_gelu,
    text_tower,
)
from .core import (
    CONVERTERS,
    Conversion,
    Converter,
    KeyRule,
    OfficialWeights,
    apply_rules,
    as_text,
    empty_model,
    register_converter,
)

_DECODER = 'decode_head.decoder_1'
#: The decoders of Cascade-CLIP, of which the last reads the last layer.
_CASCADE = 'decode_head.cascade_decoders'
_EMPTY_WEIGHT = 'decode_head.loss_decode.criterion.empty_weight'
#: CLIP models of OpenAI that are ViTs. L/14 at 336 pixels differs from L/14 in its
#: positions alone.
_OPENAI = ('ViT-B-16-quickgelu', 'ViT-B-32-quickgelu', 'ViT-L-14-quickgelu')


def _architecture(sizes: TowerSizes, arch: str | None, method: str) -> Architecture:
    """Return the CLIP of a checkpoint; without a name it is one of OpenAI's."""
    if arch is not None:
        return require_quick_gelu(resolve_architecture(arch), method)
    ours = (sizes.width, sizes.patch_size, sizes.num_blocks, sizes.embed_dim)
    for architecture in map(resolve_architecture, _OPENAI):
        vision = architecture.config['vision_cfg']
        theirs = (vision['width'], vision['patch_size'], vision['layers'])
        if (*theirs, architecture.embed_dim) == ours:
            return architecture
    raise ValueError(
        f'no CLIP of OpenAI has {sizes.num_blocks} blocks of width {sizes.width}, '
        f'patches of {sizes.patch_size} pixels and an embedding of {sizes.embed_dim}: '
        'say with --arch what the checkpoint was made from'
    )


def _prompts(weights: OfficialWeights) -> dict[str, int] | None:
    """Return the options of the prompt tokens, None if there are none."""
    deep, first = 'backbone.deep_prompt_embeddings', 'backbone.prompt_embeddings'
    if deep in weights:
        depth, num_tokens, _ = weights.shape(deep, 3)
        # A negative depth counts the last blocks, which have no first prompts.
        return dict(num_tokens=num_tokens, depth=depth if first in weights else -depth)
    if first in weights:
        return dict(num_tokens=weights.shape(first, 3)[1], depth=0)
    return None


_NO_GRADIENT = 'no gradient ever reached it'
_NOTES = (
    'It fits a model with the following parts. What the file does not tell is as in '
    'configs/zegclip: the heads of the decoder, the data_preprocessor, the test_cfg.\n'
)


def decoder_rules(theirs: str, ours: str, num_layers: int) -> list[KeyRule]:
    """Return what becomes of the keys below one decoder."""
    decoder = re.escape(theirs) + r'\.layers\.'
    last = num_layers - 1
    return [
        KeyRule(decoder + r'\d+\.(self_attn|norm1)\..*', None, 'never used'),
        KeyRule(
            decoder + rf'{last}\.multihead_attn\.([qk])\.(.*)',
            rf'{ours}.matching.\1.\2',
            'the last layer only matches',
        ),
        KeyRule(
            decoder + rf'{last}\.(multihead_attn\.(v|proj)|linear[12]|norm[23])\..*',
            None,
            _NO_GRADIENT,
        ),
        KeyRule(
            decoder + r'(\d+)\.multihead_attn\.(.*)',
            rf'{ours}.layers.\1.attn.\2',
        ),
        KeyRule(decoder + r'(\d+\..*)', rf'{ours}.layers.\1'),
    ]


TOWER_RULES = [
    KeyRule(r'backbone\.((deep_)?prompt_.*)', r'backbone.prompts.\1', 'prompts'),
    KeyRule(r'backbone\.(.*)', r'backbone.visual.\1', "open_clip's names"),
]
UNUSED_RULES = [
    KeyRule(
        r'decode_head\.loss_decode\.criterion\.empty_weight',
        None,
        'a constant of the loss that is never read',
    ),
    DROP_TEXT_TOWER,
]


def zegclip_rules(num_layers: int) -> list[KeyRule]:
    """Return what becomes of the keys of an official ZegCLIP or OTSeg state dict.

    ``num_layers`` counts those of its mask decoder.
    """
    return [
        *TOWER_RULES,
        *decoder_rules(_DECODER, 'decode_head.decoder', num_layers),
        KeyRule(r'decode_head\.(input_proj|proj_norm)_1\.(.*)', r'decode_head.\1.\2'),
        KeyRule(r'decode_head\.q_proj\..*', r'\g<0>'),
        *UNUSED_RULES,
    ]


def cascade_rules(num_layers: int, num_decoders: int = 3) -> list[KeyRule]:
    """Return what becomes of the keys of an official Cascade-CLIP state dict.

    The last of its decoders reads the last layer, the others groups of taps.
    ``num_layers`` counts those of each.
    """
    last = num_decoders - 1
    heads = [f'decode_head.tap_groups.{group}' for group in range(last)]
    heads.append('decode_head')
    rules = [
        KeyRule(r'backbone\.ln_layers\.(.*)', r'backbone.taps.norms.\1', 'of taps'),
        KeyRule(r'backbone\.proj_layers', 'backbone.taps.projections', 'of taps'),
        *TOWER_RULES,
    ]
    for group, head in enumerate(heads):
        rules += decoder_rules(f'{_CASCADE}.{group}', f'{head}.decoder', num_layers)
        rules += [
            KeyRule(
                rf'decode_head\.q_projs\.{group}\.(.*)', rf'{head}.q_proj.\1', 'queries'
            ),
            KeyRule(
                rf'decode_head\.weights_s{group + 1}', f'{head}.weights', 'of taps'
            ),
        ]
    return rules + UNUSED_RULES


@register_converter
class ZegCLIPConverter(Converter):
    """Official ZegCLIP checkpoints (mmcv 1.x, .pth) with their text rows -> .pth.

    The class embeddings go into the result as they are in the official .npy files, so
    that scores come out to the last digit. Sizes are read from the shapes, and the
    report ends with the model config that the result fits.
    """

    name: ClassVar[str] = 'zegclip'
    help: ClassVar[str] = 'official ZegCLIP checkpoints (.pth) and text rows (.npy)'
    method: ClassVar[str] = 'ZegCLIP'
    #: Where the official rows are.
    rows_origin: ClassVar[str] = ZEGCLIP_ROWS
    suffix: ClassVar[str] = '.pth'

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the flags that tell what the file itself does not."""
        parser.add_argument(
            '--split',
            required=True,
            help='the split it was trained with: a name such as voc12_15_5, or a JSON '
            'file with classes and unseen',
        )
        parser.add_argument(
            '--text-rows',
            type=Path,
            required=True,
            metavar='FILE.npy',
            help='the class embeddings it was trained with, one row for each class of '
            'the split, seen and unseen. They stand in the order of the class names '
            'in the checkpoint (or else of the split), or are named by a list in '
            'FILE.json beside it',
        )
        parser.add_argument(
            '--setting',
            choices=SETTINGS,
            help='how it was trained; needed where the number of classes leaves two '
            'possibilities',
        )
        add_tower_arguments(parser, 'found by its sizes if it is an OpenAI model')

    def convert(self, source: Path, arguments: argparse.Namespace) -> Conversion:
        """Read the file, rename its keys and add its rows.

        Raises:
            CheckpointError: if the file cannot be read or is no ZegCLIP checkpoint.
            ValueError: if the flags do not fit each other or the file.
            KeyError: if no split has the name.
            FileNotFoundError: if a file does not exist.
        """
        content = safe_load(source, trust=arguments.trust)
        state = state_dict_of(content, str(source))
        what = f'{source} is no official {self.method} checkpoint'
        weights = OfficialWeights(state, what)
        _require_method(type(self), weights)
        sizes = TowerSizes.of(weights, 'backbone')
        architecture = _architecture(sizes, arguments.arch, self.method)
        split = _read_split(arguments.split)
        setting = self._setting(weights, split, arguments.setting)
        prompts = _prompts_per_row(arguments.text_rows)
        if prompts > 1 and self.name != OTSegConverter.name:
            raise ValueError(
                f'--text-rows {arguments.text_rows} has {prompts} rows for each class, '
                f'as those of OTSeg have: convert it with {OTSegConverter.name}'
            )
        meta = content.get('meta')
        rows = _rows(arguments.text_rows, split, meta, prompts, self.rows_origin)
        if rows.embeddings.shape[1] != sizes.embed_dim:
            raise ValueError(
                f'the rows of {arguments.text_rows} have {rows.embeddings.shape[1]} '
                f'columns, and {source} needs {sizes.embed_dim}'
            )
        model: dict[str, Any] = dict(
            type='ZeroShotEncoderDecoder',
            split=plain_split(split),
            setting=setting,
            backbone=sizes.backbone(
                architecture, prompts=_prompts(weights), **self._tower_options(weights)
            ),
            decode_head=self._head(weights, sizes.embed_dim),
            calibrators=self._calibrators(weights, setting),
            class_embeddings=dict(
                type='ClassEmbeddingBank',
                source=dict(
                    type='tensor', path=str(arguments.text_rows), **_apart(prompts)
                ),
                normalize=False,
            ),
        )
        heads = model['decode_head'].get('num_heads', 1)
        empty = empty_model(model, in_channels=sizes.embed_dim, num_heads=heads)
        rules = self._rules(model['decode_head'])
        conversion = apply_rules(state, rules, empty.state_dict())
        files = {}
        if arguments.text_tower_out is not None:
            files[arguments.text_tower_out] = text_tower(
                state, architecture, str(source), ': leave --text-tower-out out'
            )
        parts = rows_by_class(
            rows.embeddings, rows.query_to_class, len(split.classes), prompts
        )
        return replace(
            conversion,
            extra_state=dict(
                row_state(split, setting, parts, rows.provenance, prompts)
            ),
            classes=split.classes,
            files=files,
            notes=_NOTES + as_text(model=model),
        )

    #: A key that the checkpoints of no other method have; None: nothing tells them.
    marker: ClassVar[str | None] = None
    #: Where the layers of a decoder are; of several decoders those of the first.
    decoder: ClassVar[str] = _DECODER

    def _head(self, weights: OfficialWeights, dim: int) -> dict[str, Any]:
        """Return the config of the head that official weights fit."""
        layers = f'{self.decoder}.layers'
        head = dict(type='ZegCLIPHead', num_layers=weights.count(layers))
        ffn_dim = weights.shape(f'{layers}.0.linear1.weight', 2)[0]
        if ffn_dim != 4 * dim:
            head['ffn_dim'] = ffn_dim
        if 'decode_head.input_proj_1.weight' in weights:
            head['project_patches'] = True
        return head

    def _tower_options(self, weights: OfficialWeights) -> dict[str, Any]:
        """Return what the tower has beyond ZegCLIP's."""
        return {}

    def _rules(self, head: Mapping[str, Any]) -> list[KeyRule]:
        """Return what becomes of the keys, for the config of a head."""
        return zegclip_rules(head['num_layers'])

    def _setting(
        self, weights: OfficialWeights, split: ZeroShotSplit, wanted: str | None
    ) -> str:
        """Return the setting of the training, or refuse to guess it."""
        if wanted == 'unseen_location':
            raise ValueError(
                '--setting unseen_location is for TagCLIP with its trusty token, which '
                'this checkpoint has not'
            )
        return _setting(weights, split, wanted)

    def _calibrators(self, weights: OfficialWeights, setting: str) -> list[dict]:
        """Return the calibrators of the official test."""
        shift = dict(type='SeenShift', shift=0.1)
        return [] if setting == 'transductive' else [shift]


@register_converter
class OTSegConverter(ZegCLIPConverter):
    """Official OTSeg checkpoints with their text rows ``(C, P, E)`` -> .pth.

    Keys and shapes are ZegCLIP's, so nothing in the file tells the two apart: only the
    name of this converter does, and the rows, several of each class.
    """

    name: ClassVar[str] = 'otseg'
    help: ClassVar[str] = 'official OTSeg checkpoints (.pth) and text rows (.npy)'
    method: ClassVar[str] = 'OTSeg'
    rows_origin: ClassVar[str] = OTSEG_ROWS

    def _head(self, weights: OfficialWeights, dim: int) -> dict[str, Any]:
        return super()._head(weights, dim) | dict(
            attention='sinkhorn',
            mask_from='plan',
            merge_layers='gate',
            score_path='sinkhorn',
        )


@register_converter
class CascadeCLIPConverter(ZegCLIPConverter):
    """Official Cascade-CLIP checkpoints with their text rows -> .pth.

    The random projections of the taps are part of the file and of the result. Which
    blocks are tapped is not in it: those before the last one, as published.
    """

    name: ClassVar[str] = 'cascade_clip'
    help: ClassVar[str] = 'official Cascade-CLIP checkpoints (.pth), text rows (.npy)'
    method: ClassVar[str] = 'Cascade-CLIP'
    rows_origin: ClassVar[str] = f'{CASCADE_ROWS}, or {ZEGCLIP_ROWS}'
    marker: ClassVar[str | None] = f'{_CASCADE}.0.layers.0.linear1.weight'
    decoder: ClassVar[str] = f'{_CASCADE}.0'

    def _tower_options(self, weights: OfficialWeights) -> dict[str, Any]:
        taps = weights.shape('backbone.proj_layers', 3)[0]
        last = weights.count('backbone.transformer.resblocks') - 1
        return dict(
            out_indices=(*range(last - taps, last), -1),
            tap_projection='frozen_random',
        )

    def _head(self, weights: OfficialWeights, dim: int) -> dict[str, Any]:
        sizes = [
            weights.shape(f'decode_head.weights_s{group}', 1)[0]
            for group in range(1, weights.count(_CASCADE))
        ]
        starts = [sum(sizes[:group]) for group in range(len(sizes))]
        groups = tuple(
            tuple(range(start, start + size))
            for start, size in zip(starts, sizes, strict=True)
        )
        return super()._head(weights, dim) | dict(tap_groups=groups)

    def _rules(self, head: Mapping[str, Any]) -> list[KeyRule]:
        return cascade_rules(head['num_layers'])


def _require_method(
    converter: type[ZegCLIPConverter], weights: OfficialWeights
) -> None:
    """Refuse a checkpoint that another converter of the family is for."""
    family = [one for one in CONVERTERS.values() if issubclass(one, ZegCLIPConverter)]
    found = next(
        (one for one in family if one.marker and one.marker in weights),
        ZegCLIPConverter,
    )
    if found.marker != converter.marker:
        marker = found.marker or converter.marker
        raise CheckpointError(
            f'{weights.what}: it has {"its" if found.marker else "no"} {marker} of '
            f'{(found if found.marker else converter).method}; convert it with '
            f'{found.name}'
        )


def _prompts_per_row(path: Path) -> int:
    """Return how many rows a file has for each class; 1 if it is none of rows."""
    try:
        shape = np.load(path, mmap_mode='r', allow_pickle=False).shape
    except (ValueError, OSError, EOFError):
        return 1  # whoever reads its rows says what is wrong
    return shape[1] if len(shape) == 3 else 1


def _apart(prompts: int) -> dict[str, int]:
    return dict(prompts_per_row=prompts) if prompts > 1 else {}


def _read_split(given: str) -> ZeroShotSplit:
    """Return a split by its name or from a JSON file."""
    if not given.endswith('.json'):
        return resolve_split(given)
    try:
        return resolve_split(json.loads(Path(given).read_text(encoding='utf-8')))
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise ValueError(f'--split {given}: {error}') from error


def _setting(weights: OfficialWeights, split: ZeroShotSplit, wanted: str | None) -> str:
    """Return the setting of the training, of which the number of classes may tell."""
    known = _EMPTY_WEIGHT in weights
    num_trained = weights.shape(_EMPTY_WEIGHT, 1)[0] - 1 if known else None
    seen, every = len(split.seen), len(split.classes)
    if num_trained not in (None, seen, every):
        raise ValueError(
            f'the checkpoint was trained with {num_trained} classes, but split '
            f'{split.name!r} has {seen} seen ones of {every}: --split names another'
        )
    impossible = {seen: 'supervised', every: 'inductive'} if split.unseen else {}
    if wanted is not None:
        if num_trained is not None and impossible.get(num_trained) == wanted:
            raise ValueError(
                f'--setting {wanted} cannot be: the checkpoint was trained with '
                f'{num_trained} classes, and split {split.name!r} has {seen} seen ones '
                f'of {every}'
            )
        return wanted
    if not split.unseen:
        return 'supervised'
    if num_trained == seen:
        return 'inductive'
    raise ValueError(
        'the file does not tell how it was trained'
        + (f' with {every} classes' if num_trained else '')
        + ': say --setting transductive or supervised'
        + ('' if num_trained else ' or inductive')
    )


def _rows(
    path: Path, split: ZeroShotSplit, meta: object, prompts: int, origin: str
) -> ClassEmbeddings:
    """Read the official rows, which are used as they are.

    mmseg 0.x saved the class names as ``CLASSES`` in the ``meta`` of a checkpoint.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f'--text-rows {path} does not exist; the official files are in {origin}'
        )
    saved = meta.get('CLASSES') if isinstance(meta, Mapping) else None
    names = None
    if saved and not path.with_suffix('.json').is_file():
        names = _as_in_split([str(name) for name in saved], split, path)
    source = dict(type='tensor', path=str(path), names=names, **_apart(prompts))
    return ClassEmbeddingBank(source, normalize=False).embed(split.classes)


def _as_in_split(
    saved: Sequence[str], split: ZeroShotSplit, path: Path
) -> tuple[str, ...]:
    """Spell the class names of a checkpoint as its split does."""
    finder = NameFinder(split.classes)
    places = [finder.find(name) for name in saved]
    unknown = [n for n, place in zip(saved, places, strict=True) if place is None]
    absent = [n for i, n in enumerate(split.classes) if i not in places]
    if unknown or absent:
        raise ValueError(
            f'the checkpoint names {len(saved)} classes that are not those of split '
            f'{split.name!r}: unknown to the split {unknown[:5]}, not in the '
            f'checkpoint {absent[:5]}. Choose another --split, or name the rows in '
            f'{path.with_suffix(".json").name}'
        )
    return tuple(split.classes[place] for place in places if place is not None)
