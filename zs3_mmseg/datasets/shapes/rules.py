"""What the scenes of each subset may hold: the recipe in numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from zs3_mmseg.utils.names import did_you_mean

#: Part of every seed and of every folder name: raise it when any drawing changes.
RECIPE_VERSION = 1


@dataclass(frozen=True)
class Rules:
    """The distribution that scenes are drawn from.

    Lengths are fractions of the image side.

    Attributes:
        counts: probability of one, two and three objects.
        radius: smallest and largest radius of an object.
        radius_of_three: the same in scenes with three objects.
        class_colours: False draws every colour independently of the class.
        plain: probability of a plain body; the three patterns share the rest.
        must_hide: at least one object has this share of its pixels covered by
            another one.
        may_hide: no object is covered more than this.
        two_grounds: probability of a second ground behind a wavy border.
        bare: probability of a pale plain surface in place of a ground class.
        clutter: largest number of blobs and bars labelled void.
    """

    counts: tuple[float, float, float] = (0.4, 0.4, 0.2)
    radius: tuple[float, float] = (0.20, 0.36)
    radius_of_three: tuple[float, float] = (0.17, 0.27)
    class_colours: bool = True
    plain: float = 0.7
    must_hide: float = 0.0
    may_hide: float = 0.5
    two_grounds: float = 0.45
    bare: float = 0.0
    clutter: int = 2


_SCENES = Rules()
_ICONS = Rules(
    counts=(1.0, 0.0, 0.0), radius=(0.26, 0.42), two_grounds=0.0, bare=0.5, clutter=0
)

#: Rules of every stream of scenes. Streams of different names share no scene.
SUBSETS: dict[str, Rules] = {
    'train': _SCENES,
    'val': _SCENES,
    'test': _SCENES,
    'test_neutral': replace(_SCENES, class_colours=False),
    'test_hard': replace(
        _SCENES,
        counts=(0.0, 0.0, 1.0),
        radius_of_three=(0.20, 0.30),
        must_hide=0.15,
        may_hide=0.6,
    ),
    'clip_scenes': _SCENES,
    'clip_drawings': replace(_ICONS, class_colours=False, bare=1.0, plain=1.0),
    'clip_icons': replace(_ICONS, class_colours=False),
    'clip_heldout_scenes': _SCENES,
    'clip_heldout_icons': _ICONS,
}


def get_rules(subset: str) -> Rules:
    """Return the rules of a subset.

    Raises:
        KeyError: if there is no subset of that name.
    """
    if subset not in SUBSETS:
        raise KeyError(
            f'expected a Shapes subset out of {sorted(SUBSETS)}, got {subset!r}.'
            + did_you_mean(subset, SUBSETS)
        )
    return SUBSETS[subset]
