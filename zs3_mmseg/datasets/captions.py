"""Captions from a file, for data sets that have none of their own."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from zs3_mmseg.utils.names import read_json

__all__ = ['LoadCaptions']


def read_captions(path: Path) -> dict[str, str]:
    """Read the captions of images by name; what a file holds: :class:`LoadCaptions`.

    Raises:
        ValueError: naming the file, if it holds something else.
    """
    content = read_json(path)
    try:
        if isinstance(content.get('annotations'), list):
            content = _from_coco(content)
        return {stem: _joined(said) for stem, said in content.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f'{path}: expected a JSON object of image names, and a caption or '
            'a list of captions each, or an annotation file of COCO captions'
        ) from error


@TRANSFORMS.register_module()
class LoadCaptions(BaseTransform):
    """Give each image the captions that a JSON file has of it, as ``caption``.

    ``PackSegInputs`` hands it on if ``'caption'`` is among its ``meta_keys``. Images of
    which the file says nothing get an empty caption.

    Args:
        path: a JSON object of image names, without folder and suffix, and a caption or
            a list of captions each; or an annotation file of COCO's captions.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file holds something else.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(
                f'LoadCaptions.path: {self.path} is missing; expected a JSON object of '
                'image names and captions, or an annotation file of COCO captions'
            )

    @cached_property
    def captions(self) -> dict[str, str]:
        """The captions of each image in one text."""
        return read_captions(self.path)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Set ``caption``."""
        results['caption'] = self.captions.get(Path(results['img_path']).stem, '')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(path={str(self.path)!r})'


def _from_coco(content: dict[str, Any]) -> dict[str, list[str]]:
    stems = {image['id']: Path(image['file_name']).stem for image in content['images']}
    found: dict[str, list[str]] = {stem: [] for stem in stems.values()}
    for each in content['annotations']:
        found[stems[each['image_id']]].append(each['caption'])
    return found


def _joined(said: str | list[str]) -> str:
    captions = [said] if isinstance(said, str) else said
    # Phrases end where a caption does.
    return ' . '.join(captions)
