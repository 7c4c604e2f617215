"""The pre-training: its recipe in numbers, its losses, its loop.

Started in several processes with an initialised ``torch.distributed``, each takes
its share of every batch; features are gathered for the loss and gradients averaged.
On a CPU two processes of one thread are faster than one of two threads, because
most operations here are too small to split.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from caption_pairs import CAPTIONS_PER_IMAGE, GROUND_COLUMN, THING_COLUMN, Pairs
from clip_model import mimetic_attention, normalised
from zs3_mmseg.models.towers import Architecture
from zs3_mmseg.models.towers.architectures import build_model, build_tokenizer
from zs3_mmseg.utils.cache import atomic_write

if TYPE_CHECKING:
    from open_clip import CLIP
    from open_clip.tokenizer import SimpleTokenizer

logger = logging.getLogger(__name__)

_LARGEST_LOGIT_SCALE = float(np.log(100.0))


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one kind of batch.

    Attributes:
        name: shown in the log.
        steps: optimiser steps.
        batch: pairs in a batch.
        mix: share of each pool (``Recipe.pools``) in a batch; they sum to 1.
        plain: captions name the classes of things and tell nothing else.
        patch_dropout: share of image patches left out in training
            (Li et al. 2023, "Scaling Language-Image Pre-training via Masking").
        grounds: share of the captions that tell only the grounds.
        things: share of the captions that tell only one of the things.
    """

    name: str
    steps: int
    batch: int
    mix: tuple[float, ...]
    plain: bool
    patch_dropout: float
    grounds: float = 0.0
    things: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """Everything the weights depend on, apart from code and library versions.

    Attributes:
        phases: trained one after another.
        peak_lr: largest learning rate of AdamW. It rises to it over ``warmup`` steps,
            falls as a cosine to ``anneal_lr`` at step ``fall_end``, and in the last
            phase straight to zero.
        anneal_lr: see ``peak_lr``.
        fall_end: see ``peak_lr``.
        warmup: steps of the rise.
        seed: of scenes, weights and batches.
        pools: subset and number of the scenes to draw from.
        mimetic: start self-attention of the image tower by
            :func:`~clip_model.mimetic_attention`.
        word_loss: weight of :class:`CaptionWordLoss` beside InfoNCE;
            0 is plain InfoNCE.
    """

    phases: tuple[Phase, ...] = (
        Phase('drawings', 150, 64, (1.0, 0.0, 0.0), True, 0.5),
        Phase('icons', 850, 64, (0.2, 0.8, 0.0), True, 0.5),
        Phase('scenes', 1300, 128, (0.0, 0.25, 0.75), False, 0.5, 0.15),
        Phase('details', 700, 128, (0.0, 0.15, 0.85), False, 0.3, 0.15),
        Phase('names', 2000, 128, (0.0, 0.1, 0.9), False, 0.4, 0.15, 0.25),
        Phase('anneal', 200, 96, (0.0, 0.1, 0.9), False, 0.0, 0.15, 0.25),
    )
    peak_lr: float = 1e-3
    anneal_lr: float = 3e-4
    fall_end: int = 2300
    warmup: int = 100
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    clip_grad: float = 1.0
    seed: int = 0
    pools: tuple[tuple[str, int], ...] = (
        ('clip_drawings', 12000),
        ('clip_icons', 12000),
        ('clip_scenes', 32000),
    )
    mimetic: bool = True
    word_loss: float = 1.0

    @property
    def steps(self) -> int:
        """Steps of all phases together."""
        return sum(phase.steps for phase in self.phases)

    @property
    def samples(self) -> int:
        """Pairs shown in all phases together."""
        return sum(phase.steps * phase.batch for phase in self.phases)

    def phase_at(self, step: int) -> Phase:
        """The phase that step number ``step`` (from 0) belongs to."""
        for phase in self.phases:
            if step < phase.steps:
                return phase
            step -= phase.steps
        raise ValueError(f'expected a step below {self.steps}')

    def learning_rate(self, step: int) -> float:
        """Learning rate of step number ``step`` (from 0)."""
        if step < self.warmup:
            return self.peak_lr * (step + 1) / self.warmup
        last = self.phases[-1].steps
        end = self.steps - last
        if step >= end:
            return self.anneal_lr * (1 - (step - end) / last)
        progress = min((step - self.warmup) / (self.fall_end - self.warmup), 1.0)
        fall = 0.5 * (1 + math.cos(math.pi * progress))
        return self.anneal_lr + (self.peak_lr - self.anneal_lr) * fall

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the log, the checkpoint and the model card."""
        return asdict(self)


class Batches:
    """Draws batches; step ``n`` gives the same batch in every run."""

    def __init__(
        self, pools: Sequence[Pairs], tokenizer: SimpleTokenizer, seed: int
    ) -> None:
        self.pools = pools
        self.tokenizer = tokenizer
        self.seed = seed

    def draw(self, step: int, phase: Phase, part: slice) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) and tokens (B, L) of ``part`` of batch ``step``."""
        rng = np.random.default_rng((self.seed, 0xBA7C4, step))
        borders = np.rint(np.cumsum((0, *phase.mix)) * phase.batch).astype(int)
        images: list[np.ndarray] = []
        captions: list[str] = []
        for pool, size in zip(self.pools, np.diff(borders), strict=True):
            index = np.sort(rng.choice(len(pool), size, replace=False))
            which = np.zeros(size, int)
            if not phase.plain:
                which = rng.integers(0, CAPTIONS_PER_IMAGE, size)
            if phase.grounds or phase.things:
                chance = rng.random(size)
                which[chance < phase.grounds + phase.things] = THING_COLUMN
                which[chance < phase.grounds] = GROUND_COLUMN
            images.append(pool.images[index])
            captions.extend(pool.captions[index, which].tolist())
        mirrored = rng.random(phase.batch)[part] < 0.5
        picked = np.concatenate(images)[part]
        picked[mirrored] = picked[mirrored, :, ::-1]
        return normalised(picked), self.tokenizer(captions[part])


class CaptionWordLoss(nn.Module):
    """Predict from the image embedding which words its caption holds.

    Softmax cross-entropy against the caption's tokens, each weighted by how rare it
    is (Huang et al. 2024, "Classification Done Right for Vision-Language
    Pre-Training", section 3), counted in ``captions``. Like InfoNCE it sees images
    and captions only. Its linear layer from the ``dim`` channels of the image
    embedding is dropped after training; the model stays as it is.
    """

    def __init__(
        self, dim: int, captions: Sequence[str], tokenizer: SimpleTokenizer
    ) -> None:
        super().__init__()
        self.classifier = nn.Linear(dim, tokenizer.vocab_size)
        tokens = tokenizer(list(captions))
        there = self._bags(tokens).mean(dim=0)
        # A token of every caption tells nothing, one of none has no examples.
        rarity = torch.where(there > 0, -there.clamp(min=1e-6).log(), 0.0)
        self.rarity: Tensor
        self.register_buffer('rarity', rarity, persistent=False)

    def _bags(self, tokens: Tensor) -> Tensor:
        """Which tokens (B, V) are among ``tokens`` (B, L)."""
        bags = torch.zeros(len(tokens), self.classifier.out_features)
        bags.scatter_(1, tokens, 1.0)
        bags[:, 0] = 0  # the filling behind the end of the text
        return bags

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Loss of image embeddings (B, E), not normalised, and tokens (B, L)."""
        targets = self._bags(tokens) * self.rarity
        targets = targets / targets.sum(dim=1, keepdim=True).clamp(min=1e-6)
        return F.cross_entropy(self.classifier(features), targets)


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices only, as open_clip's own training has it."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    plain = [p for n, p in named if p.ndim < 2 or 'embedding' in n]
    decayed = [p for n, p in named if not (p.ndim < 2 or 'embedding' in n)]
    return [
        {'params': plain, 'weight_decay': 0.0},
        {'params': decayed, 'weight_decay': weight_decay},
    ]


def _with_patch_dropout(architecture: Architecture) -> Architecture:
    # Any rate above zero makes open_clip put the module there; phases set it.
    config = copy.deepcopy(architecture.config)
    config['vision_cfg']['patch_dropout'] = 0.5
    return replace(architecture, config=config)


class Trainer:
    """Trains a CLIP model by a recipe, on one process, resumable at checkpoints.

    It draws from ``pools`` (in the order of ``recipe.pools``). Checkpoints and
    ``log.jsonl`` go to ``work_dir``; ``None`` keeps nothing.
    """

    def __init__(
        self,
        recipe: Recipe,
        architecture: Architecture,
        pools: Sequence[Pairs],
        *,
        work_dir: Path | None = None,
        bf16: bool = True,
    ) -> None:
        from open_clip.loss import ClipLoss

        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        several = dist.is_initialized()
        self.rank = dist.get_rank() if several else 0
        self.world_size = dist.get_world_size() if several else 1
        self.model: CLIP = build_model(_with_patch_dropout(architecture))
        tokenizer = build_tokenizer(architecture)
        self.batches = Batches(pools, tokenizer, recipe.seed)
        if recipe.mimetic:
            for number, block in enumerate(self.model.visual.transformer.resblocks):
                mimetic_attention(block.attn, recipe.seed + number)
        self.contrast = ClipLoss(
            local_loss=True,
            gather_with_grad=True,
            rank=self.rank,
            world_size=self.world_size,
        )
        self.words: CaptionWordLoss | None = None
        if recipe.word_loss > 0:
            some = [text for pool in pools for text in pool.captions[:300].ravel()]
            self.words = CaptionWordLoss(architecture.embed_dim, some, tokenizer)
        self.trained = nn.ModuleList(
            [self.model, *([] if self.words is None else [self.words])]
        )
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(self.trained, recipe.weight_decay),
            lr=recipe.peak_lr,
            betas=recipe.betas,
        )
        self.work_dir = work_dir
        self.bf16 = bf16
        self.step = 0
        self.seconds = 0.0
        self.cpu_seconds = 0.0

    def loss(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Loss, and InfoNCE alone, of images (B, 3, H, W) and tokens (B, L)."""
        with torch.autocast('cpu', torch.bfloat16, enabled=self.bf16):
            features = self.model.encode_image(images)
            text_rows = self.model.encode_text(tokens, normalize=True)
        # The softmax over the batch wants more than bfloat16's three digits.
        features = features.float()
        image_rows = F.normalize(features, dim=-1)
        scale = self.model.logit_scale.exp()
        loss = self.contrast(image_rows, text_rows.float(), scale)
        if self.words is None:
            return loss, loss.detach()
        words = self.words(features, tokens)
        return loss + self.recipe.word_loss * words, loss.detach()

    def train_step(self) -> float:
        """Do one optimiser step and return its loss."""
        phase = self.recipe.phase_at(self.step)
        # Patch dropout draws from the global generator.
        torch.manual_seed((self.recipe.seed * 1_000_003 + self.step) * 64 + self.rank)
        self.model.visual.patch_dropout.prob = phase.patch_dropout
        for group in self.optimizer.param_groups:
            group['lr'] = self.recipe.learning_rate(self.step)
        self.model.train()
        # At 14 x 14 tokens plain matmul and softmax train faster on a CPU than
        # the fused kernel, most of all backwards.
        with sdpa_kernel(SDPBackend.MATH):
            part = slice(self.rank, None, self.world_size)
            loss, contrast = self.loss(*self.batches.draw(self.step, phase, part))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        if self.world_size > 1:
            self._average_gradients()
        nn.utils.clip_grad_norm_(self.trained.parameters(), self.recipe.clip_grad)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, _LARGEST_LOGIT_SCALE)
        self.step += 1
        return float(contrast)

    def _average_gradients(self) -> None:
        gradients = [p.grad for p in self.trained.parameters() if p.grad is not None]
        flat = torch.cat([gradient.ravel() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.world_size
        pieces = flat.split([gradient.numel() for gradient in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))

    def run(self, save_every: int = 100, log_every: int = 25) -> Iterator[int]:
        """Train to the end; yields the step after each log line."""
        wall, cpu, losses = time.perf_counter(), time.process_time(), []
        while self.step < self.recipe.steps:
            losses.append(self.train_step())
            finished = self.step == self.recipe.steps
            if not (self.step % log_every == 0 or finished):
                continue
            now, cpu_now = time.perf_counter(), time.process_time()
            self.seconds += now - wall
            self.cpu_seconds += cpu_now - cpu
            self._log(losses, now - wall, cpu_now - cpu)
            wall, cpu, losses = now, cpu_now, []
            if self.step % save_every == 0 or finished:
                self.save()
            yield self.step

    def _log(self, losses: list[float], wall: float, cpu: float) -> None:
        phase = self.recipe.phase_at(self.step - 1)
        line = {
            'step': self.step,
            'phase': phase.name,
            'loss': round(float(np.mean(losses)), 4),
            'scale': round(self.model.logit_scale.exp().item(), 2),
            'samples_per_second': round(phase.batch * len(losses) / wall, 1),
            'samples_per_cpu_second': round(phase.batch * len(losses) / cpu, 1),
            'seconds': round(self.seconds, 1),
        }
        if self.rank:
            return
        logger.info('%s', ' '.join(f'{key}={value}' for key, value in line.items()))
        if self.work_dir is not None:
            self.work_dir.mkdir(parents=True, exist_ok=True)
            with (self.work_dir / 'log.jsonl').open('a') as stream:
                stream.write(json.dumps(line) + '\n')

    def save(self) -> None:
        """Write ``last.pt`` into the work folder."""
        if self.work_dir is None or self.rank:
            return
        state = {
            'recipe': json.dumps(self.recipe.as_dict()),
            'step': self.step,
            'seconds': self.seconds,
            'cpu_seconds': self.cpu_seconds,
            'model': self.model.state_dict(),
            'words': None if self.words is None else self.words.state_dict(),
            'optimizer': self.optimizer.state_dict(),
        }
        atomic_write(
            self.work_dir / 'last.pt', lambda stream: torch.save(state, stream)
        )

    def resume(self) -> bool:
        """Continue from ``last.pt`` if there is one; it must be of the same recipe."""
        path = None if self.work_dir is None else self.work_dir / 'last.pt'
        if path is None or not path.is_file():
            return False
        state = torch.load(path, map_location='cpu', weights_only=True)
        ours = json.dumps(self.recipe.as_dict())
        if state['recipe'] != ours:
            raise ValueError(
                f'{path} was made by another recipe. Expected {ours}, got '
                f'{state["recipe"]}. Use another --work-dir, or delete the file.'
            )
        self.model.load_state_dict(state['model'])
        if self.words is not None:
            self.words.load_state_dict(state['words'])
        self.optimizer.load_state_dict(state['optimizer'])
        self.step = state['step']
        self.seconds, self.cpu_seconds = state['seconds'], state['cpu_seconds']
        return True
