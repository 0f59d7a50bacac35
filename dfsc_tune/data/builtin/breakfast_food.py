"""Paints a breakfast box's food: tangerines, nectarines, sprites of cereals and toppings."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dfsc_tune.data.builtin.drawing import (
    BoolArray,
    Canvas,
    Colour,
    FloatArray,
    Light,
    Normal,
    Sprite,
    bevel,
    circle,
    ellipse,
    fractal,
    frame,
    line,
    lobed,
    noise,
    shade,
    smoothstep,
    sprite,
    tinted,
    turned,
)

TANGERINE, NECTARINE = 0.126, 0.137
"""Radii of the fruits."""


@dataclass(frozen=True)
class Fruit:
    """A fruit at its place; `angle` is the direction of its stem."""

    is_nectarine: bool
    x: float
    y: float
    angle: float
    size: float = 1.0
    seed: int = 0

    @property
    def radius(self) -> float:
        """Radius in scene units."""
        return self.size * (NECTARINE if self.is_nectarine else TANGERINE)


def paint_fruit(canvas: Canvas, fruit: Fruit) -> None:
    """Paints a fruit with its shadow on the floor."""
    rng, radius = np.random.default_rng(fruit.seed), fruit.radius
    ground = canvas.patch(fruit.x + 0.02, fruit.y + 0.025, 1.35 * radius)
    canvas.shadow(ground, ellipse(ground.u, ground.v, radius, radius), 0.42, 0.035)
    patch = canvas.patch(fruit.x, fruit.y, 1.1 * radius, fruit.angle)
    distance = lobed(patch.u, patch.v / rng.uniform(0.94, 1.0), radius, 0.03, rng.uniform(0.0, 9.0))
    normal = bevel(distance, radius, patch.pixel, 0.9)
    paint = _nectarine if fruit.is_nectarine else _tangerine
    skin = paint(patch.u / radius, patch.v / radius, normal, canvas.light, rng)
    canvas.paint(patch, patch.coverage(distance), skin)


def bruise(canvas: Canvas, fruit: Fruit, rng: np.random.Generator) -> None:
    """Rots a spot of a fruit's skin, or cuts it open to the flesh, and marks it."""
    x, y = turned(rng.uniform(0.1, 0.6) * fruit.radius, 0.0, _any_angle(rng))
    size, stretch = rng.uniform(0.025, 0.055), rng.uniform(0.25, 1.0)
    patch = canvas.patch(fruit.x + x, fruit.y + y, 1.5 * size, _any_angle(rng))
    spot = lobed(patch.u, patch.v / stretch, size, 0.2, rng.uniform(0.0, 9.0))
    depth = rng.uniform(0.45, 0.9) * (1.0 - smoothstep(-0.4 * size, 0.0, spot))
    flesh = rng.random() < 0.35
    canvas.paint(patch, depth, (0.93, 0.72, 0.36) if flesh else (0.20, 0.10, 0.05))
    canvas.mark(patch, spot < 0)


def fruit_mask(canvas: Canvas, fruit: Fruit) -> BoolArray:
    """Returns the pixels (H, W) that a fruit covers."""
    whole = canvas.whole()
    covered: BoolArray = circle(whole.u - fruit.x, whole.v - fruit.y, fruit.radius) < 0
    return covered


def _tangerine(
    u: FloatArray, v: FloatArray, normal: Normal, light: Light, rng: np.random.Generator
) -> FloatArray:
    """Returns the peel in units of the radius: pores, a dimple with creases, a green stem."""
    size = u.shape[0]
    pores, blush = noise(rng, u.shape, max(0.045 * size, 1.5)), fractal(rng, u.shape, 0.4 * size, 2)
    x, y, phase = rng.uniform(-0.25, 0.25), rng.uniform(-0.25, 0.25), rng.uniform(0.0, 6.0)
    reach, theta = np.hypot(u - x, v - y), np.arctan2(v - y, u - x)
    crease = line(reach, 0.28) * (0.5 + 0.5 * np.cos(7 * theta + phase))
    tone = 1.0 + 0.08 * pores - 0.35 * crease
    peel = tinted(tone, (0.95, 0.44, 0.09)) + tinted(blush, (0.02, 0.06, 0.03))
    stem = smoothstep(0.075, 0.05, reach * (1.0 + 0.25 * np.cos(5 * theta)))[..., None]
    green: Colour = (0.16, 0.27, 0.12)
    return shade(peel + stem * (np.asarray(green) - peel), normal, light, 0.32, 16.0)


def _nectarine(
    u: FloatArray, v: FloatArray, normal: Normal, light: Light, rng: np.random.Generator
) -> FloatArray:
    """Returns the skin in units of the radius: red over yellow, a seam, fine dots."""
    clouds = fractal(rng, u.shape, 0.5 * u.shape[0], 3)
    red = smoothstep(-0.7, 0.6, u + 0.5 * clouds - rng.uniform(-0.5, 0.35))
    skin = tinted(red, (0.56, 0.13, 0.08)) + tinted(1.0 - red, (0.82, 0.62, 0.23))
    speckle = 1.0 + 0.06 * noise(rng, u.shape, max(0.02 * u.shape[0], 1.2))
    seam = 1.0 - 0.30 * line(v - 0.25 * u * u, 0.05) * smoothstep(-0.4, 0.5, u)
    pit = 1.0 - 0.55 * line(np.hypot(u - 0.72, v), 0.11)
    return shade(skin * (speckle * seam * pit)[..., None], normal, light, 0.24, 10.0)


# Sprites -----------------------------------------------------------------------------------

Draw = Callable[[np.random.Generator, float, Light], Sprite]
"""Draws one random piece, given the pixel size and the light."""


def bank(
    draw: Draw, count: int, rng: np.random.Generator, pixel: float, light: Light
) -> list[Sprite]:
    """Returns `count` random pieces of one kind, to stamp again and again."""
    return [draw(rng, pixel, light) for _ in range(count)]


def _piece(
    distance: FloatArray, tone: FloatArray, colour: Colour, pixel: float, light: Light, gloss: float
) -> Sprite:
    """Returns a rounded piece, its colour times tone (h, w), with a shadow around it."""
    alpha = np.clip(0.5 - distance / pixel, 0.0, 1.0)
    dark = 0.5 * (1.0 - smoothstep(-0.002, 0.010, distance))
    normal = bevel(distance, 0.014, pixel, 0.8)
    return sprite(alpha, shade(tinted(tone, colour), normal, light, gloss, 16.0), dark)


def _any_angle(rng: np.random.Generator) -> float:
    return rng.uniform(0.0, 2 * math.pi)


def flake(rng: np.random.Generator, pixel: float, light: Light) -> Sprite:
    """Returns an oat flake with a groove along its middle."""
    a, b = rng.uniform(0.014, 0.025), rng.uniform(0.010, 0.015)
    patch = frame(0.036, pixel, _any_angle(rng))
    distance = ellipse(patch.u, patch.v + 4.0 * patch.u**2, a, b)
    groove = 1.0 - 0.35 * line(patch.v, 0.002) * smoothstep(a, 0.3 * a, np.abs(patch.u))
    colour = (0.90, rng.uniform(0.64, 0.71), 0.40)
    return _piece(distance, groove * rng.uniform(0.75, 1.12), colour, pixel, light, 0.1)


def odd_flake(rng: np.random.Generator, pixel: float, light: Light) -> Sprite:
    """Returns a piece of another cereal: a dark or a yellow puffed ball."""
    patch = frame(0.036, pixel)
    distance = lobed(patch.u, patch.v, rng.uniform(0.014, 0.021), 0.12, rng.uniform(0.0, 9.0))
    tone = 1.0 + 0.1 * noise(rng, patch.u.shape, 0.008 / pixel)
    colour: Colour = (0.36, 0.20, 0.11) if rng.random() < 0.5 else (0.92, 0.76, 0.40)
    return _piece(distance, tone, colour, pixel, light, 0.2)


def almond(rng: np.random.Generator, pixel: float, light: Light) -> Sprite:
    """Returns an almond: a brown drop with grooves along it."""
    a, b = rng.uniform(0.042, 0.052), rng.uniform(0.025, 0.031)
    patch = frame(0.066, pixel, _any_angle(rng))
    v = patch.v * (1.0 + 0.35 * np.clip(patch.u / a, -1.2, 1.2))
    wobble = noise(rng, patch.u.shape, 0.04 / pixel)
    tone = (1.0 + 0.10 * np.sin(420.0 * v + 3.0 * wobble)) * rng.uniform(0.8, 1.12)
    return _piece(ellipse(patch.u, v, a, b), tone, (0.55, 0.27, 0.12), pixel, light, 0.28)


def banana(rng: np.random.Generator, pixel: float, light: Light) -> Sprite:
    """Returns a banana chip: a tan disc, round or oblong, its core dark."""
    radius, squash = rng.uniform(0.038, 0.052), rng.uniform(0.6, 1.0)
    patch = frame(0.078, pixel, _any_angle(rng))
    distance = lobed(patch.u, patch.v / squash, radius, 0.10, rng.uniform(0.0, 9.0))
    core = line(np.hypot(patch.u, 2.8 * patch.v), 0.45 * radius)
    cloud = 0.06 * noise(rng, patch.u.shape, 0.015 / pixel)
    tone = rng.uniform(0.82, 1.06) * (1.0 + 0.05 * np.sin(450.0 * distance) + cloud - 0.38 * core)
    colour = (0.86, rng.uniform(0.66, 0.72), 0.40)
    return _piece(distance, tone, colour, pixel, light, 0.15)


def crumb(rng: np.random.Generator, pixel: float, light: Light) -> Sprite:
    """Returns a crumb of a crushed almond or banana chip."""
    patch = frame(0.026, pixel)
    distance = lobed(patch.u, patch.v, rng.uniform(0.006, 0.013), 0.4, rng.uniform(0.0, 9.0))
    colour: Colour = (0.88, 0.77, 0.55) if rng.random() < 0.6 else (0.58, 0.33, 0.17)
    return _piece(distance, np.ones_like(distance), colour, pixel, light, 0.05)
