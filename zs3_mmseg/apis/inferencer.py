"""Pictures in, segmentations out: collecting, reading and segmenting them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import nn

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.infer import BaseInferencer
from mmseg.structures import SegDataSample

from zs3_mmseg.utils.image_io import (
    IMAGE_SUFFIXES,
    DecodedImage,
    decode_image,
    is_picture,
)
from zs3_mmseg.utils.palette import default_palette

from .init import DEFAULT_CONFIG, init_segmentor, load_config
from .pipeline import as_batch, build_pipeline, find_test_pipeline
from .segmentation import OutputNames, Segmentation, void_label, write_segmentation

Picture = str | os.PathLike | np.ndarray


def _files_in(folder: Path) -> list[Path]:
    """Return the pictures of a folder, by suffix, not those in folders below it."""
    return sorted(
        path for path in folder.iterdir() if is_picture(path) and path.is_file()
    )


def _expand(item: str) -> list[Path]:
    path = Path(item).expanduser()
    if path.is_dir():
        files = _files_in(path)
        if not files:
            suffixes = ', '.join(sorted(IMAGE_SUFFIXES))
            raise FileNotFoundError(f'{item}: no pictures ({suffixes}) in this folder')
        return files
    # A file may have brackets or a question mark in its name.
    if path.exists() or not glob.has_magic(item):
        return [path]
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    files = [match for match in matches if not match.is_dir()]
    if not files:
        raise FileNotFoundError(f'{item}: the pattern matches no file')
    return files


def collect_files(
    items: Iterable[str | os.PathLike],
) -> tuple[list[Path], list[str]]:
    """Expand files, folders and patterns to a list of files.

    A file that is named twice is listed once. A plain name that doesn't exist is
    listed, too: reading it tells what is wrong with it.

    Args:
        items: paths of pictures, of folders (their pictures), and glob patterns.

    Returns:
        the files in the order they were named, and one message for each item that
        stands for no file at all.
    """
    files: dict[Path, Path] = {}
    problems = []
    for item in items:
        try:
            for path in _expand(os.fspath(item)):
                files.setdefault(path.resolve(), path)
        except OSError as error:
            problems.append(str(error))
    return list(files.values()), problems


def list_pictures(inputs: Picture | Sequence[Picture]) -> list[Path | np.ndarray]:
    """Return pictures one by one: arrays, and the files of folders and patterns."""
    if isinstance(inputs, str | os.PathLike | np.ndarray):
        inputs = [inputs]
    pictures: list[Path | np.ndarray] = []
    for item in inputs:
        if isinstance(item, np.ndarray):
            pictures.append(item)
            continue
        files, problems = collect_files([item])
        if problems:
            raise FileNotFoundError(problems[0])
        pictures.extend(files)
    return pictures


def _as_rgb(array: np.ndarray, channel_order: str) -> np.ndarray:
    if channel_order not in ('rgb', 'bgr'):
        raise ValueError(f"channel_order is 'rgb' or 'bgr', not {channel_order!r}")
    if array.dtype != np.uint8 or array.size == 0:
        raise ValueError(
            f'expected a picture of uint8 with at least one pixel, got '
            f'{array.dtype} of shape {array.shape}'
        )
    if array.ndim == 2:
        return np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(
            f'expected a picture of shape (H, W, 3) or (H, W), got {array.shape}'
        )
    return array if channel_order == 'rgb' else np.ascontiguousarray(array[..., ::-1])


def load_picture(item: Picture, channel_order: str = 'rgb') -> DecodedImage:
    """Return a picture as RGB.

    Args:
        item: a file, or an array ``(H, W, 3)`` or, if grey, ``(H, W)`` of uint8.
    """
    if isinstance(item, np.ndarray):
        return DecodedImage(_as_rgb(item, channel_order))
    return decode_image(item)


class ZeroShotInferencer(BaseInferencer):
    """Segment pictures with any class names.

    It follows mmengine's ``BaseInferencer``: ``preprocess``, ``forward``,
    ``visualize`` and ``postprocess``, one picture at a time, because pictures differ
    in size.

    .. code-block:: python

        inferencer = ZeroShotInferencer(classes=['star', 'two words', 'cup|mug'])
        result = inferencer('photo.jpg', out_dir='out')
        result['predictions'][0]['labels']  # (H, W), positions in classes

    Args:
        model: path or name of a config, a config object, or a segmentor that
            ``init_segmentor`` returned. By default the model that ships with the
            package.
        weights: its checkpoint; see ``init_segmentor``.
        classes: the vocabulary; synonyms are joined by ``|``. By default the model's
            own.
        device: where to compute. By default an accelerator if there is one.
        unseen: which of ``classes`` are marked as unseen. By default all but those
            with masks in training.
        cfg_options: dotted keys to values that replace those of the config.
        return_scores: keep the scores of all classes at the original size in the data
            samples, which needs K times the memory of the label map.
        show_progress: show a progress bar.

    Raises:
        FileNotFoundError, ValueError: see ``init_segmentor`` and ``set_classes``.
    """

    preprocess_kwargs = {'channel_order'}
    forward_kwargs: set[str] = set()
    visualize_kwargs = {'alpha'}
    postprocess_kwargs: set[str] = set()

    def __init__(
        self,
        model: str | os.PathLike | Config | nn.Module = DEFAULT_CONFIG,
        weights: str | os.PathLike | None = None,
        classes: Sequence[str] | None = None,
        device: str | None = None,
        *,
        unseen: Sequence[str] | None = None,
        cfg_options: dict | None = None,
        return_scores: bool = False,
        show_progress: bool = False,
    ) -> None:
        self._given: nn.Module | None = None
        if isinstance(model, nn.Module):
            self._given = model
            config: Config = model.cfg
        else:
            options = {'model.test_cfg.return_scores': return_scores}
            config = load_config(model, options | (cfg_options or {}))
        super().__init__(
            config, weights, device, scope='mmseg', show_progress=show_progress
        )
        self._model_record = {
            'config': str(config.filename) if config.filename else None,
            'checkpoint': None if weights is None else str(weights),
        }
        if classes is not None:
            self.set_classes(classes, unseen)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names of today."""
        return self._names_seen_palette()[0]

    def _names_seen_palette(
        self,
    ) -> tuple[tuple[str, ...], tuple[bool, ...], list[list[int]]]:
        """Return names, whether each is seen, and colours; any mmseg model has them."""
        known = getattr(self.model, 'vocabulary', None)
        if known is not None:
            return known.names, known.seen, known.palette
        meta = self.model.dataset_meta
        names = tuple(meta['classes'])
        palette = meta.get('palette') or default_palette(len(names))
        return names, (True,) * len(names), palette

    def set_classes(
        self, names: Sequence[str], unseen: Sequence[str] | None = None
    ) -> None:
        """Change the vocabulary; see the segmentor's method of this name.

        Raises:
            ValueError: empty or repeated names, or a model with a fixed vocabulary.
        """
        if not hasattr(self.model, 'set_classes'):
            raise ValueError(
                f'a {type(self.model).__name__} knows its own '
                f'{len(self.classes)} classes only: leave the names out'
            )
        self.model.set_classes(list(names), unseen)

    def _init_model(
        self, cfg: Config, weights: str | None, device: str = 'cpu'
    ) -> nn.Module:
        if self._given is None:
            return init_segmentor(cfg, weights, device)
        if weights is not None:
            raise ValueError('a segmentor that is built already takes no weights')
        return self._given

    def _init_pipeline(self, cfg: Config) -> object:
        patch = getattr(self.model.backbone, 'patch_size', 1)
        least = max(patch) if isinstance(patch, tuple) else int(patch)
        return build_pipeline(find_test_pipeline(cfg), least=least)

    def _init_collate(self, cfg: Config) -> object:
        return pseudo_collate

    def _init_visualizer(self, cfg: Config) -> None:
        """Pictures are drawn by functions, without mmengine's global visualizer."""

    def _inputs_to_list(
        self, inputs: Picture | Sequence[Picture]
    ) -> list[Path | np.ndarray]:
        """Return pictures one by one; folders and patterns give their files."""
        return list_pictures(inputs)

    def preprocess(
        self,
        inputs: Sequence[Picture],
        batch_size: int = 1,
        *,
        channel_order: str = 'rgb',
    ) -> Iterator[tuple[DecodedImage, dict]]:
        """Yield each picture as it is and as the segmentor takes it."""
        for item in inputs:
            decoded = load_picture(item, channel_order)
            yield decoded, as_batch(self.pipeline(decoded.pixels))

    def _to_segmentation(
        self, item: Picture, decoded: DecodedImage, sample: SegDataSample
    ) -> Segmentation:
        classes, seen, palette = self._names_seen_palette()
        void = void_label(len(classes))
        labels: torch.Tensor = sample.pred_sem_seg.data[0].long()
        if len(classes) == 1:
            # One class: the map is a mask, 1 where the score reached the threshold.
            labels = torch.where(labels > 0, 0, void)
        labels = torch.where(labels < len(classes), labels, void)
        narrow = np.uint8 if void < 256 else np.uint16
        return Segmentation(
            image=decoded.pixels,
            labels=labels.cpu().numpy().astype(narrow),
            classes=classes,
            palette=tuple((int(r), int(g), int(b)) for r, g, b in palette),
            unseen=frozenset(index for index, known in enumerate(seen) if not known),
            source=None if isinstance(item, np.ndarray) else str(item),
            notes=decoded.notes,
        )

    def visualize(
        self, inputs: list, preds: list[Segmentation], *, alpha: float = 0.6
    ) -> list[np.ndarray]:
        """Draw segmentations with names and a legend; see ``draw_overlay``."""
        return [pred.draw(alpha) for pred in preds]

    def postprocess(
        self,
        preds: list[Segmentation],
        visualization: list[np.ndarray],
        return_datasample: bool = False,
    ) -> dict[str, list]:
        """Return segmentations as plain values, with ``labels`` as an array."""
        return {
            'predictions': [
                {**pred.as_dict(), 'labels': pred.labels} for pred in preds
            ],
            'visualization': visualization,
        }

    def segment(
        self, image: Picture, *, channel_order: str = 'rgb'
    ) -> tuple[Segmentation, SegDataSample]:
        """Segment one picture.

        Args:
            image: path of a file, or an array ``(H, W, 3)`` or ``(H, W)`` of uint8.
            channel_order: of an array; ``'bgr'`` for what ``cv2.imread`` returns.

        Returns:
            the segmentation, and mmseg's data sample for it.

        Raises:
            OSError: a file that is missing or no whole picture; see ``decode_image``.
            ValueError: an array that is no picture.
        """
        decoded, batch = next(self.preprocess([image], channel_order=channel_order))
        sample = self.forward(batch)[0]
        return self._to_segmentation(image, decoded, sample), sample

    def __call__(
        self,
        images: Picture | Sequence[Picture],
        out_dir: str | os.PathLike | None = None,
        *,
        return_datasamples: bool = False,
        return_vis: bool = False,
        alpha: float = 0.6,
        channel_order: str = 'rgb',
    ) -> dict[str, list]:
        """Segment pictures, and write the results if ``out_dir`` is given.

        Returns:
            ``predictions``, one for each picture in order: a dict with ``labels``
            ``(H, W)``, ``classes`` with names and shares, ``file`` and more; and
            ``visualization``, the overlays ``(h, w, 3)`` uint8 RGB or nothing.
        """
        listed = self._inputs_to_list(images)
        files = [item for item in listed if isinstance(item, Path)]
        names = OutputNames(Path(out_dir), files) if out_dir is not None else None
        results: dict[str, list] = {'predictions': [], 'visualization': []}
        steps = track(listed, 'Segmenting') if self.show_progress else listed
        for number, item in enumerate(steps):
            found, sample = self.segment(item, channel_order=channel_order)
            drawn = self.visualize([item], [found], alpha=alpha) if return_vis else []
            one = self.postprocess([found], drawn)
            results['predictions'] += (
                [sample] if return_datasamples else one['predictions']
            )
            results['visualization'] += one['visualization']
            if names is not None:
                stem = item.stem if isinstance(item, Path) else f'array_{number}'
                self.write(found, names, stem, alpha=alpha)
        return results

    def write(
        self,
        segmentation: Segmentation,
        names: OutputNames,
        stem: str,
        *,
        alpha: float = 0.6,
    ) -> tuple[Path, Path, Path]:
        """Write one result under a name nobody else has; return its three files."""
        return write_segmentation(
            segmentation,
            names.folder,
            names.claim(stem),
            alpha=alpha,
            model=self._model_record,
        )
