"""Self-training of a segmentor: when it begins, and who gives the pseudo-labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zs3_mmseg.utils.labels import special_labels

from .calls import call_with
from .open_vocabulary import OpenVocabulary

#: What a transductive training may be trained as.
SWITCHABLE = ('inductive', 'transductive')
#: What a head needs for unlabelled pixels.
_METHODS = ('training_outputs', 'resolve_unlabelled')


class SelfTraining(OpenVocabulary):
    """The part of :class:`ZeroShotEncoderDecoder` that fills unlabelled pixels."""

    pseudo_label_threshold: float | None
    score_kind: Any
    _features: Any
    _init_label_mappings: Any

    def _init_self_training(self, threshold: float | None) -> None:
        self.pseudo_label_threshold = threshold
        self._teacher: tuple[SelfTraining, ...] = ()
        if threshold is None:
            return
        head = type(self.decode_head).__name__
        if not self.understands_unlabelled:
            raise ValueError(
                f'pseudo_label_threshold={threshold} is for transductive training with '
                f'a head that fills unlabelled pixels; here setting={self.setting!r} '
                f'and the head is {head}'
            )
        if self.score_kind != 'logit' and not 0 <= threshold <= 1:
            raise ValueError(
                f'pseudo_label_threshold={threshold} must be in 0..1, as the scores of '
                f'{head} are'
            )

    @property
    def understands_unlabelled(self) -> bool:
        """Whether unlabelled pixels of transductive training can be used."""
        return self.setting == 'transductive' and all(
            hasattr(self.decode_head, name) for name in _METHODS
        )

    def train_as(self, setting: str) -> None:
        """Train by the rules of another setting from now on.

        Transductive training may begin inductively: only seen rows are used, and
        unlabelled pixels are ignored. What is tested and saved stays the same.

        Args:
            setting: ``'inductive'`` or ``'transductive'``.

        Raises:
            ValueError: if the model's own setting is not transductive.
        """
        if self.setting != 'transductive' or setting not in SWITCHABLE:
            raise ValueError(
                f'a model with setting={self.setting!r} cannot be trained as '
                f"{setting!r}: expected setting='transductive' and one of {SWITCHABLE}"
            )
        self.training_setting = setting
        self._queries.pop('training', None)
        self._init_label_mappings()

    def set_teacher(self, teacher: SelfTraining | None) -> None:
        """Let another segmentor of this kind make the pseudo-labels; None: this one.

        The teacher becomes no part of this module: it is neither moved nor saved nor
        trained with it.
        """
        # A tuple, because a module in an attribute would be registered.
        self._teacher = () if teacher is None else (teacher,)

    def _require_pseudo_labels(self) -> None:
        if not self.understands_unlabelled:
            raise ValueError(
                f'{type(self.decode_head).__name__} cannot fill unlabelled pixels, '
                "which setting='transductive' is about: use a head with "
                f'{" and ".join(_METHODS)}, or another setting'
            )

    @torch.no_grad()
    def _fill_unlabelled(self, inputs: Tensor, outputs: Any, labels: Tensor) -> Tensor:
        """Return labels ``(N, H, W)`` with pseudo-labels.

        Args:
            inputs: ``(N, 3, H, W)``, for the teacher if there is one.
            outputs: the training outputs of this model's head.
            labels: ``(N, H, W)``, indices of rows.
        """
        head, queries = self.decode_head, self.training_queries()
        for teacher in self._teacher:
            maps, token = teacher._features(inputs)
            head = teacher.decode_head
            outputs = call_with(
                head.training_outputs, maps, queries=queries, global_token=token
            )
        return head.resolve_unlabelled(
            outputs,
            labels,
            queries=queries,
            unlabelled_index=special_labels(len(self.split.classes)).unlabelled,
            threshold=self.pseudo_label_threshold,
        )
