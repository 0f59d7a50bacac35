"""Prints the fruits on juice labels: small outlined pictures, about 0.07 across."""

import math
from collections.abc import Callable

import numpy as np

from dfsc_tune.data.builtin.drawing import (
    Canvas,
    Colour,
    FloatArray,
    Patch,
    circle,
    ellipse,
    lobed,
    segment,
    tinted,
)

Shape = tuple[FloatArray, Colour]
"""Distance to a shape and its colour; later shapes lie over earlier ones."""

INK: Colour = (0.12, 0.10, 0.05)
GREEN: Colour = (0.10, 0.38, 0.13)
REACH = 0.045
"""No icon reaches further from its centre."""


def _turned(patch: Patch, x: float, y: float, angle: float) -> tuple[FloatArray, FloatArray]:
    cos, sin = math.cos(angle), math.sin(angle)
    u, v = patch.u - x, patch.v - y
    return cos * u + sin * v, cos * v - sin * u


def _leaf(patch: Patch, x: float, y: float, angle: float) -> Shape:
    u, v = _turned(patch, x, y, angle)
    return np.maximum(circle(u, v - 0.018, 0.028), circle(u, v + 0.018, 0.028)), GREEN


def _orange(patch: Patch) -> list[Shape]:
    body = circle(patch.u - 0.003, patch.v - 0.005, 0.027)
    return [(body, (0.96, 0.58, 0.12)), _leaf(patch, -0.011, -0.024, -0.25)]


def _cherry(patch: Patch) -> list[Shape]:
    left = circle(patch.u + 0.019, patch.v - 0.017, 0.0165)
    right = circle(patch.u - 0.016, patch.v - 0.020, 0.0165)
    width = 0.0025
    stems = np.minimum(
        segment(patch.u, patch.v, (-0.017, 0.005), (0.006, -0.033)),
        segment(patch.u, patch.v, (0.014, 0.008), (0.006, -0.033)),
    )
    red = (0.72, 0.10, 0.10)
    return [(stems - width, (0.25, 0.35, 0.10)), (left, red), (right, red)]


def _banana(patch: Patch) -> list[Shape]:
    shapes: list[Shape] = []
    for turn in (0.75, 0.35, -0.05):
        u, v = _turned(patch, 0.020, -0.018, turn)
        crescent = np.maximum(
            circle(u + 0.030, v - 0.012, 0.034), -circle(u + 0.043, v + 0.005, 0.035)
        )
        shapes.append((crescent, (0.90, 0.80, 0.22)))
    shapes.append((circle(patch.u - 0.020, patch.v + 0.016, 0.006), INK))
    return shapes


def _plum(patch: Patch) -> list[Shape]:
    body = ellipse(*_turned(patch, 0.0, 0.006, 0.5), 0.030, 0.023)
    return [(body, (0.35, 0.16, 0.45)), _leaf(patch, 0.014, -0.022, 0.4)]


def _strawberry(patch: Patch) -> list[Shape]:
    body = lobed(patch.u, patch.v * 0.85, 0.026, 0.12, 2.0)
    leaves = ellipse(patch.u, patch.v + 0.026, 0.020, 0.007)
    return [(body, (0.85, 0.16, 0.18)), (leaves, GREEN)]


def _apple(patch: Patch) -> list[Shape]:
    body = np.minimum(
        circle(patch.u + 0.010, patch.v - 0.006, 0.022),
        circle(patch.u - 0.010, patch.v - 0.006, 0.022),
    )
    return [(body, (0.55, 0.74, 0.20)), _leaf(patch, 0.010, -0.026, -0.5)]


DRAWINGS: dict[str, Callable[[Patch], list[Shape]]] = {
    "orange": _orange,
    "cherry": _cherry,
    "banana": _banana,
    "plum": _plum,
    "strawberry": _strawberry,
    "apple": _apple,
}


def paint_icon(canvas: Canvas, patch: Patch, fruit: str) -> None:
    """Prints a fruit at the patch's origin."""
    lighter = np.clip(1.0 - 9.0 * (patch.u + patch.v), 0.75, 1.3)
    for distance, colour in DRAWINGS[fruit](patch):
        canvas.paint(patch, patch.coverage(distance), INK)
        canvas.paint(patch, patch.coverage(distance + 0.0022), tinted(lighter, colour))
