"""Official ESDA checkpoints as checkpoints of this package."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from mmengine.config import Config

from zs3_mmseg.datasets.splits import ZeroShotSplit, plain_split, resolve_split
from zs3_mmseg.models.class_embeddings import ClassEmbeddingBank, ClassEmbeddings
from zs3_mmseg.models.class_embeddings.bank import TokenRows
from zs3_mmseg.models.segmentors.vocabulary import row_state, rows_by_class
from zs3_mmseg.models.towers import Architecture
from zs3_mmseg.utils.checkpoint import safe_load, state_dict_of

from .clip_parts import add_tower_arguments, text_tower
from .conversion import Conversion, apply_rules
from .converter import Converter, register_converter
from .esda_layout import ESDALayout
from .esda_rules import esda_rules

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
        layout = ESDALayout.of(state, str(source))
        architecture = layout.architecture(arguments.arch)
        split = resolve_split(arguments.split)
        conversion = apply_rules(
            state,
            esda_rules(layout.num_blocks),
            layout.empty_model(architecture).state_dict(),
        )
        tower = text_tower(state, architecture, str(source))
        if not tower.complete:
            # Its report says which keys; rows cannot be made.
            return replace(conversion, files={Path('the text tower'): tower})
        out: Path | None = arguments.text_tower_out
        name = f'{source.stem}_text.safetensors' if out is None else out.name
        rows, bank = _rows(tower, name, architecture, split)
        setting = 'inductive' if split.unseen else 'supervised'
        parts = rows_by_class(rows.embeddings, rows.query_to_class, len(split.classes))
        model = dict(
            type='ClassPromptedSegmentor',
            split=plain_split(split),
            setting=setting,
            **layout.model_config(architecture),
            class_embeddings=bank,
        )
        return replace(
            conversion,
            extra_state=dict(row_state(split, setting, parts, rows.provenance)),
            files={} if out is None else {out: tower},
            notes=_NOTES + Config(dict(model=model)).pretty_text,
        )


def _rows(
    tower: Conversion, name: str, architecture: Architecture, split: ZeroShotSplit
) -> tuple[ClassEmbeddings, dict[str, Any]]:
    """Encode the class names of a split.

    Args:
        tower: the weights.
        name: of the file with these weights, which the rows remember.
        architecture: what they are for.
        split: its classes.

    Returns:
        rows with the features of all tokens behind them, and the config of a bank
        that gives the same.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(tower.as_safetensors())
        source = dict(
            type='clip_text', arch=architecture, pretrained=str(path), cache=False
        )
        options: dict[str, Any] = dict(
            templates='bare', normalize=False, token_features=True
        )
        bank = ClassEmbeddingBank(source, **options)
        rows = TokenRows(bank).embed(split.classes)
    config = dict(
        type='ClassEmbeddingBank',
        source=dict(type='clip_text', arch=architecture.name, pretrained=name),
        **options,
    )
    return rows, config
