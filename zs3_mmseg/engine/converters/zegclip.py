"""Official ZegCLIP checkpoints as checkpoints of this package."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmengine.config import Config

from zs3_mmseg.datasets.splits import (
    ZeroShotSplit,
    find_name,
    plain_split,
    resolve_split,
)
from zs3_mmseg.models.backbones.prompts import DeepPrompts
from zs3_mmseg.models.class_embeddings import ClassEmbeddingBank, ClassEmbeddings
from zs3_mmseg.models.decode_heads import ZegCLIPHead
from zs3_mmseg.models.segmentors.vocabulary import SETTINGS, row_state, rows_by_class
from zs3_mmseg.models.towers import Architecture, resolve_architecture
from zs3_mmseg.models.towers.architectures import build_model
from zs3_mmseg.utils.checkpoint import safe_load, state_dict_of
from zs3_mmseg.utils.origins import ZEGCLIP_ROWS

from .clip import (
    DROP_TEXT_TOWER,
    ImageTowerLayout,
    add_tower_arguments,
    count_numbered,
    require_quick_gelu,
    resized,
    shape_reader,
    text_tower,
)
from .core import Conversion, Converter, Rule, apply_rules, register_converter

_DECODER = 'decode_head.decoder_1.layers'
_EMPTY_WEIGHT = 'decode_head.loss_decode.criterion.empty_weight'
#: CLIP models of OpenAI that are ViTs. L/14 at 336 pixels differs from L/14 in its
#: positions alone.
_OPENAI = ('ViT-B-16-quickgelu', 'ViT-B-32-quickgelu', 'ViT-L-14-quickgelu')


@dataclass(frozen=True)
class ZegCLIPLayout(ImageTowerLayout):
    """Sizes of a ZegCLIP model.

    Attributes:
        num_tokens: prompt tokens per block; 0: no prompts.
        depth: of the prompts, see :class:`DeepPrompts`.
        num_layers: layers of the mask decoder.
        ffn_dim: hidden width of its feed-forward part.
        project_patches: whether patches go through a linear map first.
        num_trained: classes it was trained with, if the file tells.
    """

    num_tokens: int
    depth: int
    num_layers: int
    ffn_dim: int
    project_patches: bool
    num_trained: int | None

    @classmethod
    def of(cls, state: Mapping[str, Tensor], what: str) -> ZegCLIPLayout:
        """Read the sizes of an official state dict.

        Args:
            state: with the official keys.
            what: how messages call it, e.g. the file.

        Raises:
            CheckpointError: if a weight that tells a size is not there.
        """

        shape = shape_reader(state, f'{what} is no official ZegCLIP checkpoint')
        num_tokens, depth = 0, 0
        deep = 'backbone.deep_prompt_embeddings'
        first = 'backbone.prompt_embeddings'
        if deep in state:
            depth, num_tokens, _ = shape(deep, 3)
            depth = depth if first in state else -depth
        elif first in state:
            _, num_tokens, _ = shape(first, 3)
        trained = shape(_EMPTY_WEIGHT, 1)[0] - 1 if _EMPTY_WEIGHT in state else None
        return cls(
            **cls.read(state, shape, 'backbone', what),
            num_tokens=num_tokens,
            depth=depth,
            num_layers=count_numbered(state, _DECODER),
            ffn_dim=shape(f'{_DECODER}.0.linear1.weight', 2)[0],
            project_patches='decode_head.input_proj_1.weight' in state,
            num_trained=trained,
        )

    @property
    def sizes(self) -> str:
        """The sizes of the image tower, for messages."""
        return (
            f'{self.num_blocks} blocks of width {self.width}, patches of '
            f'{self.patch_size} pixels and an embedding of {self.embed_dim}'
        )

    def architectures(self) -> list[Architecture]:
        """Return the CLIP models of OpenAI that have these sizes."""
        found = []
        for architecture in map(resolve_architecture, _OPENAI):
            vision = architecture.config['vision_cfg']
            sizes = (vision['width'], vision['patch_size'], vision['layers'])
            ours = (self.width, self.patch_size, self.num_blocks)
            if sizes == ours and architecture.embed_dim == self.embed_dim:
                found.append(architecture)
        return found

    def empty_model(self, architecture: Architecture) -> nn.Module:
        """Build what holds the weights, without memory for any.

        Args:
            architecture: of the CLIP; its image size is set to ours.
        """
        with torch.device('meta'):
            model = nn.Module()
            model.backbone = nn.Module()
            clip = build_model(resized(architecture, self.image_size))
            model.backbone.visual = clip.visual
            if self.num_tokens:
                model.backbone.prompts = DeepPrompts(
                    num_tokens=self.num_tokens,
                    depth=self.depth,
                    num_blocks=self.num_blocks,
                    width=self.width,
                    patch_size=self.patch_size,
                )
            # The number of heads changes no shape.
            model.decode_head = ZegCLIPHead(
                self.embed_dim, num_heads=1, **self._head_options()
            )
        return model

    def model_config(self, architecture: Architecture, setting: str) -> dict[str, Any]:
        """Return the parts of a segmentor's config that a checkpoint fits.

        Args:
            architecture: of the CLIP.
            setting: of the training; the seen scores are lowered unless transductive.
        """
        prompts = dict(num_tokens=self.num_tokens, depth=self.depth)
        shift = dict(type='SeenShift', shift=0.1)
        return dict(
            backbone=dict(
                type='OpenCLIPViT',
                arch=architecture.name,
                image_size=self.image_size,
                out_global=True,
                grid='floor',
                pos_interp='bilinear',
                cls_embed_twice=True,
                normalize=True,
                prompts=prompts if self.num_tokens else None,
            ),
            decode_head=dict(type='ZegCLIPHead', **self._head_options()),
            calibrators=[] if setting == 'transductive' else [shift],
        )

    def _head_options(self) -> dict[str, Any]:
        options: dict[str, Any] = dict(num_layers=self.num_layers)
        if self.ffn_dim != 4 * self.embed_dim:
            options['ffn_dim'] = self.ffn_dim
        if self.project_patches:
            options['project_patches'] = True
        return options


_NO_GRADIENT = 'no gradient ever reached it'
_NOTES = (
    'It fits a model with the following parts. What the file does not tell is as in '
    'configs/zegclip: the heads of the decoder, the data_preprocessor, the test_cfg.\n'
)


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
        Rule(
            decoder + rf'{last}\.(multihead_attn\.(v|proj)|linear[12]|norm[23])\..*',
            None,
            _NO_GRADIENT,
        ),
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
        layout = ZegCLIPLayout.of(state, str(source))
        architecture = _architecture(layout, arguments.arch)
        split = _read_split(arguments.split)
        setting = _setting(layout.num_trained, split, arguments.setting)
        rows = _rows(arguments.text_rows, split, content.get('meta'))
        if rows.embeddings.shape[1] != layout.embed_dim:
            raise ValueError(
                f'the rows of {arguments.text_rows} have {rows.embeddings.shape[1]} '
                f'columns, and {source} needs {layout.embed_dim}'
            )
        conversion = apply_rules(
            state,
            zegclip_rules(layout.num_layers),
            layout.empty_model(architecture).state_dict(),
        )
        files = {}
        if arguments.text_tower_out is not None:
            files[arguments.text_tower_out] = text_tower(
                state, architecture, str(source), ': leave --text-tower-out out'
            )
        parts = rows_by_class(rows.embeddings, rows.query_to_class, len(split.classes))
        model = dict(
            type='ZeroShotEncoderDecoder',
            split=plain_split(split),
            setting=setting,
            **layout.model_config(architecture, setting),
        )
        source_config = dict(type='tensor', path=str(arguments.text_rows))
        model['class_embeddings'] = dict(
            type='ClassEmbeddingBank', source=source_config, normalize=False
        )
        return replace(
            conversion,
            extra_state=dict(row_state(split, setting, parts, rows.provenance)),
            files=files,
            notes=_NOTES + Config(dict(model=model)).pretty_text,
        )


def _architecture(layout: ZegCLIPLayout, arch: str | None) -> Architecture:
    """Return the CLIP of a checkpoint.

    Raises:
        ValueError: if it has none of the known sizes, or the wrong activation.
    """
    if arch is None:
        found = layout.architectures()
        if not found:
            raise ValueError(
                f'no CLIP of OpenAI has {layout.sizes}: say with --arch what the '
                'checkpoint was made from'
            )
        return found[0]
    return require_quick_gelu(resolve_architecture(arch), 'ZegCLIP')


def _read_split(given: str) -> ZeroShotSplit:
    """Return a split by its name or from a JSON file."""
    if not given.endswith('.json'):
        return resolve_split(given)
    try:
        return resolve_split(json.loads(Path(given).read_text(encoding='utf-8')))
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise ValueError(f'--split {given}: {error}') from error


def _setting(num_trained: int | None, split: ZeroShotSplit, wanted: str | None) -> str:
    """Return the setting of a training with so many classes.

    Raises:
        ValueError: if the split has other numbers, several settings are possible, or
            the wanted one is not.
    """
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

    Args:
        path: the file.
        split: its classes.
        meta: of the checkpoint; mmseg 0.x saved the class names as ``CLASSES``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it does not fit the split.
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
