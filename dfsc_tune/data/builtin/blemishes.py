"""Damage that any product can suffer: dirt, hairs and scratches."""

import math

import numpy as np

from dfsc_tune.data.builtin.drawing import Canvas, Colour, bevel, lobed, segment, shade, smoothstep

DIRT: tuple[Colour, ...] = (
    (0.16, 0.11, 0.07),
    (0.33, 0.25, 0.13),
    (0.20, 0.32, 0.14),
    (0.55, 0.52, 0.48),
    (0.45, 0.14, 0.10),
)
"""Soil, sawdust, moss, lint and paint."""


def contaminate(
    canvas: Canvas, rng: np.random.Generator, x: float, y: float, size: float = 1.0
) -> None:
    """Adds a crumb, a smear or a hair at (x, y) and marks it; size 1 is a radius of up to 0.045."""
    colour = DIRT[rng.integers(len(DIRT))]
    shape = rng.choice(["crumb", "smear", "hair"])
    if shape == "hair":
        _hair(canvas, rng, x, y, size * rng.uniform(0.05, 0.11))
        return
    radius = size * rng.uniform(0.016, 0.045)
    stretch = rng.uniform(0.45, 1.0)
    patch = canvas.patch(x, y, 1.8 * radius, rng.uniform(0.0, math.pi))
    distance = lobed(patch.u, patch.v / stretch, radius, 0.35, rng.uniform(0.0, 9.0))
    if shape == "crumb":
        canvas.shadow(patch, distance, 0.5, radius * 0.5)
        lit = shade(colour, bevel(distance, radius, patch.pixel), canvas.light, gloss=0.15)
        canvas.paint(patch, patch.coverage(distance), lit)
    else:
        opacity = rng.uniform(0.45, 0.9)
        canvas.paint(patch, opacity * (1.0 - smoothstep(-0.4 * radius, 0.0, distance)), colour)
    canvas.mark_shape(patch, distance)


def _hair(canvas: Canvas, rng: np.random.Generator, x: float, y: float, reach: float) -> None:
    """Lays a curved fibre of half-length `reach` around (x, y) and marks it."""
    patch = canvas.patch(x, y, 1.3 * reach, rng.uniform(0.0, math.pi))
    bend = rng.uniform(0.3, 1.2) / reach
    curve = patch.v - bend * (patch.u**2 - (reach**2 / 3))
    across = np.abs(curve) / np.hypot(1.0, 2.0 * bend * patch.u)
    distance = np.maximum(across - 0.0035, np.abs(patch.u) - reach)
    grey = rng.uniform(0.1, 0.75)
    canvas.paint(patch, patch.coverage(distance), (grey, 0.9 * grey, 0.8 * grey))
    canvas.mark_shape(patch, distance)


def scratch(canvas: Canvas, rng: np.random.Generator, x: float, y: float, reach: float) -> None:
    """Draws a few bright, nearly parallel scratches around (x, y) and marks them."""
    patch = canvas.patch(x, y, 1.2 * reach, rng.uniform(0.0, math.pi))
    strength = rng.uniform(0.3, 0.8)
    for _ in range(int(rng.integers(1, 4))):
        lift = rng.normal(0.0, 0.18 * reach)
        start = (-rng.uniform(0.4, 1.0) * reach, lift)
        end = (rng.uniform(0.4, 1.0) * reach, lift + rng.normal(0.0, 0.25 * reach))
        distance = segment(patch.u, patch.v, start, end) - 0.0028
        canvas.paint(patch, strength * patch.coverage(distance), (0.92, 0.90, 0.88))
        canvas.mark_shape(patch, distance)
