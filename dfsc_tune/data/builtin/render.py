"""Renders one image and its defect masks from (category, split, kind, index, seed)."""

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dfsc_tune.data.builtin import (
    breakfast_box,
    juice_bottle,
    pushpins,
    screw_bag,
    splicing_connectors,
)
from dfsc_tune.data.builtin.camera import photograph, random_light, random_view
from dfsc_tune.data.builtin.category import Category, DefectType, Dice, Kind
from dfsc_tune.data.builtin.drawing import BoolArray, Canvas
from dfsc_tune.errors import UserError

REGISTRY: dict[str, Category] = {
    module.CATEGORY.name: module.CATEGORY
    for module in (breakfast_box, juice_bottle, pushpins, screw_bag, splicing_connectors)
}
CATEGORIES: tuple[str, ...] = tuple(sorted(REGISTRY))
MINIMUM_HEIGHT = 64
"""Below this a nut is some five pixels wide: nobody could tell it from a washer."""


@dataclass(frozen=True)
class RenderedDefect:
    """One defect of an image: its name and its mask, bool (H, W)."""

    name: str
    mask: BoolArray


@dataclass(frozen=True)
class Rendered:
    """One image, uint8 (H, W, 3), and its defects; a good image has none."""

    image: NDArray[np.uint8]
    defects: tuple[RenderedDefect, ...]


def find_category(name: str) -> Category:
    """Returns the built-in category of that name; raises UserError if there is none."""
    if name not in REGISTRY:
        raise UserError(f"No built-in category {name!r}; there are: {', '.join(CATEGORIES)}.")
    return REGISTRY[name]


def check_height(height: int) -> None:
    """Raises UserError unless images of that height (pixels) can be drawn."""
    if height < MINIMUM_HEIGHT:
        raise UserError(
            f"Image height {height} is too small to show the defects; use {MINIMUM_HEIGHT} or more."
        )


def check_seed(seed: int) -> None:
    """Raises UserError for a negative seed."""
    if seed < 0:
        raise UserError(f"Seed {seed} is negative; use 0 or more.")


def render_image(
    category: str,
    kind: Literal["good", "logical", "structural"],
    index: int,
    split: str = "test",
    height: int = 256,
    seed: int = 0,
) -> Rendered:
    """Returns image number `index` (from 0) of a kind and split, `height` pixels high.

    The result depends on the arguments alone. Defect types come in shuffled rounds, so that any
    run of consecutive indices holds them evenly. Raises UserError for an unknown category, a
    height below 64 or a negative seed.
    """
    product = find_category(category)
    check_height(height)
    check_seed(seed)
    stream = zlib.crc32(f"{category}/{split}/{kind}".encode())
    defect = None if kind == "good" else _defect_of(product, kind, index, (seed, stream))
    return render_scene(product, defect, np.random.SeedSequence((seed, stream, index)), height)


def _defect_of(product: Category, kind: Kind, index: int, entropy: tuple[int, int]) -> DefectType:
    """Returns the defect type of an image: one of each in a round, each round shuffled anew."""
    types = product.of_kind(kind)
    cycle, place = divmod(index, len(types))
    order = np.random.default_rng((*entropy, cycle, len(types))).permutation(len(types))
    return types[int(order[place])]


def render_scene(
    product: Category, defect: DefectType | None, seeds: np.random.SeedSequence, height: int
) -> Rendered:
    """Returns an image of the scene that the seeds determine, with the defect given, if any."""
    streams = [np.random.default_rng(child) for child in seeds.spawn(4)]
    camera, dice = streams[0], Dice(*streams[1:])
    shape = (height, round(height * product.aspect), 3)
    background = np.broadcast_to(np.array(product.background, dtype=np.float32), shape)
    canvas = Canvas(background.copy(), random_view(camera), random_light(camera))
    product.draw(canvas, dice, defect.name if defect else None)
    image = photograph(canvas, camera)
    if defect is None:
        return Rendered(image, ())
    return Rendered(image, tuple(RenderedDefect(defect.name, mask) for mask in canvas.masks))
