"""Heads that are computed from sums over pixels of seen classes, not descended to."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from scipy.linalg import solve_sylvester
from torch import Tensor, nn

from mmengine.dist import all_reduce
from mmseg.registry import MODELS
from mmseg.utils import SampleList

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.names import choose

from .text_heads import cosine_maps
from .zero_shot_head import ZeroShotHead, single_rows


class FeatureSums:
    """Sums over labelled features, in float64, which may be added up over processes.

    Args:
        dim: channels ``D`` of a feature.
        num_rows: of the ``R`` classes.

    Attributes:
        gram: ``(D, D)``, the sum of ``x x^T`` over all features.
        by_row: ``(D, R)``, the sum of the features of each class.
        counts: ``(R,)``, how many there are.
    """

    def __init__(self, dim: int, num_rows: int, device: torch.device) -> None:
        options: dict[str, Any] = dict(dtype=torch.float64, device=device)
        self.gram = torch.zeros(dim, dim, **options)
        self.by_row = torch.zeros(dim, num_rows, **options)
        self.counts = torch.zeros(num_rows, **options)

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Take in features ``(n, D)`` and the rows ``(n,)`` of their classes."""
        features = features.double()
        self.gram += features.T @ features
        self.by_row.index_add_(1, labels, features.T)
        self.counts += labels.bincount(minlength=len(self.counts))

    def gather(self) -> None:
        """Add up the sums of all processes."""
        for sums in (self.gram, self.by_row, self.counts):
            all_reduce(sums)


class _Outputs(NamedTuple):
    """Class logits ``(N, K, h, w)``, features ``(N, D, h, w)`` and rows ``(K, A)``."""

    logits: Tensor
    features: Tensor
    queries: ClassQueries


class ClosedFormHead(ZeroShotHead):
    """Base of heads whose matrix follows from sums over features of seen classes.

    ``ClosedFormFitHook`` goes through training images before the first iteration and
    calls :meth:`solve`. What gradients then learn is ``scale`` alone, by cross-entropy:
    a closed form leaves open how sure its scores are, which changes no prediction but
    matters to calibrators.

    Args:
        in_channels: channels ``D`` of the features.
        embed_dim: length ``A`` of a class embedding.
        normalize: scale features to length 1 first.
        scale: initial factor on the scores, > 0.
        **kwargs: see :class:`ZeroShotHead`.

    Raises:
        ValueError: for a scale that is not positive.
    """

    score_kind = 'softmax'
    weight: Tensor
    fitted: Tensor

    def __init__(
        self,
        in_channels: int,
        *,
        embed_dim: int,
        normalize: bool = False,
        scale: float = 20.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, embed_dim, **kwargs)
        if not scale > 0:
            raise ValueError(f'{type(self).__name__}.scale must be > 0, not {scale}')
        self.normalize = normalize
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.register_buffer('weight', torch.zeros(embed_dim, in_channels))
        self.register_buffer('fitted', torch.tensor(False))
        self._sums: FeatureSums | None = None
        self._per_class: int | None = None
        self._collecting = False

    @abstractmethod
    def solution(self, sums: FeatureSums, rows: Tensor) -> Tensor:
        """Return the matrix ``W (A, D)``.

        Args:
            sums: over the features of the seen classes.
            rows: their embeddings, ``(R, A)`` in float64.
        """

    @abstractmethod
    def scores(self, features: Tensor, rows: Tensor) -> Tensor:
        """Return scores ``(N, Q, h, w)`` of features ``(N, D, h, w)`` and rows."""

    def collect(self, per_class: int | None) -> None:
        """From now on add up the features of all batches that losses are asked for.

        Args:
            per_class: at most so many features of a class in an image, evenly spread;
                None: all.
        """
        self._sums, self._per_class, self._collecting = None, per_class, True

    def solve(self, queries: ClassQueries) -> int:
        """Compute the matrix from what was collected; return the number of features.

        Raises:
            ConfigError: if a seen class has no labelled feature.
        """
        self._collecting = False
        rows = single_rows(queries, type(self).__name__).double()
        sums = self._sums or FeatureSums(self.in_channels, len(rows), rows.device)
        self._sums = None
        sums.gather()
        empty = [
            name
            for name, count in zip(queries.names, sums.counts.tolist(), strict=True)
            if not count
        ]
        if empty:
            raise ConfigError(
                f'{type(self).__name__}: no pixel of {empty[0]!r} is among the images '
                'of the fit: raise ClosedFormFitHook.num_images'
            )
        self.weight.copy_(self.solution(sums, rows))
        self.fitted.fill_(True)
        return int(sums.counts.sum())

    def query_logits(
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        global_token: Tensor | None = None,
    ) -> Tensor:
        """Return scaled scores, ``(N, Q, h, w)``.

        Raises:
            ConfigError: before the fit.
        """
        if not (self.fitted or self._collecting):
            raise ConfigError(
                f'{type(self).__name__} is not fitted: train it with '
                "dict(type='ClosedFormFitHook') in custom_hooks, or load a checkpoint"
            )
        rows = single_rows(queries, type(self).__name__)
        return self.log_scale.exp() * self.scores(self._features(inputs), rows)

    def _features(self, inputs: Sequence[Tensor]) -> Tensor:
        features = self._transform_inputs(inputs).float()
        return F.normalize(features, dim=1) if self.normalize else features

    def training_outputs(
        self, inputs: Sequence[Tensor], *, queries: ClassQueries, **given: Any
    ) -> _Outputs:
        """Return class logits, and the features and rows that they are made of."""
        logits = self.forward(inputs, queries=queries, **given)
        return _Outputs(logits, self._features(inputs), queries)

    def class_logits(self, outputs: _Outputs) -> Tensor:
        """Return the class logits ``(N, K, h, w)`` in :meth:`training_outputs`."""
        return outputs.logits

    def loss_by_feat(
        self, outputs: _Outputs, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Cross-entropy of the scaled scores; while collecting, add features up."""
        if self._collecting:
            labels = self._stack_batch_gt(batch_data_samples)  # (N, 1, H, W)
            self._add(outputs, labels)
        return super().loss_by_feat(outputs.logits, batch_data_samples)

    @torch.no_grad()
    def _add(self, outputs: _Outputs, labels: Tensor) -> None:
        features, owners = outputs.features, outputs.queries.query_to_class
        if len(owners) != outputs.queries.num_classes:
            raise ConfigError(
                f'{type(self).__name__} is fitted with one row for each class: take '
                'the synonyms out of the names of the split'
            )
        size = features.shape[2:]
        small = F.interpolate(labels.float(), size=size, mode='nearest').long()[:, 0]
        if self._sums is None:
            self._sums = FeatureSums(len(features[0]), len(owners), features.device)
        for image, own in zip(features, small, strict=True):
            places = torch.cat(
                [
                    self._spread((own.flatten() == row).nonzero().flatten())
                    for row in own.unique().tolist()
                    if row != self.ignore_index
                ]
                or [own.new_zeros(0)]
            )
            self._sums.add(image.flatten(1).T[places], own.flatten()[places])

    def _spread(self, places: Tensor) -> Tensor:
        """Return at most so many places as count, evenly spread."""
        wanted = self._per_class
        if wanted is None or len(places) <= wanted:
            return places
        return places[
            torch.arange(wanted, device=places.device) * len(places) // wanted
        ]


@MODELS.register_module()
class BilinearCompatibilityHead(ClosedFormHead):
    r"""Compatibility ``z_k = x^T W^T e_k`` of features and class rows: ESZSL.

    The closed form of Romera-Paredes and Torr (ICML 2015, eq. 4), for the features
    :math:`X (D, n)` of seen classes, their targets :math:`Y (n, R)`, 1 for the pixel's
    class and -1 for all others, and the rows :math:`M (A, R)` of the classes:

    .. math:: W^T = (X X^T + \gamma I)^{-1}\, X Y M^T\, (M M^T + \lambda I)^{-1}

    Args:
        in_channels: channels ``D`` of the features.
        embed_dim: length ``A`` of a class embedding.
        gamma: weight of the features' norm, > 0; it grows with the number of features.
        lam: weight of the rows' norm, > 0.
        **kwargs: see :class:`ClosedFormHead`.

    Raises:
        ValueError: for weights that are not positive.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        embed_dim: int,
        gamma: float = 1.0,
        lam: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, embed_dim=embed_dim, **kwargs)
        if gamma <= 0 or lam <= 0:
            raise ValueError(
                'BilinearCompatibilityHead needs gamma > 0 and lam > 0, got '
                f'{gamma} and {lam}'
            )
        self.gamma = gamma
        self.lam = lam

    def solution(self, sums: FeatureSums, rows: Tensor) -> Tensor:
        """Return ``W (A, D)``, see the class."""
        # X Y = 2 X onehot - (sum of all features) 1^T
        targets = 2 * sums.by_row - sums.by_row.sum(dim=1, keepdim=True)
        left = sums.gram + self.gamma * torch.eye(len(sums.gram)).to(sums.gram)
        right = rows.T @ rows
        right += self.lam * torch.eye(len(right)).to(right)
        half = torch.linalg.solve(left, targets @ rows)  # (D, A)
        return torch.linalg.solve(right, half.T)

    def scores(self, features: Tensor, rows: Tensor) -> Tensor:
        """Return compatibilities, ``(N, Q, h, w)``."""
        return torch.einsum('qa,ad,ndhw->nqhw', rows.float(), self.weight, features)


@MODELS.register_module()
class SemanticAutoencoderHead(ClosedFormHead):
    r"""An encoder from features to class rows that can be decoded back: SAE.

    Kodirov, Xiang and Gong (CVPR 2017, eq. 3 and 5). For features :math:`X (D, n)` of
    seen classes and the row of each one's class :math:`S (A, n)`

    .. math:: \min_W \|X - W^T S\|^2 + \lambda \|W X - S\|^2

    is solved by :math:`A W + W B = C` with :math:`A = S S^T`,
    :math:`B = \lambda X X^T` and :math:`C = (1 + \lambda) S X^T`, a Sylvester equation.

    Args:
        in_channels: channels ``D`` of the features.
        embed_dim: length ``A`` of a class embedding.
        lam: weight of the encoder, > 0.
        compare: ``'embedding'``: ``cos(W x, e_k)``; ``'feature'``: ``cos(x, W^T e_k)``.
        **kwargs: see :class:`ClosedFormHead`.

    Raises:
        ValueError: for an unknown ``compare``, or a ``lam`` that is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        embed_dim: int,
        lam: float = 1.0,
        compare: Literal['embedding', 'feature'] = 'embedding',
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, embed_dim=embed_dim, **kwargs)
        if lam <= 0:
            raise ValueError(f'SemanticAutoencoderHead needs lam > 0, got {lam}')
        self.lam = lam
        self.compare = choose(
            'SemanticAutoencoderHead.compare', compare, ('embedding', 'feature')
        )

    def solution(self, sums: FeatureSums, rows: Tensor) -> Tensor:
        """Return ``W (A, D)``, see the class."""
        own = (rows.T * sums.counts) @ rows  # S S^T
        both = rows.T @ sums.by_row.T  # S X^T
        solved = solve_sylvester(
            own.cpu().numpy(),
            (self.lam * sums.gram).cpu().numpy(),
            ((1 + self.lam) * both).cpu().numpy(),
        )
        return torch.from_numpy(solved)

    def scores(self, features: Tensor, rows: Tensor) -> Tensor:
        """Return cosines, ``(N, Q, h, w)``."""
        if self.compare == 'feature':
            return cosine_maps(features, rows.float() @ self.weight)
        encoded = torch.einsum('ad,ndhw->nahw', self.weight, features)
        return cosine_maps(encoded, rows)
