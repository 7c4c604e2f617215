"""Pictures in, segmentations out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.progress import track
from torch import nn

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.infer import BaseInferencer
from mmseg.structures import SegDataSample

from zs3_mmseg.utils.image_io import DecodedImage
from zs3_mmseg.utils.palette import default_palette

from .init import DEFAULT_CONFIG, init_segmentor, load_config
from .inputs import (
    InMemory,
    Picture,
    PictureFile,
    fetched,
    list_pictures,
    load_picture,
)
from .pipeline import PicturePipeline, UnreadableHere, as_batch, find_test_pipeline
from .segmentation import OutputNames, Segmentation, void_label, write_segmentation
from .video import is_video, video_frames

_OTHER_READER = "it was read by Pillow, as the reader of the config's test data cannot"


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
        #: What made the results, for files that are written of them.
        self.model_record = {
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
    ) -> list[PictureFile | InMemory]:
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
        for given_item in inputs:
            item = fetched(given_item)
            decoded = load_picture(item, channel_order)
            notes = decoded.notes
            array = decoded.pixels[..., ::-1]
            try:
                # A file goes to the config's own reader: that is what its test sees.
                if isinstance(item, InMemory):
                    read, prepared = self.pipeline(array)
                else:
                    try:
                        read, prepared = self.pipeline(Path(item))
                    except UnreadableHere:
                        read, prepared = self.pipeline(array)
                        notes = (*notes, _OTHER_READER)
            except cv2.error as error:
                height, width = array.shape[:2]
                raise ValueError(
                    f'the test pipeline of the config cannot bring {width} x {height} '
                    f'pixels to its size ({error.err})'
                ) from error
            yield DecodedImage(read, notes), as_batch(prepared)

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
            image: a file, an address or pixels, see :func:`load_picture`.
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
                stem = f'array_{number}' if isinstance(item, InMemory) else item.stem
                self.write(found, names, stem, alpha=alpha)
        return results

    def stream(
        self, images: Iterable[Picture] | Picture, *, channel_order: str = 'rgb'
    ) -> Iterator[Segmentation]:
        """Yield the segmentation of each picture as soon as it is there.

        Nothing is kept, so any number of pictures can be given. Files, folders and
        patterns are listed when their turn comes, and a video gives all of its frames;
        :func:`video_frames` chooses some of them, or takes a camera.

        Raises:
            OSError, ValueError: see :meth:`segment`.
        """
        given = [images] if isinstance(images, Picture) else images
        every = (
            item
            for part in given
            for item in (video_frames(part) if is_video(part) else list_pictures(part))
        )
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
            model=self.model_record,
        )
