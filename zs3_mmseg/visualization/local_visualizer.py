"""mmseg's visualizer, with unseen classes marked."""

from __future__ import annotations

import numpy as np

import mmcv
from mmengine.dist import master_only
from mmengine.structures import PixelData
from mmseg.registry import VISUALIZERS
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from zs3_mmseg.utils.labels import IGNORE_INDEX
from zs3_mmseg.utils.names import cut_file_name
from zs3_mmseg.visualization.drawing import (
    draw_legend,
    draw_segmentation,
    legend_entries,
    write_names,
)
from zs3_mmseg.visualization.overlay import enlarge, enlargement, legend_font_size
from zs3_mmseg.visualization.sheets import GAP, draw_titles

_TITLES = {'gt_sem_seg': 'truth', 'pred_sem_seg': 'prediction'}


@VISUALIZERS.register_module()
class ZeroShotLocalVisualizer(SegLocalVisualizer):
    """Draw truth and prediction with the unseen classes hatched and a legend.

    It takes the place of mmseg's ``SegLocalVisualizer`` in a config, so that
    ``tools/test.py --show-dir`` and training with a drawing hook show at a glance
    where classes without masks were found. Which classes are unseen stands in the
    data set's ``metainfo`` (``unseen``); with any other data set nothing is hatched.

    Args:
        name: name of the instance.
        alpha: 0 shows the picture alone, 1 the label colours alone.
        **kwargs: those of ``SegLocalVisualizer``: ``vis_backends``, ``save_dir``,
            ``classes``, ``palette``, ``dataset_name``, ``image``.
    """

    def __init__(
        self, name: str = 'visualizer', *, alpha: float = 0.6, **kwargs: object
    ) -> None:
        super().__init__(name, alpha=alpha, **kwargs)

    def _labels_of(
        self, sem_seg: PixelData, prompt: int | None, factor: int
    ) -> np.ndarray:
        labels = sem_seg.cpu().numpy().data[0].astype(np.int64)
        if prompt is not None:  # a mask of one named class; all else stays undrawn
            void = self.dataset_meta.get('ignore_index', IGNORE_INDEX)
            labels = np.where(labels == 1, prompt, void)
        return enlarge(labels, factor)

    def _draw_labels(
        self, image: np.ndarray, labels: np.ndarray, with_names: bool
    ) -> np.ndarray:
        classes = self.dataset_meta['classes']
        drawn = draw_segmentation(
            image,
            labels,
            classes,
            self.dataset_meta['palette'],
            self.dataset_meta.get('unseen', ()),
            self.dataset_meta.get('ignore_index', IGNORE_INDEX),
            self.alpha,
            void_colour=(0, 0, 0),
        )
        return write_names(drawn, labels, classes) if with_names else drawn

    def _draw_legend(
        self, maps: list[np.ndarray], width: int, font_size: int
    ) -> np.ndarray:
        """Draw the legend of the classes that occur in any of ``maps``."""
        classes = self.dataset_meta['classes']
        entries = legend_entries(
            classes, self.dataset_meta['palette'], self.dataset_meta.get('unseen', ())
        )
        present = sorted({int(label) for labels in maps for label in np.unique(labels)})
        return draw_legend(
            [entries[label] for label in present if 0 <= label < len(classes)],
            width,
            font_size=font_size,
        )

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: SegDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        step: int = 0,
        with_labels: bool | None = True,
        with_image: bool | None = False,
    ) -> None:
        """Draw truth and prediction side by side, and show or save them.

        Small pictures are enlarged by a whole factor where names are written, so
        that these can be read; without names the picture keeps its size.

        Args:
            name: identifies the picture to the storage backends.
            image: ``(H, W, 3)`` uint8, RGB.
            data_sample: holds ``gt_sem_seg``, ``pred_sem_seg``, or both; with
                ``prompt_class`` they are masks of that class.
            draw_gt: draw the truth if there is one.
            draw_pred: draw the prediction if there is one.
            show: open a window instead of saving.
            wait_time: seconds the window stays; 0 waits for a key.
            out_file: save to this file instead of to the storage backends.
            step: number of the picture for the storage backends.
            with_labels: write names into the regions and add a legend.
            with_image: put the plain picture in front.
        """
        factor = enlargement(*image.shape[:2]) if with_labels else 1
        image = enlarge(image, factor)
        prompt = None if data_sample is None else data_sample.get('prompt_class')
        # The prediction of a single class is its mask, too.
        alone = 0 if len(self.dataset_meta.get('classes', ())) == 1 else prompt
        maps = {
            _TITLES[key]: self._labels_of(data_sample.get(key), asked, factor)
            for key, wanted, asked in (
                ('gt_sem_seg', draw_gt, prompt),
                ('pred_sem_seg', draw_pred, alone),
            )
            if wanted and data_sample is not None and key in data_sample
        }
        panels = {'image': image} if with_image or not maps else {}
        for title, labels in maps.items():
            panels[title] = self._draw_labels(image, labels, bool(with_labels))
        gap = np.full((image.shape[0], GAP, 3), 255, dtype=np.uint8)
        strip = [part for panel in panels.values() for part in (gap, panel)][1:]
        drawn = np.concatenate(strip, axis=1)
        if maps and with_labels:
            font_size = legend_font_size(*image.shape[:2])
            key = self._draw_legend([*maps.values()], drawn.shape[1], font_size)
            drawn = np.concatenate([drawn, key])
            if len(panels) > 1:
                heads = draw_titles(list(panels), image.shape[1], font_size)
                drawn = np.concatenate([np.asarray(heads), drawn])
        self.set_image(drawn)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is None:
            self.add_image(cut_file_name(name), drawn, step)
        else:
            mmcv.imwrite(mmcv.rgb2bgr(drawn), out_file)
