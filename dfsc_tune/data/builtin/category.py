"""Defines a built-in category: its shape, its defect types and the function that draws a scene."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dfsc_tune.data.builtin.drawing import Canvas, Colour

Kind = Literal["logical", "structural"]


@dataclass(frozen=True)
class DefectType:
    """One way in which a product can be wrong, as defects_config.json lists it."""

    name: str
    kind: Kind
    area: float | None = None
    """Saturation area in squared image heights, if a repair covers less than the mask."""
    share: float = 1.0
    """Saturation as a share of the mask, if no area is given."""

    def saturation(self, height: int) -> float | int:
        """Returns the saturation threshold at an image height: pixels, or a share of the mask."""
        return self.share if self.area is None else max(round(self.area * height**2), 1)


@dataclass(frozen=True)
class Dice:
    """Independent random streams of one image.

    A defect draws from a stream of its own, so that an anomalous image is the good image of the
    same seed plus its defect.
    """

    scene: np.random.Generator
    defect: np.random.Generator
    texture: np.random.Generator


@dataclass(frozen=True)
class Category:
    """A product: how its images are shaped and drawn."""

    name: str
    aspect: float
    """Image width divided by height."""
    background: Colour
    defects: tuple[DefectType, ...]
    draw: Callable[[Canvas, Dice, str | None], None]
    """Draws a scene with the named defect, or a good one, and marks the defect's masks."""

    def of_kind(self, kind: Kind) -> tuple[DefectType, ...]:
        """Returns the defect types of one kind, in the order of defects_config.json."""
        return tuple(defect for defect in self.defects if defect.kind == kind)

    def pixel_value(self, name: str) -> int:
        """Returns the ground-truth pixel value of a defect: 255 for the first, then downwards."""
        return 255 - [defect.name for defect in self.defects].index(name)
