"""The model card that lies beside the weights."""

from __future__ import annotations

from collections.abc import Mapping

from zs3_mmseg.engine.pretraining.recipe import Recipe

_CARD = """# zs3-shapes-tiny

A CLIP of two small transformers for the Shapes world, built with open_clip's own
classes from the plain model config `model.json`. Reach it as
`arch='zs3-shapes-tiny', pretrained='shapes'`. It knows the words listed under
`known_words` in that file and nothing else of the world.

## Training

`python tools/pretrain_clip.py --processes {processes}` makes these files again.

- Data: scenes and captions drawn by this package, seed {seed}: {pools}. Captions are
  image-level and name every class; no mask is used. No scene of the segmentation
  subsets is among them.
- Loss: InfoNCE (open_clip's `ClipLoss`){extra}.
- Start: sine-cosine positions (`pos_embed_type` of open_clip){mimetic}.
- AdamW, peak rate {peak}, weight decay {decay}, {steps} steps, {samples} samples,
  bfloat16 autocast, {minutes:.0f} minutes on 2 CPU cores ({processes} processes).

| phase | steps | batch | shares of the pools | captions | patch dropout |
|---|---|---|---|---|---|
{phases}

## Figures

Held-out scenes, prompt "a photo of a {{}}.", fractions:

| figure | value |
|---|---|
| accuracy, scenes with things of one class, 1 of 16 | {accuracy_single:.3f} |
| mean average precision, things | {map_things:.3f} |
| mean average precision, grounds | {map_grounds:.3f} |

`python benchmarks/tiny_clip.py` measures them again, and dense segmentation too.
"""


def model_card(
    recipe: Recipe, figures: Mapping[str, float], seconds: float, processes: int
) -> str:
    """Markdown text of the card.

    Args:
        recipe: what was trained.
        figures: of :func:`~.evaluate.image_level_figures`.
        seconds: wall time of the training loop.
        processes: that trained.
    """
    rows = [
        f'| {p.name} | {p.steps} | {p.batch} | {" / ".join(map(str, p.mix))} | '
        f'{"plain" if p.plain else "drawn"} | {p.patch_dropout} |'
        for p in recipe.phases
    ]
    words = f' plus {recipe.word_loss} times the classification of caption words'
    mimetic = ' and mimetic attention in the image tower'
    return _CARD.format(
        processes=processes,
        seed=recipe.seed,
        pools=', '.join(f'{count} `{name}`' for name, count in recipe.pools),
        extra=words if recipe.word_loss else ' and nothing else',
        mimetic=mimetic if recipe.mimetic else '',
        peak=recipe.peak_lr,
        decay=recipe.weight_decay,
        steps=recipe.steps,
        samples=recipe.samples,
        minutes=seconds / 60,
        phases='\n'.join(rows),
        **figures,
    )
