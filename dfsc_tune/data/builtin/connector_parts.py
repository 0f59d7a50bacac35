"""Paints the parts of spliced connectors: expanded metal, wires and clamp blocks."""

import math
from dataclasses import dataclass, replace

import numpy as np

from dfsc_tune.data.builtin.drawing import (
    Canvas,
    Colour,
    FloatArray,
    Patch,
    bevel,
    box,
    line,
    lobed,
    noise,
    shade,
    sign,
    smoothstep,
    tinted,
    turned,
)

ORANGE: Colour = (0.98, 0.36, 0.09)
CLAMP = 0.097
"""Height of one clamp."""
HALF = 0.16
"""Half the length of a block, from the clear back to the mouth of the clamps."""
WIRE = 0.0145
"""Radius of a wire."""


@dataclass(frozen=True)
class Block:
    """A connector block; its clamps open towards the other block."""

    x: float
    y: float
    angle: float
    clamps: int
    side: int
    """-1 for the left block, 1 for the right one."""
    lever: Colour = ORANGE
    odd_clamp: int = -1
    """The clamp whose lever is open, or -1."""
    flipped: bool = False
    marked: bool = False

    def mouth(self, clamp: int) -> tuple[float, float]:
        """Returns the point at which a wire enters a clamp; clamps are counted from the top."""
        v = (clamp - (self.clamps - 1) / 2) * CLAMP
        x, y = turned(-self.side * HALF, v, self.angle)
        return self.x + x, self.y + y


@dataclass(frozen=True)
class Wire:
    """A wire between two points; gap is the stretch (from, to) in 0..1 that is not there."""

    start: tuple[float, float]
    end: tuple[float, float]
    sway: tuple[float, float]
    """Heights of its bow and of its S."""
    colour: Colour
    gap: tuple[float, float] | None = None
    marked: bool = False


# Expanded metal ----------------------------------------------------------------------------

PITCH_X, PITCH_Y = 0.174, 0.108
"""Size of the diamonds of the expanded metal."""
STRAND = 0.0122
"""Half the width of its strands."""


def paint_mesh(canvas: Canvas, rng: np.random.Generator, texture: np.random.Generator) -> None:
    """Paints expanded metal: wavy strands that meet in turn with those above and below."""
    shift_x, shift_y = rng.uniform(0.0, 1.0), rng.uniform(0.0, PITCH_Y)
    mesh = canvas.patch(0.0, 0.0, 2.0, rng.normal(0.0, 0.012))
    shape = mesh.u.shape
    y = mesh.v + shift_y + 0.004 * noise(texture, shape, 0.25 / mesh.pixel)
    wave = PITCH_Y / 4 * np.cos(2 * math.pi * (mesh.u / PITCH_X + shift_x))
    down, up = _to_nearest(y - wave), _to_nearest(y - PITCH_Y / 2 + wave)
    offset = np.where(np.abs(down) < np.abs(up), down, up)
    # A joint is where both strands meet; it is pressed flat and glints.
    joint = smoothstep(0.036, 0.002, np.abs(down) + np.abs(up))
    across = offset / STRAND
    value = 0.36 + 0.22 * line(across + 0.35, 0.45) - 0.16 * across
    value += joint * (0.10 + 0.42 * line(offset, 0.007))
    value *= 1.0 + 0.16 * noise(texture, shape, max(0.012 / mesh.pixel, 1.5))
    value *= 1.0 + 0.08 * noise(texture, shape, 0.4 / mesh.pixel)
    strands = mesh.coverage(np.abs(offset) - STRAND)
    canvas.paint(mesh, strands, tinted(value, (1.0, 0.965, 0.94)))


def _to_nearest(y: FloatArray) -> FloatArray:
    """Returns the signed distance to the nearest multiple of PITCH_Y."""
    distance: FloatArray = y - PITCH_Y * np.rint(y / PITCH_Y)
    return distance


# Wires -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WirePixels:
    """The pixels around a wire, by their distance from its axis and their place along it."""

    patch: Patch
    offset: FloatArray
    """Signed distance to the axis."""
    place: FloatArray
    """Share of the way along the wire, in 0..1."""
    outline: FloatArray
    """Distance to the wire's outline."""


def _wire_pixels(canvas: Canvas, wire: Wire) -> WirePixels:
    (x, y), (end_x, end_y) = wire.start, wire.end
    length, angle = math.hypot(end_x - x, end_y - y), math.atan2(end_y - y, end_x - x)
    bow, s_curve = wire.sway[0] / 2, wire.sway[1]
    breadth = abs(2 * bow) + abs(s_curve) + 3 * WIRE
    patch = canvas.patch((x + end_x) / 2, (y + end_y) / 2, length / 2 + 3 * WIRE, angle, breadth)
    unbounded = patch.u / length + 0.5
    place = np.clip(unbounded, 0.0, 1.0)
    phase = 2 * math.pi * place
    cos, sin = np.cos(phase), np.sin(phase)
    slope = 2 * math.pi / length * (bow * sin + s_curve * cos)
    offset = (patch.v - bow * (1.0 - cos) - s_curve * sin) / np.sqrt(1.0 + slope * slope)
    beyond = (unbounded - place) * length
    return WirePixels(patch, offset, place, np.hypot(offset, beyond) - WIRE)


def paint_wire(canvas: Canvas, wire: Wire) -> None:
    """Paints a wire with its shadow; marks it, or else the piece that is not there."""
    (x, y), (end_x, end_y) = wire.start, wire.end
    fallen = replace(wire, start=(x + 0.01, y + 0.016), end=(end_x + 0.01, end_y + 0.016))
    shadow, pixels = _wire_pixels(canvas, fallen), _wire_pixels(canvas, wire)
    canvas.shadow(shadow.patch, _left_of(shadow, wire), 0.4, 0.012)
    t = pixels.offset / WIRE
    roundness = np.sqrt(np.clip(1.0 - t * t, 0.05, 1.0)) * (1.0 - 0.22 * t)
    colour = tinted(roundness, wire.colour) + 0.22 * line(t + 0.42, 0.2)[..., None]
    left = _left_of(pixels, wire)
    canvas.paint(pixels.patch, pixels.patch.coverage(left), colour)
    if wire.marked:
        canvas.mark(pixels.patch, pixels.outline < 0)
    elif wire.gap:
        canvas.mark(pixels.patch, (pixels.outline < 0) & (left > 0))


def _left_of(pixels: WirePixels, wire: Wire) -> FloatArray:
    """Returns the distance to the part of a wire that its gap leaves."""
    if wire.gap is None:
        return pixels.outline
    start, end = wire.gap
    missing = (pixels.place >= start) & (pixels.place <= end)
    left: FloatArray = np.where(missing, WIRE, pixels.outline)
    return left


def mark_wire(canvas: Canvas, wire: Wire) -> None:
    """Marks the place where a wire lies or should lie."""
    pixels = _wire_pixels(canvas, wire)
    canvas.mark(pixels.patch, pixels.outline < 0)


def strip_wire(canvas: Canvas, wire: Wire, rng: np.random.Generator) -> None:
    """Strips the insulation off a stretch of wire, down to the copper, and marks it."""
    pixels = _wire_pixels(canvas, wire)
    half, middle = rng.uniform(0.015, 0.06), rng.uniform(0.2, 0.8)
    bare = np.maximum(np.abs(pixels.place - middle) - half, pixels.outline)
    canvas.paint(pixels.patch, pixels.patch.coverage(bare), (0.08, 0.07, 0.07))
    strands = 0.65 + 0.35 * np.sin(pixels.offset * 900 + pixels.place * 300)
    core = np.maximum(bare, pixels.outline + 0.4 * WIRE)
    copper = tinted(strands, (0.85, 0.50, 0.30))
    canvas.paint(pixels.patch, pixels.patch.coverage(core), copper)
    canvas.mark_shape(pixels.patch, bare)


# Blocks ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Face:
    """The pixels around a block, u towards its clear back."""

    patch: Patch
    outline: FloatArray
    """Distance to the block's outline."""
    own: FloatArray
    """v from the middle of each pixel's own clamp."""


def _face(canvas: Canvas, block: Block) -> Face:
    turn = block.angle if block.side > 0 else block.angle + math.pi
    half = block.clamps * CLAMP / 2
    patch = canvas.patch(block.x, block.y, HALF + 0.02, turn, half + 0.02)
    place = patch.v / CLAMP + block.clamps / 2
    own = (place - np.clip(np.floor(place), 0, block.clamps - 1) - 0.5) * CLAMP
    return Face(patch, box(patch.u, patch.v, HALF, half, 0.006), own)


def paint_block(canvas: Canvas, block: Block, rng: np.random.Generator) -> None:
    """Paints a block: a clear housing over orange levers; marks it if it is part of the defect."""
    drop = _face(canvas, replace(block, x=block.x + 0.014, y=block.y + 0.02))
    canvas.shadow(drop.patch, drop.outline, 0.5, 0.02)
    face = _face(canvas, block)
    frost = 0.46 + 0.12 * noise(rng, face.own.shape, 0.04 / canvas.pixel)
    clear = tinted(frost, (1.0, 0.98, 0.95))
    canvas.paint(face.patch, 0.72 * face.patch.coverage(face.outline), clear)
    if block.flipped:
        _paint_underside(canvas, face)
    else:
        _paint_levers(canvas, face, block)
    _paint_housing(canvas, face)
    if block.odd_clamp >= 0:
        _open_lever(canvas, face.patch, block)
    if block.marked:
        canvas.mark(face.patch, face.outline < 0)


def mark_block(canvas: Canvas, block: Block) -> None:
    """Marks the place where a block should lie."""
    face = _face(canvas, block)
    canvas.mark(face.patch, face.outline < 0)


def _paint_levers(canvas: Canvas, face: Face, block: Block) -> None:
    """Paints the orange levers with the clear window over the clamp."""
    patch, u = face.patch, face.patch.u
    mouth = 0.043 - 0.05 * np.clip(-u - 0.10, 0.0, 0.1)
    lever = np.maximum(box(u + 0.055, face.own, 0.105, 0.05, 0.006), np.abs(face.own) - mouth)
    lit = shade(block.lever, bevel(lever, 0.008, patch.pixel, 0.7), canvas.light, 0.15, 20.0)
    deep = 1.0 - 0.35 * smoothstep(-0.055, -0.035, u)
    canvas.paint(patch, patch.coverage(lever), lit * deep[..., None])
    window = box(u - 0.008, face.own - 0.006, 0.048, 0.026, 0.004)
    pane = patch.coverage(window)
    canvas.paint(patch, 0.55 * pane, (0.52, 0.47, 0.44))
    bar = box(u - 0.018, face.own - 0.006, 0.011, 0.016, 0.002)
    canvas.add(patch, 0.16 * line(window, 0.003) + pane * 0.26 * line(bar, 0.0035))


def _paint_underside(canvas: Canvas, face: Face) -> None:
    """Paints a block lying on its levers: grey plastic with a test slot a clamp."""
    patch = face.patch
    base = box(patch.u + 0.03, face.own, 0.125, 0.045, 0.004)
    lit = shade((0.52, 0.51, 0.50), bevel(base, 0.008, patch.pixel, 0.6), canvas.light, 0.1)
    canvas.paint(patch, 0.9 * patch.coverage(base), lit)
    slot = box(patch.u + 0.02, face.own, 0.04, 0.012, 0.004)
    canvas.paint(patch, 0.8 * patch.coverage(slot), (0.25, 0.24, 0.24))


def _paint_housing(canvas: Canvas, face: Face) -> None:
    """Adds the reflections of the clear housing: back ridge, one little frame a clamp, edges."""
    patch, inside = face.patch, face.patch.coverage(face.outline)
    ridge = box(patch.u - 0.125, patch.v, 0.032, 1.0)
    canvas.paint(patch, 0.5 * inside * patch.coverage(ridge), (0.70, 0.69, 0.70))
    notch = box(patch.u - 0.105, face.own, 0.012, 0.014, 0.003)
    seam = line(np.abs(face.own) - CLAMP / 2, 0.003) * smoothstep(0.05, 0.09, patch.u)
    glint = 0.22 * line(ridge, 0.0035) + 0.25 * line(notch, 0.0025) + 0.30 * seam
    canvas.add(patch, inside * glint + 0.20 * line(face.outline, 0.003))


def _open_lever(canvas: Canvas, patch: Patch, block: Block) -> None:
    """Opens one lever: it stands over the block, nearer to the lamp, and bares its clamp."""
    own = patch.v - (block.odd_clamp - (block.clamps - 1) / 2) * CLAMP
    bare = box(patch.u + 0.10, own, 0.055, 0.042, 0.004)
    canvas.paint(patch, 0.9 * patch.coverage(bare), (0.36, 0.34, 0.33))
    slot = box(patch.u + 0.10, own, 0.04, 0.018, 0.004)
    canvas.paint(patch, patch.coverage(slot), (0.12, 0.10, 0.09))
    raised = box(patch.u - 0.06, own, 0.065, 0.044, 0.006)
    canvas.shadow(patch, raised - 0.006, 0.45, 0.014)
    lit = shade(block.lever, bevel(raised, 0.01, patch.pixel), canvas.light, 0.3)
    canvas.paint(patch, patch.coverage(raised), lit)
    canvas.mark(patch, np.minimum(bare, raised) < 0)


def break_block(canvas: Canvas, block: Block, rng: np.random.Generator) -> None:
    """Breaks a corner out of a block, or a chip out of its edge, and marks it."""
    face = _face(canvas, block)
    x = sign(rng) * HALF * rng.uniform(0.7, 1.0)
    y = sign(rng) * block.clamps * CLAMP / 2
    size, phase = rng.uniform(0.03, 0.07), rng.uniform(0.0, 9.0)
    chip = lobed(face.patch.u - x, face.patch.v - y, size, 0.3, phase)
    gone = np.maximum(chip, face.outline - 0.004)
    canvas.paint(face.patch, face.patch.coverage(gone), (0.05, 0.045, 0.045))
    canvas.add(face.patch, 0.4 * line(chip, 0.003) * face.patch.coverage(face.outline))
    canvas.mark_shape(face.patch, gone)
