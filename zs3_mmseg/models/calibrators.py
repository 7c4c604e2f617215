"""Test-time corrections of class scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg.registry import MODELS

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.models.decode_heads.zero_shot_head import reduce_queries, single_rows
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.names import choose, did_you_mean

if TYPE_CHECKING:
    from zs3_mmseg.models.segmentors.inference import CalibrationData

__all__ = [
    'Calibrator',
    'EMPriorShift',
    'GroupTemperature',
    'ImageLevelGate',
    'PriorCorrection',
    'SeenShift',
    'TrustGate',
    'UnseenMassMatch',
    'VocabularyPruner',
]

#: Where in the scores a calibrator works: before the activation, or after it.
SPACES = ('logit', 'score')


class Calibrator(nn.Module, ABC):
    """Changes class scores at test time, never in training.

    A segmentor runs its calibrators in the order of its list: those of
    ``space='logit'`` before the activation, those of ``space='score'`` after it. They
    see scores per class, after the reduction over synonyms, and a slice of the classes
    at a time, so that memory does not grow with the vocabulary. Heads that find masks
    first have no logits per class: only ``space='score'`` fits them.

    **What to write.** :meth:`forward`, whose result for a class depends on that class
    alone. A calibrator for which this is not enough declares one of these:

    - ``needs_all_classes = True`` and a method ``observe(observed, scores, queries,
      global_token, classes)``. Before anything is calibrated it is called for every
      slice of the classes with the scores ``(N, K', H, W)`` that :meth:`forward` will
      get, and returns what has been gathered so far; ``observed`` is what it returned
      for the slice before, None for the first. :meth:`forward` then gets the last of
      it as a further keyword ``observed``. Keep it small: a normaliser ``(N, 1, H,
      W)``, or a top-k, and not all scores.
    - ``needs_gate = True``: :meth:`forward` then gets the map of unseen pixels that the
      head makes, as a further keyword ``gate`` ``(N, 1, H, W)`` in 0..1; heads that
      make none are refused.
    - a method ``fit(dataset)``, which learns from images without their labels. It is
      called by ``ZeroShotEncoderDecoder.fit_calibrators`` and may go through
      ``dataset`` several times: each item is one crop of one image, an iterator over
      pairs of a slice of the classes and their scores ``(1, K', h, w)`` as
      :meth:`forward` would get them; ``dataset.queries`` are the classes. What it
      learns belongs in buffers, which are saved with the model. Results are
      transductive from then on and reported so.

    Args:
        space: ``'logit'`` or ``'score'``.

    Raises:
        ValueError: for another space.
        TypeError: if it needs all classes and has no ``observe``.
    """

    #: Whether the calibrator cannot do without the image's global token.
    needs_global_token: bool = False
    #: Whether a class's result depends on the scores of others, see above.
    needs_all_classes: bool = False
    #: Whether it reads the head's map of unseen pixels, see above.
    needs_gate: bool = False

    def __init__(self, space: Literal['logit', 'score']) -> None:
        super().__init__()
        self.space = choose('space', space, SPACES)
        if self.needs_all_classes and not hasattr(self, 'observe'):
            raise TypeError(
                f'{type(self).__name__} has needs_all_classes=True, but no method '
                'observe(observed, scores, queries, global_token, classes)'
            )

    @abstractmethod
    def forward(
        self,
        scores: Tensor,
        queries: ClassQueries,
        global_token: Tensor | None = None,
        classes: slice = slice(None),
    ) -> Tensor:
        """Return calibrated scores.

        Args:
            scores: ``(N, K', H, W)``, of the classes in ``classes``.
            queries: rows of all ``K`` classes.
            global_token: ``(N, E)`` token of each image or crop, if there is one.
            classes: which of the ``K`` classes ``scores`` holds.

        Returns:
            ``(N, K', H, W)``, a new tensor or ``scores`` itself if nothing changes.
        """


@MODELS.register_module()
class SeenShift(Calibrator):
    """Subtract ``shift`` from every seen class: ``s_k - shift [k is seen]``.

    Calibrated stacking (arXiv 1605.04253). ZegCLIP (2212.03588) takes 0.1 off the
    sigmoid scores of seen classes, in inductive testing only. In the logit space of a
    softmax it multiplies seen probabilities by ``exp(-shift)`` before normalisation.

    Args:
        shift: the constant; negative values favour seen classes.
        space: ``'logit'`` or ``'score'``; the constant means nothing without it.
    """

    def __init__(
        self, shift: float = 0.1, *, space: Literal['logit', 'score'] = 'score'
    ) -> None:
        super().__init__(space)
        self.shift = shift

    def forward(
        self,
        scores: Tensor,
        queries: ClassQueries,
        global_token: Tensor | None = None,
        classes: slice = slice(None),
    ) -> Tensor:
        """Return ``scores - shift`` for seen classes, ``scores`` for the others."""
        seen = queries.seen_mask[classes].to(scores.dtype)
        return scores - self.shift * seen[:, None, None]


@MODELS.register_module()
class TrustGate(Calibrator):
    """Weigh scores by the map of unseen pixels that a trusty query made (TagCLIP).

    With the map ``w`` in 0..1 (arXiv 2304.07547), ``s_k <- s_k (1 - w)`` for seen and
    ``s_k <- s_k w`` for unseen classes. A shift of seen classes comes before it in the
    official code: ``calibrators=[dict(type='SeenShift'), dict(type='TrustGate')]``.

    Args:
        mode: ``'both'`` groups are weighed, or only ``'seen'`` or ``'unseen'`` classes.
    """

    needs_gate = True

    def __init__(self, mode: Literal['both', 'seen', 'unseen'] = 'both') -> None:
        super().__init__('score')
        self.mode = choose('TrustGate.mode', mode, ('both', 'seen', 'unseen'))

    def forward(
        self,
        scores: Tensor,
        queries: ClassQueries,
        global_token: Tensor | None = None,
        classes: slice = slice(None),
        gate: Tensor | None = None,
    ) -> Tensor:
        """Return weighed scores."""
        assert gate is not None  # needs_gate
        seen = queries.seen_mask[classes][:, None, None]
        weights = torch.where(seen, 1 - gate, gate)
        if self.mode != 'both':
            weights = torch.where(seen == (self.mode == 'seen'), weights, 1.0)
        return scores * weights.to(scores.dtype)


@MODELS.register_module()
class ImageLevelGate(Calibrator):
    """Add the image-level logits of the global token to every pixel's scores.

    ``scores + weight * scale * cos(global token, class row)``; a class with synonyms
    counts with its best one. In sliding inference each window votes for itself. This
    is the training-free control of Shapes: choose ``weight`` on val images.

    Args:
        weight: factor on the image-level logits; 0 switches the gate off.
        space: ``'logit'`` or ``'score'``.
        scale: factor on the cosines; the one of ``DenseTextHead``, so that a weight
            of 1 counts image and pixel alike.
    """

    needs_global_token = True

    def __init__(
        self,
        weight: float,
        *,
        space: Literal['logit', 'score'] = 'logit',
        scale: float = 40.0,
    ) -> None:
        super().__init__(space)
        self.weight = weight
        self.scale = scale

    def forward(
        self,
        scores: Tensor,
        queries: ClassQueries,
        global_token: Tensor | None = None,
        classes: slice = slice(None),
    ) -> Tensor:
        """Return gated scores.

        Raises:
            ValueError: if there is no global token, or it has another width than the
                class embeddings.
        """
        if global_token is None:
            raise ConfigError(
                'ImageLevelGate needs the global token of the image: use a backbone '
                'that returns one, e.g. OpenCLIPViT(out_global=True)'
            )
        rows = single_rows(queries, 'ImageLevelGate')
        if global_token.shape[1] != rows.shape[1]:
            raise ConfigError(
                f'the global token has {global_token.shape[1]} channels and class '
                f'embeddings {rows.shape[1]}: ImageLevelGate needs both from one CLIP'
            )
        with torch.autocast(scores.device.type, enabled=False):
            cosines = (
                F.normalize(global_token.float(), dim=1)
                @ F.normalize(rows.float(), dim=1).T
            )  # (N, Q)
            gate = reduce_queries(cosines, queries.queries_per_class, 'max')
            votes = self.weight * self.scale * gate[:, classes]  # (N, K')
        return scores + votes[:, :, None, None]


@MODELS.register_module()
class GroupTemperature(Calibrator):
    """Divide the logits of each group by its temperature: ``z_k / T_group``.

    Under one softmax over all classes a temperature above 1 makes a group less sure of
    itself (temperature scaling of arXiv 1706.04599, one for each group).

    Args:
        seen: temperature of seen classes, above 0.
        unseen: temperature of unseen classes, above 0.
        space: ``'logit'`` or ``'score'``.

    Raises:
        ValueError: for a temperature that is not positive.
    """

    def __init__(
        self,
        seen: float = 1.0,
        unseen: float = 1.0,
        *,
        space: Literal['logit', 'score'] = 'logit',
    ) -> None:
        super().__init__(space)
        if not (seen > 0 and unseen > 0):
            raise ValueError(
                'GroupTemperature needs seen > 0 and unseen > 0, got '
                f'{seen} and {unseen}'
            )
        self.seen = seen
        self.unseen = unseen

    def forward(
        self,
        scores: Tensor,
        queries: ClassQueries,
        global_token: Tensor | None = None,
        classes: slice = slice(None),
    ) -> Tensor:
        """Return scores divided by the temperature of their group."""
        seen = queries.seen_mask[classes]
        divisor = torch.where(seen, self.seen, self.unseen).to(scores.dtype)
        return scores / divisor[:, None, None]


@MODELS.register_module()
class PriorCorrection(Calibrator):
    """Move posteriors from the class shares of training to those of the test.

    ``z_k + tau * ln(test_k / train_k)`` for logits, ``s_k * (test_k / train_k) ** tau``
    for scores: Bayes' rule where training and test differ in their priors alone
    (Saerens et al. 2002, eq. 2.4; logit adjustment of arXiv 2007.07314).

    Args:
        train_prior: share of pixels of each class in training, by class name. Classes
            that are not in it had no labels: they get the smallest share that is.
        test_prior: the shares that are expected, by class name; ``'uniform'``: one for
            all.
        tau: how much of the correction is made; 0 is none.
        space: ``'logit'`` or ``'score'``.

    Raises:
        ValueError: for shares that are not positive; on the first call, for names that
            are no classes, and seen classes without a share.
    """

    def __init__(
        self,
        train_prior: Mapping[str, float],
        test_prior: Mapping[str, float] | Literal['uniform'] = 'uniform',
        tau: float = 1.0,
        *,
        space: Literal['logit', 'score'] = 'logit',
    ) -> None:
        super().__init__(space)
        if isinstance(test_prior, str):
            choose('PriorCorrection.test_prior', test_prior, ('uniform',))
        self.train_prior = _shares('PriorCorrection.train_prior', train_prior)
        self.test_prior = (
            None
            if isinstance(test_prior, str)
            else _shares('PriorCorrection.test_prior', test_prior)
        )
        self.tau = tau

    def forward(
        self,
        scores: Tensor,
        queries: ClassQueries,
        global_token: Tensor | None = None,
        classes: slice = slice(None),
    ) -> Tensor:
        """Return corrected scores."""
        pairs = zip(queries.names, queries.seen_mask.tolist(), strict=True)
        seen = [name for name, is_seen in pairs if is_seen]
        train = _by_name('train_prior', self.train_prior, queries.names, seen)
        ratio = -train.log()
        if self.test_prior is not None:
            test = _by_name('test_prior', self.test_prior, queries.names, queries.names)
            ratio = ratio + test.log()
        change = (self.tau * ratio)[classes].to(scores)[:, None, None]
        return scores + change if self.space == 'logit' else scores * change.exp()


def _shares(option: str, prior: Mapping[str, float]) -> dict[str, float]:
    """Return a prior whose shares sum to 1."""
    wrong = [name for name, share in prior.items() if not share > 0]
    if wrong or not prior:
        raise ValueError(
            f'{option} must give classes shares above 0'
            + (
                f', and {wrong[0]!r} has {prior[wrong[0]]}'
                if wrong
                else ', and is empty'
            )
        )
    total = sum(prior.values())
    return {name: share / total for name, share in prior.items()}


def _by_name(
    option: str,
    prior: Mapping[str, float],
    names: Sequence[str],
    required: Sequence[str],
) -> Tensor:
    """Return shares ``(K,)`` in the order of the classes."""
    unknown = [name for name in prior if name not in names]
    if unknown:
        raise ValueError(
            f'PriorCorrection.{option}: {unknown[0]!r} is no class.'
            f'{did_you_mean(unknown[0], names)}'
        )
    missing = [name for name in required if name not in prior]
    if missing:
        raise ValueError(f'PriorCorrection.{option} has no share for {missing[0]!r}')
    least = min(prior.values())
    return torch.tensor([prior.get(name, least) for name in names])


class _Fitted(Calibrator):
    """A calibrator that adds constants per class, learned from unlabelled images.

    What it learns holds for the names that it was fitted on; it is saved with the model
    as extra state, since its size is not known before.
    """

    def __init__(self) -> None:
        super().__init__('logit')
        self.fitted_names: tuple[str, ...] = ()
        self.constants: list[float] = []

    def get_extra_state(self) -> dict[str, Any]:
        """Return names and constants; both are empty before the fit."""
        return {'names': list(self.fitted_names), 'constants': list(self.constants)}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take names and constants from a checkpoint."""
        names, constants = state['names'], state['constants']
        if len(names) != len(constants):
            raise ValueError(
                f'{type(self).__name__}: a checkpoint holds {len(constants)} constants '
                f'for {len(names)} names'
            )
        self.fitted_names = tuple(map(str, names))
        self.constants = [float(value) for value in constants]

    def _load_from_state_dict(
        self, state_dict: Mapping, prefix: str, *args: Any
    ) -> None:
        """Take weights of a model that had no such calibrator: it is not fitted."""
        if f'{prefix}_extra_state' not in state_dict:
            self.fitted_names, self.constants = (), []
            state_dict = {**state_dict, f'{prefix}_extra_state': self.get_extra_state()}
        super()._load_from_state_dict(state_dict, prefix, *args)

    def fit(self, dataset: CalibrationData) -> None:
        """Learn constants from images.

        Args:
            dataset: crops of images, as scores of all classes in slices.
        """
        constants = self._learn(dataset, dataset.queries)
        self.fitted_names = dataset.queries.names
        self.constants = constants.tolist()

    @abstractmethod
    def _learn(self, dataset: CalibrationData, queries: ClassQueries) -> Tensor:
        """Return constants ``(K,)`` to be added to the logits."""

    def forward(
        self,
        scores: Tensor,
        queries: ClassQueries,
        global_token: Tensor | None = None,
        classes: slice = slice(None),
    ) -> Tensor:
        """Return logits with the constants of their classes added.

        Raises:
            ConfigError: before the fit, and for other names than those of the fit.
        """
        if not self.fitted_names or self.fitted_names != queries.names:
            what = (
                'was fitted on other classes' if self.fitted_names else 'is not fitted'
            )
            raise ConfigError(
                f'{type(self).__name__} {what}: call '
                'segmentor.fit_calibrators(dataset), or test with --fit-calibrators'
            )
        return scores + scores.new_tensor(self.constants)[classes][:, None, None]


def _whole(dataset: CalibrationData) -> Iterator[Tensor]:
    """Yield the logits of each crop, ``(K, pixels)`` in float64."""
    for crop in dataset:
        yield torch.cat([part for _, part in crop], dim=1)[0].flatten(1).double()


@MODELS.register_module()
class EMPriorShift(_Fitted):
    """Estimate the class shares of unlabelled test images, and correct for them.

    Expectation maximisation of Saerens et al. 2002 (eq. 2.9): with posteriors ``p`` of
    the model, the softmax of its logits, and priors ``pi_0`` of training, repeat
    ``pi_k <- mean over pixels of p_k pi_k / pi_0k`` (each pixel's sum being 1). Then
    ``ln(pi_k / pi_0k)`` is added to the logits. It is transductive: it sees the test
    images, though none of their labels. Every class starts at, and ``pi_0`` is, an
    equal share, since nothing is known of unseen classes.

    A class that hardly occurs would be ruled out by its own estimate: shares have a
    floor and the correction a limit.

    Args:
        iterations: steps of the maximisation.
        pixels_per_crop: how many pixels of a crop count, evenly spread; None: all. They
            are kept in memory as ``K`` numbers each.
        floor: the smallest share.
        max_change: largest size of what is added to a logit.

    Raises:
        ValueError: if an option is out of its range.
    """

    def __init__(
        self,
        iterations: int = 10,
        pixels_per_crop: int | None = 1024,
        floor: float = 1e-6,
        max_change: float = 3.0,
    ) -> None:
        super().__init__()
        if iterations < 1 or (pixels_per_crop is not None and pixels_per_crop < 1):
            raise ValueError(
                'EMPriorShift needs iterations >= 1 and pixels_per_crop >= 1 or None, '
                f'got {iterations} and {pixels_per_crop}'
            )
        if not (0 < floor < 1 and max_change > 0):
            raise ValueError(
                'EMPriorShift needs floor between 0 and 1 and max_change > 0, got '
                f'{floor} and {max_change}'
            )
        self.iterations = iterations
        self.pixels_per_crop = pixels_per_crop
        self.floor = floor
        self.max_change = max_change

    def _learn(self, dataset: CalibrationData, queries: ClassQueries) -> Tensor:
        kept = []
        for logits in _whole(dataset):
            pixels = logits.shape[1]
            step = max(1, pixels // (self.pixels_per_crop or pixels))
            kept.append(logits[:, ::step].cpu())
        posteriors = torch.cat(kept, dim=1).softmax(dim=0)
        equal = 1 / queries.num_classes
        shares = posteriors.new_full((queries.num_classes, 1), equal)
        for _ in range(self.iterations):
            shifted = posteriors * shares
            shifted /= shifted.sum(dim=0)
            shares = shifted.mean(dim=1, keepdim=True).clamp(min=self.floor)
            shares /= shares.sum()
        change = (shares[:, 0] / equal).log()
        return change.clamp(-self.max_change, self.max_change)


@MODELS.register_module()
class UnseenMassMatch(_Fitted):
    """Shift unseen logits until unseen classes get a given share of all pixels.

    The constant ``b`` on unseen logits for which the mean over pixels of
    ``sum_unseen softmax(z + b [unseen])_k`` is ``mass``. With the log odds of unseen
    against seen, ``d = logsumexp_unseen z - logsumexp_seen z``, that is
    ``mean sigmoid(d + b) = mass``, found by bisection on a histogram of ``d``. It is
    transductive.

    Args:
        mass: the share, between 0 and 1; None: the share of classes that are unseen.
        bins: of the histogram.
        limit: log odds beyond it, and constants, are cut off there.

    Raises:
        ValueError: if an option is out of its range; at the fit, if a group has no
            class.
    """

    def __init__(
        self, mass: float | None = None, bins: int = 20_000, limit: float = 100.0
    ) -> None:
        super().__init__()
        if mass is not None and not 0 < mass < 1:
            raise ValueError(f'UnseenMassMatch needs 0 < mass < 1 or None, got {mass}')
        if bins < 2 or limit <= 0:
            raise ValueError(
                f'UnseenMassMatch needs bins >= 2 and limit > 0, got {bins} and {limit}'
            )
        self.mass = mass
        self.bins = bins
        self.limit = limit

    def _learn(self, dataset: CalibrationData, queries: ClassQueries) -> Tensor:
        seen = queries.seen_mask.cpu()
        if seen.all() or not seen.any():
            raise ValueError(
                'UnseenMassMatch compares seen and unseen classes, and all classes are '
                f'{"seen" if seen.all() else "unseen"}'
            )
        counts = torch.zeros(self.bins, dtype=torch.float64)
        for logits in _whole(dataset):
            logits = logits.cpu()
            odds = logits[~seen].logsumexp(dim=0) - logits[seen].logsumexp(dim=0)
            inside = odds.clamp(-self.limit, self.limit)
            counts += torch.histc(inside, self.bins, -self.limit, self.limit)
        width = 2 * self.limit / self.bins
        middles = (torch.arange(self.bins).double() + 0.5) * width - self.limit
        wanted = (~seen).double().mean() if self.mass is None else self.mass
        low, high = -2 * self.limit, 2 * self.limit
        while high - low > width / 1000:
            shift = (low + high) / 2
            mass = (counts * (middles + shift).sigmoid()).sum() / counts.sum()
            low, high = (shift, high) if mass < wanted else (low, shift)
        return (~seen).double() * min(max(high, -self.limit), self.limit)


@MODELS.register_module()
class VocabularyPruner(Calibrator):
    """Take the classes that an image as a whole does not show out of the contest.

    A class counts with the largest, or the mean, of its scores over the image. All but
    the ``keep`` best classes, and those below ``threshold``, lose everywhere: their
    logits become -1e4 (which a softmax or sigmoid turns into 0), their scores the
    smallest score of the image. In sliding inference each window judges for itself.

    Args:
        keep: how many classes stay; None: any number.
        threshold: what a class must reach to stay; None: anything. The best class
            always stays.
        pool: ``'max'`` or ``'mean'`` over the pixels.
        space: ``'logit'`` or ``'score'``.

    Raises:
        ValueError: without ``keep`` and ``threshold``, or for a ``keep`` below 1.
    """

    needs_all_classes = True

    def __init__(
        self,
        keep: int | None = None,
        threshold: float | None = None,
        *,
        pool: Literal['max', 'mean'] = 'max',
        space: Literal['logit', 'score'] = 'logit',
    ) -> None:
        super().__init__(space)
        if keep is None and threshold is None:
            raise ValueError('VocabularyPruner needs keep=, threshold= or both')
        if keep is not None and keep < 1:
            raise ValueError(f'VocabularyPruner needs keep >= 1, got {keep}')
        self.keep = keep
        self.threshold = threshold
        self.pool = choose('VocabularyPruner.pool', pool, ('max', 'mean'))

    def observe(
        self,
        observed: tuple[Tensor, Tensor] | None,
        scores: Tensor,
        queries: ClassQueries,
        global_token: Tensor | None,
        classes: slice,
    ) -> tuple[Tensor, Tensor]:
        """Gather votes ``(N, K)`` of classes so far, and least scores ``(N,)``."""
        flat = scores.flatten(2)
        votes = flat.amax(dim=2) if self.pool == 'max' else flat.mean(dim=2)
        least = flat.amin(dim=(1, 2))
        if observed is None:
            return votes, least
        return torch.cat([observed[0], votes], 1), torch.minimum(observed[1], least)

    def forward(
        self,
        scores: Tensor,
        queries: ClassQueries,
        global_token: Tensor | None = None,
        classes: slice = slice(None),
        observed: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Return scores in which pruned classes have the value that loses."""
        assert observed is not None  # needs_all_classes
        votes, least = observed
        order = votes.argsort(dim=1, descending=True, stable=True)
        rank = order.argsort(dim=1)  # 0 for the best
        stays = rank < (self.keep or votes.shape[1])
        if self.threshold is not None:
            stays &= (votes >= self.threshold) | (rank == 0)
        fill = least if self.space == 'score' else torch.full_like(least, -1e4)
        stays = stays[:, classes, None, None]
        return torch.where(stays, scores, fill[:, None, None, None].to(scores.dtype))
