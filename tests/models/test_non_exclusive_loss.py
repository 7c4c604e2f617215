"""The non-exclusive loss against the formula written out with one-hot masks."""

from __future__ import annotations

import weakref

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zs3_mmseg.models.losses import NonExclusiveLoss, pixel_cross_entropy

VOID = 255
SIZE = (12, 10)


def batch(classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, classes, 3, 5, generator=generator)
    labels = torch.randint(0, classes, (2, *SIZE), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = VOID
    return logits.requires_grad_(), labels


def written_out(
    logits: Tensor,
    labels: Tensor,
    ignore_void: bool,
    gamma: float = 2.0,
    align_corners: bool = False,
) -> Tensor:
    """Both terms with masks of all classes at once, weights as published."""
    full = F.interpolate(
        logits.double(), SIZE, mode='bilinear', align_corners=align_corners
    )
    classes = torch.arange(logits.shape[1]).view(1, -1, 1, 1)
    target = (labels.unsqueeze(1) == classes).double()
    counted = (labels != VOID).double().unsqueeze(1)
    if not ignore_void:
        counted = torch.ones_like(counted)
    present = target.amax((2, 3))
    number = present.sum().clamp(min=1)
    p = full.sigmoid()
    weight = 0.25 * target + 0.75 * (1 - target)
    miss = p * (1 - target) + (1 - p) * target
    cross = F.binary_cross_entropy_with_logits(full, target, reduction='none')
    pixels = counted.sum((1, 2, 3)).clamp(min=1)
    focal = ((weight * miss**gamma * cross * counted).sum((1, 2, 3)) / pixels).sum()
    overlap = (p * target).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / ((p * counted + target).sum((2, 3)) + 1)
    return 100 * focal / number + (dice * present).sum() / number


@given(
    classes=st.integers(1, 9),
    chunk=st.integers(1, 10),
    ignore_void=st.booleans(),
    gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]),
    align_corners=st.booleans(),
    seed=st.integers(0, 99),
)
def test_value_and_gradient_are_those_of_the_formula(
    classes: int,
    chunk: int,
    ignore_void: bool,
    gamma: float,
    align_corners: bool,
    seed: int,
) -> None:
    logits, labels = batch(classes, seed)
    expected = written_out(logits, labels, ignore_void, gamma, align_corners)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    loss = NonExclusiveLoss(ignore_void=ignore_void, class_chunk=chunk, gamma=gamma)
    total = sum(loss(logits, labels, align_corners=align_corners).values())
    (gradient,) = torch.autograd.grad(total, logits)
    torch.testing.assert_close(total, expected.float(), rtol=1e-5, atol=1e-6)
    scale = expected_gradient.abs().max().item()
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize('name', ['loss_mask', 'loss_dice'])
@pytest.mark.parametrize('ignore_void', [False, True])
def test_the_gradient_is_that_of_small_steps(name: str, ignore_void: bool) -> None:
    logits, labels = batch(3)
    loss = NonExclusiveLoss(class_chunk=2, gamma=1.5, ignore_void=ignore_void)
    # The closed form differentiates nothing on its way: a wrong sign would stay unseen.
    assert torch.autograd.gradcheck(
        lambda logits: loss(logits, labels)[name],
        logits.detach().double().requires_grad_(),
    )


@pytest.mark.parametrize('size', [90.0, 1e3, 1e6])
def test_logits_far_out_have_the_loss_that_they_should(size: float) -> None:
    logits = torch.tensor([size, -size]).view(1, 2, 1, 1).requires_grad_()
    labels = torch.ones(1, *SIZE, dtype=torch.long)
    loss = NonExclusiveLoss(dice_weight=0)(logits, labels)['loss_mask']
    (gradient,) = torch.autograd.grad(loss, logits)
    # A certain negative and a certain positive, both wrong: alpha p^2 |x| each.
    torch.testing.assert_close(loss.item(), 100 * size, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.flatten(), torch.tensor([75.0, -25.0]))


def test_half_precision_is_summed_in_single() -> None:
    logits, labels = batch(5)
    half = logits.detach().bfloat16().requires_grad_()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        total = sum(NonExclusiveLoss()(half, labels).values())
    (gradient,) = torch.autograd.grad(total, half)
    exact = half.detach().float().requires_grad_()
    expected = written_out(exact, labels, ignore_void=False)
    (expected_gradient,) = torch.autograd.grad(expected, exact)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, expected.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient.bfloat16())


@pytest.mark.parametrize(
    'loss',
    [
        lambda logits, labels: NonExclusiveLoss()(logits, labels)['loss_mask'],
        lambda logits, labels: pixel_cross_entropy(logits, labels, ignore_index=VOID),
    ],
)
def test_a_second_derivative_is_refused(loss) -> None:
    logits, labels = batch(3)
    value = loss(logits, labels)
    with pytest.raises(RuntimeError, match='no second derivative'):
        torch.autograd.grad(value, logits, create_graph=True)


@pytest.mark.parametrize('ignore_void', [False, True])
def test_similarity_of_all_pixels_is_that_of_the_chunks(ignore_void: bool) -> None:
    logits, labels = batch(5)
    options = dict(ssim_weight=2.0, loss_weight=0.5, ignore_void=ignore_void)
    whole = NonExclusiveLoss(**options)(logits, labels)['loss_ssim']
    parts = NonExclusiveLoss(**options, class_chunk=2)(logits, labels)['loss_ssim']
    torch.testing.assert_close(parts, whole)
    assert 'loss_ssim' not in NonExclusiveLoss()(logits, labels)
    # A map is like itself, whatever is left out.
    target = F.one_hot(labels.clamp(max=5), 6)[..., :5].permute(0, 3, 1, 2).float()
    same = NonExclusiveLoss(**options)(target, torch.where(labels < 5, labels, VOID))
    torch.testing.assert_close(same['loss_ssim'], torch.tensor(0.0), atol=1e-6, rtol=0)


def test_each_term_has_its_own_gradient_through_the_chunks() -> None:
    gradients = {}
    for chunk in (2, 7):
        for name in ('loss_mask', 'loss_dice'):
            logits, labels = batch(7)
            NonExclusiveLoss(class_chunk=chunk)(logits, labels)[name].backward()
            gradients[chunk, name] = logits.grad
    for name in ('loss_mask', 'loss_dice'):
        torch.testing.assert_close(gradients[2, name], gradients[7, name])


@pytest.mark.parametrize('chunk', [2, 8])
def test_corners_can_be_aligned(chunk: int) -> None:
    logits, labels = batch(5)
    full = F.interpolate(logits, SIZE, mode='bilinear', align_corners=True)
    loss = NonExclusiveLoss(class_chunk=chunk)
    aligned = loss(logits, labels, VOID, align_corners=True)
    for name, expected in loss(full, labels, VOID).items():
        torch.testing.assert_close(aligned[name], expected)
        assert not torch.isclose(loss(logits, labels, VOID)[name], expected, rtol=1e-4)


def test_a_batch_without_labels_still_has_negatives() -> None:
    logits, _ = batch(5)
    losses = NonExclusiveLoss(class_chunk=2)(logits, torch.full((2, *SIZE), VOID))
    assert losses['loss_dice'] == 0
    assert losses['loss_mask'] > 0


class Allocated(TorchDispatchMode):
    """Counts the bytes of all results that are alive, and remembers the most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.alive: set[int] = set()

    def _free(self, storage: int, size: int) -> None:
        self.alive.discard(storage)
        self.now -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if not isinstance(leaf, Tensor):
                continue
            storage = leaf.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self.alive:
                self.alive.add(key)
                self.now += size
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._free, key, size)
        return result


def test_memory_at_label_resolution_does_not_grow_with_the_classes() -> None:
    most = {}
    for classes in (8, 80):
        logits, labels = batch(classes)
        labels = labels.repeat_interleave(16, 1).repeat_interleave(16, 2)
        with Allocated() as allocated:
            sum(NonExclusiveLoss(class_chunk=4)(logits, labels).values()).backward()
        most[classes] = allocated.most
    one_class = labels.numel() * 4
    assert most[80] - most[8] < one_class
    assert most[8] > 4 * one_class


def test_chunks_of_no_class_are_refused() -> None:
    with pytest.raises(ValueError, match='class_chunk must be at least 1, not 0'):
        NonExclusiveLoss(class_chunk=0)
