"""Paints a breakfast box: its two rooms, and the cereals and toppings poured into one of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import numpy as np

from dfsc_tune.data.builtin.breakfast_food import (
    Draw,
    almond,
    banana,
    bank,
    crumb,
    flake,
    odd_flake,
)
from dfsc_tune.data.builtin.drawing import (
    BoolArray,
    Canvas,
    FloatArray,
    bevel,
    box,
    fractal,
    line,
    lobed,
    noise,
    segment,
    shade,
    sign,
    smoothstep,
    tinted,
)

Room = Literal["left", "right"]
BOX = (0.588, 0.468)
"""Half the width and half the height of the box."""
INNER = (0.540, 0.425)
"""Half the width and half the height of the area that the two rooms share."""
WALL = 0.028
"""Half the width of the wall between the rooms."""
BOUNDARY = 0.10
"""Height (y) where cereals end and toppings begin."""


@dataclass(frozen=True)
class Spot:
    """An irregular patch of the filling in which something is wrong."""

    x: float
    y: float
    radius: float
    phase: float

    def holds(self, x: FloatArray, y: FloatArray) -> BoolArray:
        """Returns True for the points in the spot."""
        inside: BoolArray = lobed(x - self.x, y - self.y, self.radius, 0.25, self.phase) < 0
        return inside


@dataclass(frozen=True)
class Filling:
    """Cereals above and toppings below, in one room."""

    boundary: float = BOUNDARY
    slope: float = 0.0
    swell: float = 0.0
    """Distance by which the filling reaches beyond its room; negative if it ends below the top."""
    room: Room = "right"
    absent: frozenset[str] = frozenset()
    """Missing kinds, among cereals, toppings, almonds and bananas."""
    mixed: Spot | None = None
    crushed: Spot | None = None

    def distance(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Returns the distance of points to the area that cereals and toppings cover."""
        floor = room_distance(self.room, x, y) + 0.022 - max(self.swell, 0.0)
        covered: FloatArray = np.maximum(floor, -0.42 - min(self.swell, 0.0) - y - 0.05 * x)
        return covered

    def is_topping(self, x: FloatArray, y: FloatArray) -> BoolArray:
        """Returns True for the points below the boundary of the cereals."""
        below: BoolArray = y - self.slope * x - 0.012 * np.sin(23.0 * x) > self.boundary
        return below

    def is_cereal(self, x: FloatArray, y: FloatArray) -> BoolArray:
        """Returns True for the points above the boundary of the toppings."""
        return ~self.is_topping(x, y)


# Box ---------------------------------------------------------------------------------------

Height = TypeVar("Height", float, FloatArray)


def _wall_x(y: Height) -> Height:
    """Returns the curved wall's horizontal position at height y."""
    rise = (0.40 - y) / 0.84
    return -0.012 - 0.155 * rise * rise


def room_distance(room: Room, x: FloatArray, y: FloatArray) -> FloatArray:
    """Returns the distance of points to a room's floor."""
    side = x - _wall_x(y) if room == "left" else _wall_x(y) - x
    return np.maximum(box(x, y, *INNER, corner=0.09), side + WALL)


def paint_box(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paints the box of white pulp with its rim and its two rooms."""
    whole = canvas.whole()
    u, v = whole.u, whole.v
    pulp = 1.0 + 0.012 * noise(rng, u.shape, max(0.006 / canvas.pixel, 1.5))
    pulp += 0.02 * fractal(rng, u.shape, 0.2 / canvas.pixel, 2)
    white = tinted(pulp, (1.03, 0.985, 0.95))
    outline = box(u, v, *BOX, corner=0.15)
    groove = np.maximum(outline, -np.abs(outline + 0.026))
    rim = bevel(groove, 0.012, whole.pixel, 0.6)
    canvas.paint(whole, whole.coverage(outline), shade(white, rim, canvas.light))
    floor = np.minimum(room_distance("left", u, v), room_distance("right", u, v))
    depth = np.clip(-floor / 0.10, 0.0, 1.0)
    ground = 0.88 + 0.09 * depth - 0.10 * line(depth - 0.42, 0.10)
    # The rooms are sunk: the bevel of their edge turned inside out.
    slope = bevel(-np.clip(floor, -0.05, 0.0), 0.05, whole.pixel, 0.35)
    canvas.paint(
        whole, whole.coverage(floor), shade(white * ground[..., None], slope, canvas.light)
    )


def crack_box(canvas: Canvas, rng: np.random.Generator) -> None:
    """Tears the rim of the box or cracks the wall between its rooms, and marks it."""
    y = rng.uniform(-0.3, 0.3)
    x = _wall_x(y) if rng.random() < 0.5 else sign(rng) * 0.565
    half = rng.uniform(0.03, 0.05)
    patch = canvas.patch(x, y, 1.5 * half, rng.normal(0.0, 0.35))
    jag = 0.006 * np.sin(patch.u * 160.0) + 0.004 * np.sin(patch.u * 410.0 + 1.0)
    gap = segment(patch.u, patch.v + jag, (-half, 0.0), (half, 0.0)) - rng.uniform(0.002, 0.010)
    canvas.shadow(patch, gap - 0.004, 0.35, 0.010)
    canvas.paint(patch, patch.coverage(gap), (0.16, 0.13, 0.12))
    canvas.mark_shape(patch, gap)


# Filling -----------------------------------------------------------------------------------

Where = Callable[[FloatArray, FloatArray], BoolArray]


def pour(canvas: Canvas, filling: Filling, rng: np.random.Generator) -> None:
    """Pours in cereals and toppings; the places of each kind do not depend on the other kinds."""
    cereal_rng, topping_rng, spot_rng = rng.spawn(3)
    _paint_bed(canvas, filling)
    scatter = partial(_scatter, canvas, filling)
    if "cereals" not in filling.absent:
        scatter(cereal_rng, flake, 0.0215, filling.is_cereal)
    if "toppings" not in filling.absent:
        # Where one kind is absent, the other takes its place.
        first = almond if "bananas" in filling.absent else banana
        second = banana if "almonds" in filling.absent else almond
        layers = ((first, 0.055), (second, 0.075), (first, 0.13))
        for (piece, pitch), layer_rng in zip(layers, topping_rng.spawn(3), strict=True):
            scatter(layer_rng, piece, pitch, filling.is_topping)
    if filling.mixed:
        scatter(spot_rng, odd_flake, 0.045, filling.mixed.holds)
    if filling.crushed:
        scatter(spot_rng, crumb, 0.011, filling.crushed.holds)


def _paint_bed(canvas: Canvas, filling: Filling) -> None:
    """Paints the shade between the pieces, where there are any."""
    whole = canvas.whole()
    topping = filling.is_topping(whole.u, whole.v)
    filled = np.where(topping, "toppings" not in filling.absent, "cereals" not in filling.absent)
    bed = 0.95 * (1.0 - smoothstep(-0.012, 0.006, filling.distance(whole.u, whole.v)))
    canvas.paint(whole, bed * filled, (0.36, 0.22, 0.11))


def _scatter(
    canvas: Canvas,
    filling: Filling,
    rng: np.random.Generator,
    piece: Draw,
    pitch: float,
    where: Where,
) -> None:
    """Stamps pieces about `pitch` apart at each place of the filling for which `where` is true."""
    x, y = np.meshgrid(np.arange(-0.6, 0.6, pitch), np.arange(-0.48, 0.48, pitch))
    points = np.stack([x.ravel(), y.ravel()]) + rng.normal(0.0, 0.35 * pitch, (2, x.size))
    x, y = rng.permutation(points, axis=1)
    pieces = bank(piece, 16, rng, canvas.pixel, canvas.light)
    which, gain = rng.integers(len(pieces), size=x.size), rng.uniform(0.85, 1.12, x.size)
    for k in np.flatnonzero((filling.distance(x, y) < -0.3 * pitch) & where(x, y)):
        canvas.stamp(pieces[which[k]], float(x[k]), float(y[k]), float(gain[k]))
