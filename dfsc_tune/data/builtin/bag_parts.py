"""Paints the parts of a screw bag: screws, nuts, washers, and the printed zip bag itself."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from dfsc_tune.data.builtin.drawing import (
    Canvas,
    Colour,
    FloatArray,
    Patch,
    bevel,
    box,
    circle,
    fractal,
    line,
    lobed,
    lookup,
    metal,
    noise,
    polygon,
    segment,
    smoothstep,
    stencil,
    tinted,
)

PartKind = Literal["screw", "nut", "washer"]
STEEL: Colour = (0.92, 0.97, 1.08)
GILT: Colour = (1.00, 0.95, 0.80)
REACH = 0.05
"""Half the breadth of a part."""


@dataclass(frozen=True)
class Part:
    """One part in the bag; length is a screw's length over all."""

    kind: PartKind
    length: float = 2 * REACH
    x: float = 0.0
    y: float = 0.0
    angle: float = 0.0
    tint: Colour = STEEL
    broken: float = 0.0
    """Share of the part that is broken off, in 0..1."""
    marked: bool = False

    def spine(self) -> FloatArray:
        """Returns points (n, 2) whose discs of radius REACH cover the part."""
        half = max(self.length / 2 - REACH, 0.0)
        along = np.linspace(-half, half, 1 + 2 * math.ceil(half / REACH))
        x, y = self.x + along * math.cos(self.angle), self.y + along * math.sin(self.angle)
        return np.stack([x, y], axis=1)


# Parts -------------------------------------------------------------------------------------


def paint_part(canvas: Canvas, part: Part) -> None:
    """Paints a part with its shadow on the film; marks it if it is part of the defect."""
    breadth = REACH + 0.02
    patch = canvas.patch(part.x, part.y, part.length / 2 + 0.02, part.angle, breadth)
    paint = _paint_screw if part.kind == "screw" else _paint_ring
    outline = paint(canvas, patch, part)
    if part.marked:
        canvas.mark_shape(patch, outline)


def _paint_screw(canvas: Canvas, patch: Patch, part: Part) -> FloatArray:
    """Paints a socket screw along u, its head at the left; returns its outline."""
    u, v = patch.u + part.length / 2, patch.v
    end = part.length * (1.0 - 0.55 * part.broken)
    ragged = 0.008 * np.sin(v * 260.0) if part.broken else 0.0
    shaft = np.maximum(np.abs(v) - 0.026, u - end - ragged)
    shaft = np.maximum(shaft, -u)
    head = box(u - 0.036, v, 0.036, 0.0445, 0.005)
    outline: FloatArray = np.minimum(shaft, head)
    canvas.shadow(patch, outline, 0.6, 0.014)
    thread = 0.78 + 0.26 * np.sin((u + 0.25 * v) * (2 * math.pi / 0.0125))
    # Seen from the side both are cylinders: only the distance across rounds them.
    rod = metal(bevel(np.abs(v) - 0.026, 0.026, patch.pixel, 0.8), canvas.light, part.tint)
    canvas.paint(patch, patch.coverage(shaft), rod * thread[..., None])
    knob = metal(bevel(np.abs(v) - 0.0445, 0.0445, patch.pixel), canvas.light, part.tint)
    rim = 1.05 + 0.25 * line(u - 0.064, 0.004) - 0.30 * line(u - 0.006, 0.006)
    canvas.paint(patch, patch.coverage(head), knob * rim[..., None])
    return outline


def _paint_ring(canvas: Canvas, patch: Patch, part: Part) -> FloatArray:
    """Paints a nut or a spring washer lying flat; returns its outline."""
    u, v = patch.u, patch.v
    is_nut = part.kind == "nut"
    radius = np.hypot(u, v)
    outer = circle(u, v, 0.0525)
    if is_nut:
        outer = np.maximum(outer, polygon(u, v, 6, 0.0475))
    outline: FloatArray = np.maximum(outer, (0.0265 if is_nut else 0.0335) - radius)
    ring = outline
    if part.broken:
        ring = np.maximum(ring, -_wedge(u, v, part.broken))
    elif not is_nut:
        ring = np.maximum(ring, -box(u - 0.042, v + 0.2 * (u - 0.042), 0.014, 0.0018))
    canvas.shadow(patch, ring, 0.6, 0.012)
    body = metal(bevel(ring, 0.006, patch.pixel, 0.6), canvas.light, part.tint)
    # Flat faces mirror the room: brighter towards one side, with a brushed grain.
    theta = np.arctan2(v, u)
    sheen = 0.92 + 0.16 * np.cos(theta - 3.0 * part.angle) + 0.05 * np.sin(radius * 2400.0)
    if is_nut:
        # The chamfer of the hole is a darker inner ring.
        sheen = sheen * (0.42 + 0.58 * smoothstep(0.0300, 0.0345, radius))
    canvas.paint(patch, patch.coverage(ring), body * sheen[..., None])
    return outline


def _wedge(u: FloatArray, v: FloatArray, share: float) -> FloatArray:
    """Returns the distance to the wedge that broke off a ring, up to 120 degrees wide."""
    half = share * math.pi / 3
    return np.maximum(np.abs(v) * math.cos(half) - u * math.sin(half), -u)


# Bag ---------------------------------------------------------------------------------------

BAG = (0.615, 0.40)
"""Half the width and half the height of the bag."""
ZIP = 0.405
"""Position (x) of the zip, right of the centre; the parts lie to its left."""
PRINT_PITCH = 0.148
"""Distance between repeats of the print on the strip beside the zip."""


@dataclass(frozen=True)
class Film:
    """The pixels of the bag in its own frame, and the distance to its outline."""

    patch: Patch
    edge: FloatArray


def lay_film(canvas: Canvas, tilt: float, rng: np.random.Generator) -> Film:
    """Returns the pixels that the bag covers, `tilt` radians askew, its outline slightly wavy."""
    patch = canvas.patch(0.0, 0.0, 2.0, tilt)
    sway = 0.006 * noise(rng, patch.u.shape, 0.35 / patch.pixel)
    return Film(patch, box(patch.u, patch.v, *BAG) + sway)


def paint_back(canvas: Canvas, film: Film, rng: np.random.Generator) -> None:
    """Paints the back of the bag: black seen through two films, with broad dull reflections."""
    shape, cell = film.edge.shape, 0.30 / canvas.pixel
    relief = fractal(rng, shape, cell, 3)
    crisp = smoothstep(0.10, 0.10 + rng.uniform(0.08, 0.3), relief)
    tone = 0.55 + 0.35 * noise(rng, shape, cell / 2) + 0.25 * relief
    haze = crisp * np.clip(tone, 0.1, 1.3)
    value = 0.085 + rng.uniform(0.13, 0.22) * haze
    colour = tinted(value, (0.98, 0.97, 1.04)) + tinted(1.0 - crisp, (0.0, 0.0, 0.022))
    canvas.paint(film.patch, film.patch.coverage(film.edge), colour)


def paint_front(canvas: Canvas, film: Film, rng: np.random.Generator) -> None:
    """Adds the upper film's reflections (folds, sheen, welded edges), the zip and its strip."""
    shape, pixel = film.edge.shape, canvas.pixel
    relief = fractal(rng, shape, 0.28 / pixel, 2)
    lit = np.clip(noise(rng, shape, 0.16 / pixel), 0.0, 1.0)
    sheen = smoothstep(0.55, 1.0, relief)
    inside = film.patch.coverage(film.edge + 0.004)
    glare = 0.30 * line(relief, 0.035) * lit + 0.15 * sheen + 0.10 * lit * line(relief - 0.4, 0.2)
    canvas.add(film.patch, inside * glare, (1.0, 0.99, 0.94))
    rough = np.clip(0.6 + 0.6 * noise(rng, shape, 0.02 / pixel), 0.0, 1.0)
    canvas.add(film.patch, 0.40 * rough * line(film.edge, 0.003), (1.0, 0.97, 0.93))
    _paint_zip(canvas, film)


def _paint_zip(canvas: Canvas, film: Film) -> None:
    """Paints the zip's ribs and the printed strip to its right."""
    patch, across = film.patch, film.patch.u - ZIP
    inside = patch.coverage(film.edge)
    ribs = 0.35 * line(across + 0.011, 0.0025) + 0.7 * line(across + 0.003, 0.0025)
    ribs += 0.25 * line(across - 0.004, 0.002) + 0.5 * line(across - 0.011, 0.0025)
    canvas.add(patch, inside * (ribs + 0.06 * line(across, 0.016)))
    strip = inside * smoothstep(0.012, 0.016, across)
    canvas.add(patch, 0.05 * strip, (0.95, 0.95, 1.1))
    # The print repeats along the strip; each pixel looks up its place in one repeat.
    along = patch.v / PRINT_PITCH + 0.5
    ink = lookup(_print(), (across - 0.10) / PRINT_PITCH + 0.5, along - np.floor(along))
    canvas.paint(patch, 0.9 * strip * ink, (0.93, 0.93, 0.94))


@cache
def _print() -> FloatArray:
    """Returns one repeat of the print, (n, n) in 0..1: recycling triangle, dash and PE-LD."""
    size = 160
    axis = (np.arange(size) + 0.5) / size - 0.5
    u, v = np.meshgrid(axis, axis)
    triangle = np.abs(polygon(u - 0.1, v, 3, 0.10)) < 0.035
    gaps = np.abs(np.arctan2(v, u - 0.1) * 3 % (2 * math.pi) - 0.4) < 0.45
    dash = (np.abs(v) > 0.38) & (np.abs(u - 0.12) < 0.025)
    letters = lookup(stencil("PE-LD"), 0.5 + v / 0.46, 0.5 - (u + 0.2) / 0.11)
    return np.maximum(letters, ((triangle & ~gaps) | dash).astype(np.float32))


def tear(canvas: Canvas, rng: np.random.Generator, x: float, y: float) -> None:
    """Tears a hole or a slit into the upper film, dull with a glinting rim, and marks it."""
    size, stretch = rng.uniform(0.03, 0.085), rng.uniform(0.25, 0.9)
    patch = canvas.patch(x, y, 1.8 * size, rng.uniform(0.0, math.pi))
    hole = lobed(patch.u, patch.v / stretch, size, 0.3, rng.uniform(0.0, 9.0))
    canvas.multiply(patch, 1.0 - 0.7 * patch.coverage(hole))
    curl = 0.6 + 0.4 * np.sin(patch.u * 190 + patch.v * 120)
    canvas.add(patch, rng.uniform(0.35, 0.75) * line(hole, 0.004) * curl)
    crease = segment(patch.u, patch.v, (size, 0.0), (1.6 * size, 0.3 * size))
    canvas.add(patch, 0.35 * line(crease, 0.003))
    canvas.mark(patch, (hole < 0.008) | (crease < 0.005))
