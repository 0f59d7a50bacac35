"""Makes a category's fixed set of synthetic anomalies from held-out good images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dfsc_tune.data.records import DefectKind
from dfsc_tune.synthetic import logical, structural
from dfsc_tune.synthetic.regions import Mask, Pixels
from dfsc_tune.synthetic.scenes import Scene, read_scene

Recipe = Callable[[np.random.Generator, Scene, Sequence[Scene]], Pixels | None]

RECIPES: dict[str, tuple[DefectKind, Recipe]] = {
    **{name: ("logical", recipe) for name, recipe in logical.RECIPES.items()},
    **{name: ("structural", recipe) for name, recipe in structural.RECIPES.items()},
}
"""Each recipe by name, with the kind of defect that it imitates."""

VERSION = 2
"""Goes up when the same seed gives other images."""

# A pixel has changed if a channel differs by this many grey levels.
_CHANGED = 8
_MIN_CHANGED_PIXELS = 6
_MIN_MEAN_CHANGE = 14.0
_ATTEMPTS = 8


@dataclass(frozen=True, eq=False)
class Anomaly:
    """A good image with one thing changed."""

    recipe: str
    kind: DefectKind
    source: int
    """The index of the good image that it was made from."""
    pixels: npt.NDArray[np.uint8]
    """(3, S, S)."""
    mask: Mask
    """(S, S): the pixels that have changed visibly."""


def make_anomalies(
    pixels: npt.NDArray[np.uint8],
    large: npt.NDArray[np.uint8],
    counts: Mapping[str, int],
    seed: int,
) -> list[Anomaly]:
    """Makes a fixed set of anomalies, as many of each recipe as wanted if the images allow it.

    The anomalies of a recipe do not depend on the other recipes, and its first anomalies do not
    depend on how many are made.

    Images are changed at twice the networks' size, and only the change is scaled down. So unchanged
    pixels equal the good image exactly, and changed ones are as sharp as the rest.

    Args:
        pixels: (N, 3, S, S) good images as the networks see them, N at least 2.
        large: (N, 3, 2S, 2S) the same images at twice the size.
        counts: anomalies to make, by recipe.
        seed: of all random choices.
    """
    scenes = [read_scene(image) for image in large]
    made = []
    for name, wanted in counts.items():
        kind, recipe = RECIPES[name]
        rng = np.random.default_rng([seed, VERSION, *name.encode()])
        sources = [
            index
            for index, scene in enumerate(scenes)
            if name not in logical.PART_RECIPES or scene.regions
        ]
        order = rng.permutation(sources).tolist() if sources else []
        count = 0
        for attempt in range(_ATTEMPTS * wanted if order else 0):
            source = order[attempt % len(order)]
            others = [scene for index, scene in enumerate(scenes) if index != source]
            changed = recipe(rng, scenes[source], others)
            if changed is None:
                continue
            image, mask = _brought_down(pixels[source], scenes[source].pixels, changed)
            if _is_visible(pixels[source], image, mask):
                made.append(Anomaly(name, kind, source, image, mask))
                count += 1
            if count == wanted:
                break
    return made


def _brought_down(
    good: npt.NDArray[np.uint8], before: Pixels, after: Pixels
) -> tuple[npt.NDArray[np.uint8], Mask]:
    """Applies the change between two images (2S, 2S, 3) to the good image; returns the mask too."""
    size = good.shape[-1]
    change = (after - before).reshape(size, 2, size, 2, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    image = np.rint(good + change).clip(0, 255).astype(np.uint8)
    moved = np.abs(image.astype(np.int16) - good).max(axis=0) >= _CHANGED
    return image, ndimage.binary_closing(moved) | moved


def _is_visible(good: npt.NDArray[np.uint8], image: npt.NDArray[np.uint8], mask: Mask) -> bool:
    difference = np.abs(image.astype(np.int16) - good).max(axis=0)[mask]
    return mask.sum() >= _MIN_CHANGED_PIXELS and bool(difference.mean() >= _MIN_MEAN_CHANGE)
