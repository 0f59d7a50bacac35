"""Pushpins: a tray of 3 x 5 compartments, one yellow pin lying at random in each."""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from dfsc_tune.data.builtin import blemishes
from dfsc_tune.data.builtin.category import Category, DefectType, Dice
from dfsc_tune.data.builtin.drawing import (
    Canvas,
    Colour,
    FloatArray,
    Patch,
    bevel,
    box,
    fractal,
    metal,
    mix,
    segment,
    shade,
    sign,
    tinted,
)

ROWS, COLUMNS = 3, 5
PITCH = 0.305
"""Distance between the centres of neighbouring compartments."""
ROOM = 0.5 * PITCH - 0.009
"""Half the side of a compartment without its walls."""
TRAY = (0.5 * COLUMNS * PITCH + 0.018, 0.5 * ROWS * PITCH + 0.018)
PIN_AREA = 0.0066
"""A pin's footprint, the saturation area of one pin too many or too few."""
PLASTIC: Colour = (0.77, 0.78, 0.79)
PIN_BREADTH = 0.055
"""Half the breadth of a pin, a bent needle included."""
YELLOW: Colour = (0.95, 0.73, 0.06)
ODD_COLOURS: tuple[Colour, ...] = (
    (0.92, 0.42, 0.08),
    (0.90, 0.88, 0.55),
    (0.62, 0.68, 0.12),
    (0.75, 0.12, 0.10),
    (0.20, 0.35, 0.70),
)

DEFECTS = (
    DefectType("1_additional_pushpin", "logical", area=PIN_AREA),
    DefectType("2_additional_pushpins", "logical", area=2 * PIN_AREA),
    DefectType("missing_pushpin", "logical", area=PIN_AREA),
    DefectType("missing_separator", "logical"),
    DefectType("front_bent", "structural"),
    DefectType("broken", "structural"),
    DefectType("color", "structural"),
    DefectType("contamination", "structural"),
)


@dataclass(frozen=True)
class Pin:
    """One pin: its centre, the direction its needle points, and what is wrong with it."""

    x: float
    y: float
    angle: float
    colour: Colour = YELLOW
    bend: float = 0.0
    """Angle between needle and body in radians."""
    needle: float = 1.0
    """Length of the needle that is left, as a share."""
    has_cap: bool = True
    marked: bool = False


@dataclass
class Tray:
    """The pins of each compartment, and a missing wall."""

    pins: dict[tuple[int, int], list[Pin]]
    removed_wall: tuple[tuple[int, int], tuple[int, int]] | None = None
    """The two compartments that the missing wall would separate."""
    stub: float = 0.0
    """Share of the missing wall that still stands."""
    emptied: list[tuple[int, int]] = field(default_factory=list)


def _centre(cell: tuple[int, int]) -> tuple[float, float]:
    return (cell[1] - (COLUMNS - 1) / 2) * PITCH, (cell[0] - (ROWS - 1) / 2) * PITCH


def _random_pin(rng: np.random.Generator, cell: tuple[int, int]) -> Pin:
    x, y = _centre(cell)
    x, y = x + rng.uniform(-0.042, 0.042), y + rng.uniform(-0.042, 0.042)
    colour = mix(YELLOW, (0.9, 0.6, 0.2), rng.uniform(-0.15, 0.15))
    return Pin(x, y, rng.uniform(0.0, 2 * math.pi), colour)


def _spine(pin: Pin) -> FloatArray:
    """Returns seven points along the pin, (7, 2), to measure distances between pins."""
    along = np.linspace(-0.08, 0.09, 7)
    x, y = pin.x + along * math.cos(pin.angle), pin.y + along * math.sin(pin.angle)
    return np.stack([x, y], axis=1)


def _add_pins(tray: Tray, rng: np.random.Generator, count: int) -> None:
    """Puts further pins into one compartment where they overlap the least."""
    cell = _random_cell(rng)
    for _ in range(count):
        others = np.concatenate([_spine(pin) for pin in tray.pins[cell]])
        candidates = [_random_pin(rng, cell) for _ in range(40)]
        gaps = [np.linalg.norm(_spine(pin)[:, None] - others, axis=-1).min() for pin in candidates]
        tray.pins[cell].append(candidates[int(np.argmax(gaps))])
    tray.pins[cell] = [replace(pin, marked=True) for pin in tray.pins[cell]]


def _random_cell(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(ROWS)), int(rng.integers(COLUMNS))


def _remove_pins(tray: Tray, rng: np.random.Generator) -> None:
    """Empties one compartment, or two in a quarter of the images."""
    for _ in range(2 if rng.random() < 0.25 else 1):
        cell = _random_cell(rng)
        tray.pins[cell] = []
        if cell not in tray.emptied:
            tray.emptied.append(cell)


def _remove_wall(tray: Tray, rng: np.random.Generator) -> None:
    sideways = rng.random() < 0.6
    row = int(rng.integers(ROWS if sideways else ROWS - 1))
    column = int(rng.integers(COLUMNS - 1 if sideways else COLUMNS))
    neighbour = (row, column + 1) if sideways else (row + 1, column)
    tray.removed_wall = ((row, column), neighbour)
    tray.stub = rng.uniform(0.0, 0.5)


def _damage_pin(tray: Tray, rng: np.random.Generator, defect: str) -> None:
    cell = _random_cell(rng)
    pin = replace(tray.pins[cell][0], marked=True)
    if defect == "front_bent":
        pin = replace(pin, bend=sign(rng) * rng.uniform(0.35, 1.5))
    elif defect == "color":
        odd = ODD_COLOURS[rng.integers(len(ODD_COLOURS))]
        pin = replace(pin, colour=mix(pin.colour, odd, rng.uniform(0.45, 1.0)))
    elif rng.random() < 0.6:
        pin = replace(pin, needle=rng.uniform(0.0, 0.45))
    else:
        pin = replace(pin, has_cap=False)
    tray.pins[cell] = [pin]


def _plan(dice: Dice, defect: str | None) -> Tray:
    """Returns a tray that obeys the rule, then breaks it as the defect says."""
    cells = [(row, column) for row in range(ROWS) for column in range(COLUMNS)]
    tray = Tray({cell: [_random_pin(dice.scene, cell)] for cell in cells})
    if defect == "1_additional_pushpin":
        _add_pins(tray, dice.defect, 1)
    elif defect == "2_additional_pushpins":
        _add_pins(tray, dice.defect, 2)
    elif defect == "missing_pushpin":
        _remove_pins(tray, dice.defect)
    elif defect == "missing_separator":
        _remove_wall(tray, dice.defect)
    elif defect in ("front_bent", "broken", "color"):
        _damage_pin(tray, dice.defect, defect)
    return tray


def draw(canvas: Canvas, dice: Dice, defect: str | None) -> None:
    """Draws a tray of pins, with the named defect if one is given."""
    tray, rng = _plan(dice, defect), dice.defect
    _paint_tray(canvas, dice.texture)
    for cell in tray.pins:
        _paint_room(canvas, *_centre(cell), ROOM, ROOM)
    if tray.removed_wall:
        _paint_missing_wall(canvas, *tray.removed_wall, tray.stub)
    for pins in tray.pins.values():
        for pin in pins:
            _paint_pin(canvas, pin)
    for channel, cell in enumerate(tray.emptied):
        patch = canvas.patch(*_centre(cell), 1.1 * ROOM)
        canvas.mark(patch, box(patch.u, patch.v, 0.93 * ROOM, 0.93 * ROOM, 0.02) < 0, channel)
    if defect == "contamination":
        x, y = _centre(_random_cell(rng))
        x, y = x + rng.uniform(-0.11, 0.11), y + rng.uniform(-0.11, 0.11)
        blemishes.contaminate(canvas, rng, x, y)


def _paint_tray(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paints the bench and the tray of milky plastic, before its compartments are sunk."""
    whole = canvas.whole()
    bench = 1.0 + 0.25 * fractal(rng, whole.u.shape, 0.02 / canvas.pixel, 2)
    canvas.multiply(whole, bench)
    distance = box(whole.u, whole.v, *TRAY, corner=0.03)
    canvas.shadow(whole, distance - 0.012, 0.6, 0.02)
    cloud = 1.0 + 0.03 * fractal(rng, whole.u.shape, 0.1 / canvas.pixel, 3)
    lit = shade(
        tinted(cloud, PLASTIC), bevel(distance, 0.012, whole.pixel), canvas.light, 0.15, 40.0
    )
    canvas.paint(whole, whole.coverage(distance), lit)


def _paint_room(canvas: Canvas, x: float, y: float, half_x: float, half_y: float) -> None:
    """Sinks a compartment: its walls catch or lose the light, its floor is dull in the corners."""
    patch = canvas.patch(x, y, max(half_x, half_y))
    distance = box(patch.u, patch.v, half_x, half_y, corner=0.022)
    depth = np.maximum(-distance, 0.0)
    floor = 0.60 * (1.0 - 0.42 * np.exp(-depth / 0.028))
    colour = tinted(floor, (1.0, 1.01, 1.03))
    # The floor is sunk, so the side facing the lamp is the far one: the bevel turned inside out.
    lit = shade(colour, bevel(-np.maximum(distance, -0.02), 0.02, patch.pixel, 0.5), canvas.light)
    canvas.paint(patch, patch.coverage(distance), lit)


def _paint_missing_wall(
    canvas: Canvas, first: tuple[int, int], second: tuple[int, int], stub: float
) -> None:
    """Joins two compartments, leaves a stub of the wall between, and marks the missing part."""
    (x1, y1), (x2, y2) = _centre(first), _centre(second)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    sideways = first[0] == second[0]
    half_x, half_y = (ROOM + PITCH / 2, ROOM) if sideways else (ROOM, ROOM + PITCH / 2)
    _paint_room(canvas, x, y, half_x, half_y)
    patch = canvas.patch(x, y, PITCH, 0.0 if sideways else math.pi / 2)
    end = ROOM - 2 * ROOM * stub
    wall = box(patch.u, patch.v, PITCH / 2 - ROOM, ROOM)
    standing = np.maximum(wall, end - patch.v)
    lit = shade(PLASTIC, bevel(standing, 0.005, patch.pixel), canvas.light)
    canvas.shadow(patch, standing, 0.3, 0.012)
    canvas.paint(patch, patch.coverage(standing), lit)
    canvas.mark(patch, (wall < 0) & (standing >= 0))


def _paint_pin(canvas: Canvas, pin: Pin) -> None:
    """Paints a pin lying on its side, with its shadow; marks it if it is part of the defect."""
    shadow = canvas.patch(pin.x + 0.009, pin.y + 0.012, 0.13, pin.angle, PIN_BREADTH)
    canvas.shadow(shadow, _outline(shadow, pin), 0.45, 0.016)
    patch = canvas.patch(pin.x, pin.y, 0.13, pin.angle, PIN_BREADTH)
    needle = _needle(patch, pin)
    canvas.paint(
        patch,
        patch.coverage(needle),
        metal(bevel(needle, 0.004, patch.pixel), canvas.light, (1.15, 1.13, 1.08)),
    )
    for distance, width in _plastic_parts(patch, pin):
        normal = bevel(distance, width, patch.pixel)
        lit = shade(pin.colour, normal, canvas.light, gloss=0.45, sharpness=30.0)
        canvas.paint(patch, patch.coverage(distance), lit)
    if pin.marked:
        intact = _outline(patch, replace(pin, bend=0.0, needle=1.0, has_cap=True))
        canvas.mark_shape(patch, np.minimum(intact, _outline(patch, pin)))


def _outline(patch: Patch, pin: Pin) -> FloatArray:
    """Returns the distance to the pin's outline."""
    parts = [distance for distance, _ in _plastic_parts(patch, pin)]
    outline: FloatArray = np.minimum.reduce([*parts, _needle(patch, pin)])
    return outline


def _plastic_parts(patch: Patch, pin: Pin) -> list[tuple[FloatArray, float]]:
    """Returns the distance and rounding width of waist, collar and cap."""
    u, v = patch.u, patch.v
    taper = 0.018 - 0.12 * np.abs(u + 0.03)
    waist = np.maximum(np.abs(v) - np.maximum(taper, 0.012), np.abs(u + 0.03) - 0.045)
    collar = box(u - 0.017, v, 0.009, 0.034, 0.006)
    parts = [(waist, 0.018), (collar, 0.009)]
    if pin.has_cap:
        parts.append((box(u + 0.079, v, 0.011, 0.037, 0.007), 0.011))
    return parts


def _needle(patch: Patch, pin: Pin) -> FloatArray:
    """Returns the distance to the needle, bent half-way or cut short as the pin says."""
    root, elbow, tip = (0.02, 0.0), (0.052, 0.0), 0.046
    if pin.needle < 1.0:
        end = (root[0] + 0.078 * pin.needle + 1e-3, 0.0)
        return segment(patch.u, patch.v, root, end) - 0.0038
    end = (elbow[0] + tip * math.cos(pin.bend), tip * math.sin(pin.bend))
    straight = segment(patch.u, patch.v, root, elbow)
    return np.minimum(straight, segment(patch.u, patch.v, elbow, end)) - 0.0038


CATEGORY = Category("pushpins", 1.7, (0.10, 0.10, 0.11), DEFECTS, draw)
