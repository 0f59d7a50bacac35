"""Paints the parts of a juice bottle: juice, glass, labels and the table it stands on."""

import math
from dataclasses import dataclass

import numpy as np

from dfsc_tune.data.builtin import blemishes
from dfsc_tune.data.builtin.drawing import (
    Canvas,
    Colour,
    FloatArray,
    Patch,
    box,
    circle,
    fractal,
    line,
    lobed,
    lookup,
    noise,
    smoothstep,
    stencil,
    tinted,
    turned,
)
from dfsc_tune.data.builtin.fruit_icons import INK, REACH, paint_icon

MOUTH, RING, SHOULDER, BASE = -0.42, -0.325, (-0.19, -0.07), 0.425
"""Heights (y) of the bottle's top, the end of its thread, its shoulder and its foot."""
LIQUID_FLOOR = 0.385
"""Height (y) of the inside of the foot."""
THREAD, NECK, BODY = 0.079, 0.068, 0.119
"""Half-widths."""
GLASS: Colour = (0.90, 0.95, 1.0)
PAPER: Colour = (0.96, 0.80, 0.44)


@dataclass(frozen=True)
class Label:
    """A sticker: its place, half its width and height, and what is printed on it."""

    x: float
    y: float
    angle: float
    half: tuple[float, float]
    fruit: str | None = None
    icon_x: float = 0.0
    icon_y: float = 0.0
    text: str | None = None
    present: bool = True

    def distance(self, canvas: Canvas) -> tuple[Patch, FloatArray]:
        """Returns the pixels around the label and their distance to its outline."""
        half_x, half_y = self.half
        patch = canvas.patch(self.x, self.y, half_x + 0.01, self.angle, half_y + 0.01)
        return patch, box(patch.u, patch.v, half_x, half_y)


# Bottle ------------------------------------------------------------------------------------


def _half_width(y: FloatArray) -> FloatArray:
    """Returns the bottle's half-width at height y."""
    width = NECK + (BODY - NECK) * smoothstep(*SHOULDER, y)
    return np.where(y < RING, THREAD, width)


def _silhouette(patch: Patch, inset: float) -> FloatArray:
    """Returns the distance to the bottle's outline shrunk by `inset`."""
    side = np.abs(patch.u) - _half_width(patch.v) + inset
    upper = np.maximum(side, MOUTH - patch.v)
    lower = box(patch.u, patch.v - 0.2, BODY - inset, BASE - inset - 0.2, 0.03)
    return np.where(patch.v > 0.2, lower, upper)


def liquid(patch: Patch, level: float) -> FloatArray:
    """Returns the distance to the juice filled up to a level (y); at LIQUID_FLOOR there is none."""
    lower = box(patch.u, patch.v, BODY - 0.008, LIQUID_FLOOR, 0.03)
    inner = np.maximum(_silhouette(patch, 0.008), lower)
    meniscus = level - patch.v + 0.35 * patch.u**2
    return np.maximum(inner, meniscus)


def paint_table(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paints the black cloth and its edge behind the bottle's foot."""
    whole = canvas.whole()
    weave = 1.0 + 0.5 * noise(rng, whole.u.shape, max(0.006 / canvas.pixel, 1.5))
    canvas.add(whole, 0.022 * smoothstep(0.37, 0.44, whole.v) * weave)


def paint_juice(
    canvas: Canvas, patch: Patch, juice: Colour, level: float, rng: np.random.Generator
) -> None:
    """Paints the juice: darker to the sides and the foot, brighter where the shoulder is lit."""
    inside = patch.coverage(liquid(patch, level))
    across = np.abs(patch.u / _half_width(patch.v))
    depth = 1.0 - 0.45 * across**4 - 0.22 * smoothstep(-0.05, 0.40, patch.v)
    depth += 0.16 * line(patch.v + 0.09, 0.05)
    depth *= 1.0 + 0.03 * fractal(rng, patch.u.shape, 0.12 / canvas.pixel, 2)
    canvas.paint(patch, inside, tinted(depth, juice))
    canvas.add(patch, 0.10 * inside * line(patch.v - level, 0.004))


def paint_glass(canvas: Canvas, patch: Patch, rng: np.random.Generator) -> None:
    """Adds the reflections of the glass: edges, thread, lamp on the shoulder, thick foot."""
    u, v = patch.u, patch.v
    outline = _silhouette(patch, 0.0)
    inside = patch.coverage(outline)
    waves = noise(rng, u.shape, 0.07 / canvas.pixel)
    edge = (0.30 + 0.14 * waves) * line(outline + 0.005, 0.0035)
    edge += 0.14 * line(outline + 0.018 + 0.004 * waves, 0.004) * smoothstep(RING, -0.1, v)
    turn = 0.5 + 0.5 * np.sin((v - 0.06 * u) * (2 * math.pi / 0.032))
    lips = line(v - MOUTH - 0.004, 0.004) + line(v - RING + 0.004, 0.004)
    thread = (v < RING) * ((0.08 + 0.36 * line(u + 0.03, 0.025)) * turn**4 + 0.3 * lips)
    streaks = line(u + 0.035, 0.006) + 0.7 * line(u - 0.042, 0.005)
    neck = 0.16 * streaks * smoothstep(-0.33, -0.30, v) * (v < -0.14)
    foot = smoothstep(LIQUID_FLOOR - 0.01, LIQUID_FLOOR + 0.02, v) * np.clip(waves, -0.2, 1.0)
    room = 0.018 + 0.05 * np.clip(waves, 0.0, 1.0) * smoothstep(-0.05, 0.35, v)
    canvas.add(patch, inside * (edge + thread + neck + room + 0.03 + 0.14 * foot), GLASS)
    lamp = smoothstep(0.012, -0.004, circle(0.75 * u, v + 0.025, 0.068))
    window = lamp * smoothstep(-0.075, -0.105, v) * (0.8 + 0.4 * waves)
    canvas.add(patch, 0.20 * np.clip(window, 0.0, 1.0), (1.0, 1.0, 0.96))


# Labels ------------------------------------------------------------------------------------


def paint_label(canvas: Canvas, label: Label, rng: np.random.Generator) -> None:
    """Sticks a label on, unless absent: paper with a golden glow, a thin frame, and its print."""
    patch, distance = label.distance(canvas)
    half_x, half_y = label.half
    grain = 1.0 + 0.03 * noise(rng, patch.u.shape, max(0.004 / canvas.pixel, 1.2))
    if not label.present:
        return
    canvas.shadow(patch, distance, 0.25, 0.006)
    glow = 1.0 - smoothstep(0.0, 1.0, np.abs(patch.v / half_y))
    paper = tinted(grain, (0.95, 0.66, 0.22)) + tinted(glow, (0.02, 0.18, 0.28))
    canvas.paint(patch, patch.coverage(distance), paper)
    frame = line(box(patch.u, patch.v, half_x - 0.007, half_y - 0.006, 0.022), 0.0014)
    canvas.paint(patch, 0.75 * frame, INK)
    if label.fruit:
        paint_icon(canvas, icon_patch(canvas, label), label.fruit)
    if label.text:
        ink = lookup(stencil(label.text), patch.u / 0.145 + 0.5, patch.v / 0.031 + 0.5)
        canvas.paint(patch, ink, INK)


def icon_patch(canvas: Canvas, label: Label) -> Patch:
    """Returns the pixels of a label's icon, in the icon's frame."""
    x, y = turned(label.icon_x, label.icon_y, label.angle)
    return canvas.patch(label.x + x, label.y + y, REACH, label.angle)


def blot_text(canvas: Canvas, label: Label, rng: np.random.Generator) -> None:
    """Erases a stretch of a label's text and marks it."""
    patch, distance = label.distance(canvas)
    half, middle = rng.uniform(0.012, 0.04), rng.uniform(-0.055, 0.055)
    _blank(canvas, patch, np.maximum(box(patch.u - middle, patch.v, half, 0.019), distance))


def blot_icon(canvas: Canvas, label: Label, rng: np.random.Generator) -> None:
    """Erases one side of a label's fruit and marks it."""
    patch = icon_patch(canvas, label)
    angle, depth = rng.uniform(0.0, 2 * math.pi), rng.uniform(-0.004, 0.012)
    beyond = depth - patch.u * math.cos(angle) - patch.v * math.sin(angle)
    _blank(canvas, patch, np.maximum(beyond, circle(patch.u, patch.v, 0.038)))


def _blank(canvas: Canvas, patch: Patch, distance: FloatArray) -> None:
    """Covers the inside of a distance field with bare paper and marks it."""
    canvas.paint(patch, patch.coverage(distance), PAPER)
    canvas.mark(patch, distance < 0)


def tear_label(canvas: Canvas, label: Label, rng: np.random.Generator) -> None:
    """Scratches a label, or rubs it off down to the white of the paper, and marks the place."""
    x = label.x + rng.uniform(-0.8, 0.8) * label.half[0]
    y = label.y + rng.uniform(-0.8, 0.8) * label.half[1]
    if rng.random() < 0.35:
        blemishes.scratch(canvas, rng, x, y, 0.045)
        return
    size = rng.uniform(0.014, 0.04)
    patch = canvas.patch(x, y, 1.8 * size, rng.uniform(0.0, math.pi))
    spot = lobed(patch.u, patch.v * 1.6, size, 0.4, rng.uniform(0.0, 9.0))
    canvas.paint(patch, patch.coverage(spot), (0.86, 0.84, 0.79))
    canvas.paint(patch, 0.5 * line(spot, 0.002), (0.55, 0.42, 0.25))
    canvas.mark_shape(patch, spot)
