"""Pictures in, segmentations out: collecting, reading and segmenting them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import nn

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.infer import BaseInferencer
from mmseg.structures import SegDataSample

from zs3_mmseg.utils.image_io import (
    IMAGE_SUFFIXES,
    TRANSPARENT_NOTE,
    DecodedImage,
    decode_image,
    from_pillow,
    is_picture,
)
from zs3_mmseg.utils.palette import default_palette

from .init import DEFAULT_CONFIG, init_segmentor, load_config
from .pipeline import PicturePipeline, as_batch, find_test_pipeline
from .segmentation import (
    OutputNames,
    Segmentation,
    is_result,
    void_label,
    write_segmentation,
)

InMemory = np.ndarray | torch.Tensor | Image.Image
#: A file, or pixels in memory; see :func:`load_picture`.
Picture = str | os.PathLike | InMemory

_URL = re.compile(r'[a-z][a-z0-9+.-]*://', re.IGNORECASE)


def _files_in(folder: Path, recursive: bool) -> list[Path]:
    """Return the pictures in a folder and, if wanted, in those below it, by suffix.

    Those that an earlier call has written there are left out.
    """
    return sorted(
        path
        for path in (folder.rglob('*') if recursive else folder.iterdir())
        if is_picture(path)
        and path.is_file()
        and not is_result(path)
        and not any(part.startswith('.') for part in path.relative_to(folder).parts)
    )


def _expand(item: str, recursive: bool) -> list[Path]:
    if _URL.match(item):
        raise FileNotFoundError(f'{item}: a URL; download it and name the file')
    path = Path(item).expanduser()
    if path.is_dir():
        files = _files_in(path, recursive)
        if not files:
            suffixes = ', '.join(sorted(IMAGE_SUFFIXES))
            below = ' and those below it' if recursive else ''
            raise FileNotFoundError(
                f'{item}: no pictures ({suffixes}) in this folder{below}'
            )
        return files
    # A file may have brackets or a question mark in its name.
    if path.exists():
        return [path]
    if not glob.has_magic(item):
        raise FileNotFoundError(f'{item}: no such file or folder')
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    files = [match for match in matches if not match.is_dir()]
    if not files:
        raise FileNotFoundError(f'{item}: the pattern matches no file')
    return files


def collect_files(
    items: Iterable[str | os.PathLike],
    *,
    recursive: bool = True,
) -> tuple[list[Path], list[str]]:
    """Expand files, folders and patterns to a list of files.

    A file that is named twice is listed once.

    Args:
        items: paths of pictures, of folders (the pictures in them and in all folders
            below, but not in hidden ones), and glob patterns.
        recursive: whether to look in folders below a folder, too.

    Returns:
        the files in the order they were named, and one message for each item that
        stands for no file at all.
    """
    files: dict[Path, Path] = {}
    problems = []
    for item in items:
        try:
            for path in _expand(os.fspath(item), recursive):
                files.setdefault(path.resolve(), path)
        except OSError as error:
            problems.append(str(error))
    return list(files.values()), problems


def list_pictures(inputs: Picture | Sequence[Picture]) -> list[Path | InMemory]:
    """Return pictures one by one: those in memory, and the files of all others.

    An array or a tensor with a further axis in front is a batch of pictures.
    """
    if isinstance(inputs, Picture):
        inputs = [inputs]
    pictures: list[Path | InMemory] = []
    for item in inputs:
        if isinstance(item, np.ndarray | torch.Tensor) and item.ndim == 4:
            pictures.extend(item)
        elif isinstance(item, InMemory):
            pictures.append(item)
        else:
            files, problems = collect_files([item])
            if problems:
                raise FileNotFoundError(problems[0])
            pictures.extend(files)
    return pictures


def video_frames(
    source: str | os.PathLike | int, step: int = 1
) -> Iterator[np.ndarray]:
    """Yield the frames of a video as they are read, ``(H, W, 3)`` uint8 RGB.

    Args:
        source: a file that OpenCV can read, or the number of a camera.
        step: yield every frame whose number is a multiple of this.

    Raises:
        OSError: if it cannot be opened, or holds no frame.
    """
    if step < 1:
        raise ValueError(f'step must be at least 1, not {step}')
    if isinstance(source, int):
        name, stream = f'camera {source}', cv2.VideoCapture(source)
    elif Path(source).is_file():
        name, stream = os.fspath(source), cv2.VideoCapture(os.fspath(source))
    else:
        raise FileNotFoundError(f'{os.fspath(source)}: no such file')
    number = 0
    try:
        while stream.isOpened():
            there, frame = stream.read()
            if not there:
                break
            if number % step == 0:
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            number += 1
    finally:
        stream.release()
    if not number:
        raise OSError(f'{name}: OpenCV can read no frame of it')


def _as_bytes(array: np.ndarray) -> np.ndarray:
    """Bring values to 0..255 uint8: floats are 0..1, integers 0..255."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in 'fiub':
        raise ValueError(f'expected a picture of numbers, got {array.dtype}')
    top = 1 if array.dtype.kind in 'fb' else 255
    # Not a number fails both comparisons.
    if not (array.min() >= 0 and array.max() <= top):
        raise ValueError(
            f'expected a picture with values from 0 to {top}, as it is of '
            f'{array.dtype}, got {array.min():g} to {array.max():g}'
        )
    return np.round(array.astype(np.float32) * (255 / top)).astype(np.uint8)


def _as_rgb(array: np.ndarray, channel_order: str) -> DecodedImage:
    """Bring ``(H, W)`` or ``(H, W, C)`` to 8-bit RGB."""
    if channel_order not in ('rgb', 'bgr'):
        raise ValueError(f"channel_order is 'rgb' or 'bgr', not {channel_order!r}")
    if array.size == 0:
        raise ValueError(
            f'expected a picture with at least one pixel, got {array.shape}'
        )
    shaped = array[..., None] if array.ndim == 2 else array
    if shaped.ndim != 3 or shaped.shape[2] > 4:
        raise ValueError(
            'expected a picture of shape (H, W, 3), (H, W, 4) or (H, W), got '
            f'{array.shape}; several go into a list'
        )
    values = _as_bytes(shaped)
    has_alpha = values.shape[2] in (2, 4)
    colours = values[..., :-1] if has_alpha else values
    if colours.shape[2] == 1:
        colours = np.repeat(colours, 3, axis=2)
    elif channel_order == 'bgr':
        colours = colours[..., ::-1]
    is_opaque = not has_alpha or values[..., -1].min() == 255
    return DecodedImage(
        np.ascontiguousarray(colours), () if is_opaque else (TRANSPARENT_NOTE,)
    )


def load_picture(item: Picture, channel_order: str = 'rgb') -> DecodedImage:
    """Return a picture as 8-bit RGB.

    Args:
        item: a file; an array ``(H, W, 3)``, with alpha ``(H, W, 4)`` or, if grey,
            ``(H, W)``; a tensor with the channels first; or a picture of Pillow.
            Floats are 0..1, integers 0..255. Alpha is left out, as in files.
        channel_order: of arrays and tensors, ``'rgb'`` or ``'bgr'``.

    Raises:
        OSError: see :func:`~zs3_mmseg.utils.image_io.decode_image`.
        ValueError: other shapes or values.
    """
    if isinstance(item, Image.Image):
        return from_pillow(item)
    if isinstance(item, torch.Tensor):
        if item.ndim == 3 and item.shape[0] > 4:
            raise ValueError(
                'expected a tensor of shape (3, H, W), (4, H, W) or (H, W), got '
                f'{tuple(item.shape)}'
            )
        array = item.detach().cpu().numpy()
        item = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
    if isinstance(item, np.ndarray):
        return _as_rgb(item, channel_order)
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

    Of a single class the label map is the mask, 1 where its score reaches the model's
    ``test_cfg.score_thr``, else 0, as in mmseg.

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
        return_scores: keep the scores of all classes at the original size, in results
            and data samples, which needs K times the memory of the label map. Heat
            maps are then written beside overlays.
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
        self._keeps_scores = return_scores
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
        self, names: Sequence[str] | None, unseen: Sequence[str] | None = None
    ) -> None:
        """Change the vocabulary; see the segmentor's method of this name.

        None brings back the model's own names.

        Raises:
            ValueError: empty or repeated names, or a model with a fixed vocabulary.
        """
        if not hasattr(self.model, 'set_classes'):
            raise ValueError(
                f'a {type(self.model).__name__} knows its own '
                f'{len(self.classes)} classes only: leave the names out'
            )
        self.model.set_classes(names, unseen)

    def _init_model(
        self, cfg: Config, weights: str | None, device: str = 'cpu'
    ) -> nn.Module:
        if self._given is None:
            return init_segmentor(cfg, weights, device)
        if weights is not None:
            raise ValueError('a segmentor that is built already takes no weights')
        return self._given

    def _init_pipeline(self, cfg: Config) -> PicturePipeline:
        return PicturePipeline(find_test_pipeline(cfg))

    def _init_collate(self, cfg: Config) -> object:
        return pseudo_collate

    def _init_visualizer(self, cfg: Config) -> None:
        """Pictures are drawn by functions, without mmengine's global visualizer."""

    def _inputs_to_list(
        self, inputs: Picture | Sequence[Picture]
    ) -> list[Path | InMemory]:
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
            # A file goes to the config's own reader: that is what its test sees.
            given = (
                decoded.pixels[..., ::-1] if isinstance(item, InMemory) else Path(item)
            )
            try:
                read, prepared = self.pipeline(given)
            except cv2.error as error:
                height, width = decoded.pixels.shape[:2]
                raise ValueError(
                    f'the test pipeline of the config cannot bring {width} x {height} '
                    f'pixels to its size ({error.err})'
                ) from error
            yield DecodedImage(read, decoded.notes), as_batch(prepared)

    def _to_segmentation(
        self, item: Picture, decoded: DecodedImage, sample: SegDataSample
    ) -> Segmentation:
        classes, seen, palette = self._names_seen_palette()
        void = void_label(len(classes))
        labels: torch.Tensor = sample.pred_sem_seg.data[0].long()
        # Of one class it is the mask already.
        if len(classes) > 1:
            labels = torch.where(labels < len(classes), labels, void)
        narrow = np.uint8 if void < 256 else np.uint16
        return Segmentation(
            image=decoded.pixels,
            labels=labels.cpu().numpy().astype(narrow),
            classes=classes,
            palette=tuple((int(r), int(g), int(b)) for r, g, b in palette),
            unseen=frozenset(index for index, known in enumerate(seen) if not known),
            source=None if isinstance(item, InMemory) else str(item),
            notes=decoded.notes,
            scores=self._scores_of(sample) if self._keeps_scores else None,
        )

    @staticmethod
    def _scores_of(sample: SegDataSample) -> np.ndarray:
        if 'seg_logits' not in sample:
            raise ValueError(
                'return_scores=True: this segmentor was built without scores; set its '
                'test_cfg.return_scores=True'
            )
        return sample.seg_logits.data.float().cpu().numpy()

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

    @contextmanager
    def _asked(
        self, names: Sequence[str] | None, unseen: Sequence[str] | None
    ) -> Iterator[None]:
        """Hold the vocabulary of a call, whatever other threads do to the model."""
        if hasattr(self.model, 'using_classes'):
            with self.model.using_classes(names, unseen):
                yield
        elif names is None:
            yield
        else:
            raise ValueError(
                f'a {type(self.model).__name__} takes no classes with a call: use '
                'set_classes, if it has that'
            )

    def segment(
        self,
        image: Picture,
        classes: Sequence[str] | None = None,
        unseen: Sequence[str] | None = None,
        *,
        channel_order: str = 'rgb',
    ) -> tuple[Segmentation, SegDataSample]:
        """Segment one picture.

        Args:
            image: a file or pixels, see :func:`load_picture`.
            classes: the vocabulary of this call alone, which other threads do not
                notice; by default that of the inferencer.
            unseen: which of ``classes`` are marked as unseen, see the class.
            channel_order: of an array or a tensor; ``'bgr'`` for what ``cv2.imread``
                returns and mmseg's ``inference_model`` takes.

        Returns:
            the segmentation, and mmseg's data sample for it.

        Raises:
            OSError: a file that is missing or no whole picture; see ``decode_image``.
            ValueError: an array that is no picture.
        """
        decoded, batch = next(self.preprocess([image], channel_order=channel_order))
        with self._asked(classes, unseen):
            sample = self.forward(batch)[0]
            return self._to_segmentation(image, decoded, sample), sample

    def __call__(
        self,
        images: Picture | Sequence[Picture],
        out_dir: str | os.PathLike | None = None,
        *,
        classes: Sequence[str] | None = None,
        unseen: Sequence[str] | None = None,
        return_datasamples: bool = False,
        return_vis: bool = False,
        alpha: float = 0.6,
        channel_order: str = 'rgb',
    ) -> dict[str, list]:
        """Segment pictures, and write the results if ``out_dir`` is given.

        ``classes`` and ``unseen`` are the vocabulary of this call alone, see
        :meth:`segment`.

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
            found, sample = self.segment(
                item, classes, unseen, channel_order=channel_order
            )
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

    def stream(
        self, images: Iterable[Picture] | Picture, *, channel_order: str = 'rgb'
    ) -> Iterator[Segmentation]:
        """Yield the segmentation of each picture as soon as it is there.

        Nothing is kept, so any number of pictures can be given, such as the frames of
        :func:`video_frames`. Files, folders and patterns are listed when their turn
        comes.

        Raises:
            OSError, ValueError: see :meth:`segment`.
        """
        given = [images] if isinstance(images, Picture) else images
        every = (item for part in given for item in list_pictures(part))
        steps = track(every, 'Segmenting') if self.show_progress else every
        for item in steps:
            yield self.segment(item, channel_order=channel_order)[0]

    def write(
        self,
        segmentation: Segmentation,
        names: OutputNames,
        stem: str,
        *,
        alpha: float = 0.6,
    ) -> tuple[Path, ...]:
        """Write one result under a name nobody else has; return its files."""
        return write_segmentation(
            segmentation,
            names.folder,
            names.claim(stem),
            alpha=alpha,
            model=self._model_record,
        )
