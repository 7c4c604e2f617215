"""What some heads compute before a training begins."""

from __future__ import annotations

import itertools

import torch

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from zs3_mmseg.engine.protocol import ProtocolError
from zs3_mmseg.models.decode_heads.closed_form_heads import ClosedFormHead
from zs3_mmseg.utils.checkpoint import unwrap


@HOOKS.register_module()
class ClosedFormFitHook(Hook):
    """Fits a ``ClosedFormHead`` on training images, before the first iteration.

    The images are the first draws of the training loader, with their augmentation; sums
    over their features are added up over processes, so that several give what one does.
    A resumed run has the fit in its checkpoint.

    Args:
        num_images: how many images, over all processes; None: each one once.
        per_class: at most so many features of a class in an image, evenly spread, so
            that large areas do not outweigh the others; None: all.

    Raises:
        ValueError: if a number is below 1.
    """

    #: It runs the backbone alone.
    needs_whole_model = True

    def __init__(
        self, num_images: int | None = None, per_class: int | None = 16
    ) -> None:
        for option, number in (('num_images', num_images), ('per_class', per_class)):
            if number is not None and number < 1:
                raise ValueError(
                    f'ClosedFormFitHook.{option} must be >= 1 or None, not {number}'
                )
        self.num_images = num_images
        self.per_class = per_class

    def before_train(self, runner: Runner) -> None:
        """Go through the images and solve for the matrix."""
        model = unwrap(runner.model)
        head = getattr(model, 'decode_head', None)
        if not isinstance(head, ClosedFormHead):
            raise ProtocolError(
                'ClosedFormFitHook fits heads with a closed form, and '
                f'{type(head).__name__} has none: leave it out of custom_hooks'
            )
        if runner.iter > 0:  # resumed
            return
        loader = runner.train_dataloader
        images = self.num_images or len(loader.dataset)
        batches = -(-images // (loader.batch_size * get_world_size()))
        model.eval()
        head.collect(self.per_class)
        with torch.no_grad():
            for data in itertools.islice(loader, batches):
                model(**model.data_preprocessor(data, True), mode='loss')
            count = head.solve(model.training_queries())
        model.train()
        runner.logger.info(
            f'{type(head).__name__} was fitted on {count:,} features of {images:,} '
            'images.'
        )
