"""Official ZegCLIP checkpoints as checkpoints of this package."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from zs3_mmseg.datasets.splits import (
    ZeroShotSplit,
    find_name,
    plain_split,
    resolve_split,
)
from zs3_mmseg.datasets.splits.zero_shot_split import SETTINGS
from zs3_mmseg.models.class_embeddings import ClassEmbeddingBank, ClassEmbeddings
from zs3_mmseg.models.segmentors.vocabulary import row_state, rows_by_class
from zs3_mmseg.models.towers import Architecture, resolve_architecture
from zs3_mmseg.utils.checkpoint import safe_load, state_dict_of
from zs3_mmseg.utils.origins import ZEGCLIP_ROWS

from .clip import (
    DROP_TEXT_TOWER,
    TowerSizes,
    add_tower_arguments,
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

_DECODER = 'decode_head.decoder_1.layers'
_EMPTY_WEIGHT = 'decode_head.loss_decode.criterion.empty_weight'
#: CLIP models of OpenAI that are ViTs. L/14 at 336 pixels differs from L/14 in its
#: positions alone.
_OPENAI = ('ViT-B-16-quickgelu', 'ViT-B-32-quickgelu', 'ViT-L-14-quickgelu')


def _architecture(sizes: TowerSizes, arch: str | None) -> Architecture:
    """Return the CLIP of a checkpoint; without a name it is one of OpenAI's."""
    if arch is not None:
        return require_quick_gelu(resolve_architecture(arch), 'ZegCLIP')
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


def _parts(
    weights: OfficialWeights, sizes: TowerSizes, architecture: Architecture
) -> dict[str, Any]:
    """Return the config of the backbone and head that official weights fit."""
    head: dict[str, Any] = dict(num_layers=weights.count(_DECODER))
    ffn_dim = weights.shape(f'{_DECODER}.0.linear1.weight', 2)[0]
    if ffn_dim != 4 * sizes.embed_dim:
        head['ffn_dim'] = ffn_dim
    if 'decode_head.input_proj_1.weight' in weights:
        head['project_patches'] = True
    return dict(
        backbone=sizes.backbone(architecture, prompts=_prompts(weights)),
        decode_head=dict(type='ZegCLIPHead', **head),
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


def zegclip_rules(num_layers: int) -> list[KeyRule]:
    """Return what becomes of the keys of an official ZegCLIP state dict.

    ``num_layers`` counts those of its mask decoder.
    """
    decoder = r'decode_head\.decoder_1\.layers\.'
    last = num_layers - 1
    return [
        KeyRule(r'backbone\.((deep_)?prompt_.*)', r'backbone.prompts.\1', 'prompts'),
        KeyRule(r'backbone\.(.*)', r'backbone.visual.\1', "open_clip's names"),
        KeyRule(decoder + r'\d+\.(self_attn|norm1)\..*', None, 'never used'),
        KeyRule(
            decoder + rf'{last}\.multihead_attn\.([qk])\.(.*)',
            r'decode_head.decoder.matching.\1.\2',
            'the last layer only matches',
        ),
        KeyRule(
            decoder + rf'{last}\.(multihead_attn\.(v|proj)|linear[12]|norm[23])\..*',
            None,
            _NO_GRADIENT,
        ),
        KeyRule(
            decoder + r'(\d+)\.multihead_attn\.(.*)',
            r'decode_head.decoder.layers.\1.attn.\2',
        ),
        KeyRule(decoder + r'(\d+\..*)', r'decode_head.decoder.layers.\1'),
        KeyRule(r'decode_head\.(input_proj|proj_norm)_1\.(.*)', r'decode_head.\1.\2'),
        KeyRule(r'decode_head\.q_proj\..*', r'\g<0>'),
        KeyRule(
            r'decode_head\.loss_decode\.criterion\.empty_weight',
            None,
            'a constant of the loss that is never read',
        ),
        DROP_TEXT_TOWER,
    ]


@register_converter
class ZegCLIPConverter(Converter):
    """Official ZegCLIP checkpoints (mmcv 1.x, .pth) with their text rows -> .pth.

    The class embeddings go into the result as they are in the official .npy files, so
    that scores come out to the last digit. Sizes are read from the shapes, and the
    report ends with the model config that the result fits.
    """

    name: ClassVar[str] = 'zegclip'
    help: ClassVar[str] = 'official ZegCLIP checkpoints (.pth) and text rows (.npy)'
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
        weights = OfficialWeights(state, f'{source} is no official ZegCLIP checkpoint')
        sizes = TowerSizes.of(weights, 'backbone')
        architecture = _architecture(sizes, arguments.arch)
        split = _read_split(arguments.split)
        setting = _setting(weights, split, arguments.setting)
        rows = _rows(arguments.text_rows, split, content.get('meta'))
        if rows.embeddings.shape[1] != sizes.embed_dim:
            raise ValueError(
                f'the rows of {arguments.text_rows} have {rows.embeddings.shape[1]} '
                f'columns, and {source} needs {sizes.embed_dim}'
            )
        shift = dict(type='SeenShift', shift=0.1)
        model = dict(
            type='ZeroShotEncoderDecoder',
            split=plain_split(split),
            setting=setting,
            **_parts(weights, sizes, architecture),
            calibrators=[] if setting == 'transductive' else [shift],
            class_embeddings=dict(
                type='ClassEmbeddingBank',
                source=dict(type='tensor', path=str(arguments.text_rows)),
                normalize=False,
            ),
        )
        empty = empty_model(model, in_channels=sizes.embed_dim, num_heads=1)
        rules = zegclip_rules(model['decode_head']['num_layers'])
        conversion = apply_rules(state, rules, empty.state_dict())
        files = {}
        if arguments.text_tower_out is not None:
            files[arguments.text_tower_out] = text_tower(
                state, architecture, str(source), ': leave --text-tower-out out'
            )
        parts = rows_by_class(rows.embeddings, rows.query_to_class, len(split.classes))
        return replace(
            conversion,
            extra_state=dict(row_state(split, setting, parts, rows.provenance)),
            classes=split.classes,
            files=files,
            notes=_NOTES + as_text(model=model),
        )


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


def _rows(path: Path, split: ZeroShotSplit, meta: object) -> ClassEmbeddings:
    """Read the official rows, which are used as they are.

    mmseg 0.x saved the class names as ``CLASSES`` in the ``meta`` of a checkpoint.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f'--text-rows {path} does not exist; the official files are in '
            f'{ZEGCLIP_ROWS}'
        )
    saved = meta.get('CLASSES') if isinstance(meta, Mapping) else None
    names = None
    if saved and not path.with_suffix('.json').is_file():
        names = _as_in_split([str(name) for name in saved], split, path)
    source = dict(type='tensor', path=str(path), names=names)
    return ClassEmbeddingBank(source, normalize=False).embed(split.classes)


def _as_in_split(
    saved: Sequence[str], split: ZeroShotSplit, path: Path
) -> tuple[str, ...]:
    """Spell the class names of a checkpoint as its split does."""
    places = [find_name(name, split.classes) for name in saved]
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
