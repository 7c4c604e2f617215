"""Test-time augmentation that knows what scores are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmengine.model import BaseTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import SampleList

from zs3_mmseg.utils.config_check import ConfigError

from .encoder_decoder import ZeroShotEncoderDecoder
from .inference import ImageResult


@MODELS.register_module()
class ZeroShotTTAModel(BaseTTAModel):
    """Averages the scores of a ``ZeroShotEncoderDecoder`` over augmented views.

    Sigmoid and softmax scores are averaged as they come, calibration included. Only
    raw logits pass through a softmax first, as in mmseg's ``SegTTAModel``, which would
    put every kind of score through one.

    Args:
        module: config of the segmentor, or the segmentor.
        **kwargs: as in mmengine's ``BaseTTAModel``.

    Raises:
        ValueError: if the segmentor does not return scores.
    """

    def __init__(self, module: Any, **kwargs: Any) -> None:
        super().__init__(module, **kwargs)
        if not isinstance(self.module, ZeroShotEncoderDecoder):
            raise ConfigError(
                'ZeroShotTTAModel knows the scores of ZeroShotEncoderDecoder, and the '
                f'model is a {type(self.module).__name__}: set '
                "tta_model.type='SegTTAModel'"
            )
        returned = self.module.test_cfg.get('return_scores', True)
        if returned is not True:
            raise ValueError(
                'test-time augmentation averages scores, which '
                f'model.test_cfg.return_scores={returned!r} does not return: set it to '
                'True'
            )

        labels = [p for p in self.module.post_processors if p.space == 'label']
        if labels:
            raise ValueError(
                f'{type(labels[0]).__name__} changes the label map of one view, and '
                'test-time augmentation averages the scores of several: take it out of '
                'model.post_processors'
            )

    def merge_preds(self, data_samples_list: list[SampleList]) -> SampleList:
        """Merge the predictions of each image's views.

        Args:
            data_samples_list: for each image the samples of its views, with
                ``seg_logits`` ``(K, H, W)`` at original size.

        Returns:
            the first view's sample of each image, with the mean scores in
            ``seg_logits`` and their label map ``(1, H, W)`` in ``pred_sem_seg``.
        """
        merged = []
        for views in data_samples_list:
            total: Tensor | None = None
            for view in views:
                scores = self._scores(view)
                total = scores if total is None else total + scores
            assert total is not None  # an image has at least one view
            mean = total / len(views)
            sample, result = views[0], ImageResult(len(mean), None)
            result.update(mean, slice(0, len(mean)))
            result.write(sample, self.module.label_rule)
            merged.append(sample)
        return merged

    def _scores(self, view: SegDataSample) -> Tensor:
        scores = view.seg_logits.data
        # A pair of image and name has two logits, whatever the segmentor's scores are.
        logits = self.module.score_kind == 'logit' or 'prompt_name' in view
        return torch.softmax(scores, dim=0) if logits and len(scores) > 1 else scores
