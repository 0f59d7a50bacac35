"""Drawing primitives: a canvas in scene units, distance fields, noise, print and light.

Scene units: the image height is 1, the origin the image's centre, x to the right, y down. A
distance field is negative inside a shape and in scene units, so that every size is drawn with
edges one pixel soft.
"""

import math
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

FloatArray = NDArray[np.floating[Any]]
"""float32 wherever it is as large as an image: scalars are Python floats, which keep it so."""
BoolArray = NDArray[np.bool_]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class View:
    """The camera's position: shift in scene units, roll in radians, zoom as a factor."""

    shift_x: float
    shift_y: float
    roll: float
    zoom: float


@dataclass(frozen=True)
class Light:
    """A distant lamp: the unit vector towards it, and the share of ambient light."""

    x: float
    y: float
    z: float
    ambient: float


@dataclass(frozen=True)
class Patch:
    """A rectangle of pixels with their positions (u, v) in an object's own frame."""

    rows: slice
    columns: slice
    u: FloatArray
    v: FloatArray
    pixel: float
    """Side of a pixel in scene units."""

    def coverage(self, distance: FloatArray) -> FloatArray:
        """Returns the share of each pixel inside a shape, (h, w) in 0..1."""
        share: FloatArray = np.clip(0.5 - distance / self.pixel, 0.0, 1.0)
        return share


@dataclass(frozen=True)
class Sprite:
    """A small picture to stamp many times: colour (h, w, 3) times alpha, and alpha (h, w)."""

    premultiplied: FloatArray
    alpha: FloatArray


@dataclass
class Canvas:
    """A picture in display values 0..1, (height, width, 3), with the defect masks drawn so far."""

    rgb: FloatArray
    view: View
    light: Light
    masks: list[BoolArray] = field(default_factory=list)

    @property
    def height(self) -> int:
        """Image height in pixels."""
        return int(self.rgb.shape[0])

    @property
    def pixel(self) -> float:
        """Side of a pixel in scene units."""
        return 1.0 / (self.height * self.view.zoom)

    def whole(self) -> Patch:
        """Returns the patch of all pixels in the scene's frame."""
        height, width, _ = self.rgb.shape
        return self._patch(0.0, 0.0, 0.0, slice(0, height), slice(0, width))

    def patch(
        self, x: float, y: float, reach: float, angle: float = 0.0, breadth: float | None = None
    ) -> Patch:
        """Returns the pixels around (x, y), in a frame turned by `angle` radians.

        They extend at least `reach` along u and `breadth` (default: `reach`) along v.
        """
        cos, sin = abs(math.cos(angle + self.view.roll)), abs(math.sin(angle + self.view.roll))
        breadth = reach if breadth is None else breadth
        scale = self.height * self.view.zoom
        half_right = (cos * reach + sin * breadth) * scale + 2.0
        half_down = (sin * reach + cos * breadth) * scale + 2.0
        column, row = self._to_pixels(x, y)
        height, width, _ = self.rgb.shape
        rows = _clipped(row - half_down, row + half_down, height)
        columns = _clipped(column - half_right, column + half_right, width)
        return self._patch(x, y, angle, rows, columns)

    def _to_pixels(self, x: float, y: float) -> tuple[float, float]:
        view = self.view
        right, down = turned(x, y, view.roll)
        column = (view.zoom * right + view.shift_x) * self.height + self.rgb.shape[1] / 2
        row = (view.zoom * down + view.shift_y) * self.height + self.height / 2
        return column, row

    def _patch(self, x: float, y: float, angle: float, rows: slice, columns: slice) -> Patch:
        column, row = self._to_pixels(x, y)
        right = (np.arange(columns.start, columns.stop) + 0.5 - column) * self.pixel
        down = (np.arange(rows.start, rows.stop) + 0.5 - row) * self.pixel
        u, v = _axes(right, down, angle + self.view.roll)
        return Patch(rows, columns, u, v, self.pixel)

    def paint(self, patch: Patch, alpha: FloatArray, colour: Colour | FloatArray) -> None:
        """Lays a colour, one or (h, w, 3), over the patch with coverage alpha (h, w)."""
        region = self.rgb[patch.rows, patch.columns]
        region += alpha[..., None] * (np.asarray(colour, dtype=np.float32) - region)

    def multiply(self, patch: Patch, factor: FloatArray) -> None:
        """Scales the patch's brightness by a factor (h, w)."""
        self.rgb[patch.rows, patch.columns] *= factor[..., None]

    def add(self, patch: Patch, amount: FloatArray, colour: Colour = (1.0, 1.0, 1.0)) -> None:
        """Adds light: an amount (h, w) of one colour."""
        self.rgb[patch.rows, patch.columns] += amount[..., None] * np.asarray(colour, np.float32)

    def shadow(self, patch: Patch, distance: FloatArray, strength: float, softness: float) -> None:
        """Darkens the pixels under a shape: fully inside it, fading over `softness` outside."""
        self.multiply(patch, 1.0 - strength * (1.0 - smoothstep(-softness, softness, distance)))

    def stamp(self, sprite: Sprite, x: float, y: float, gain: float = 1.0) -> None:
        """Lays a sprite, centred on the pixel at (x, y), its colours times `gain`."""
        column, row = self._to_pixels(x, y)
        size_y, size_x = sprite.alpha.shape
        top, left = round(row - size_y / 2), round(column - size_x / 2)
        height, width, _ = self.rgb.shape
        rows = slice(max(top, 0), min(top + size_y, height))
        columns = slice(max(left, 0), min(left + size_x, width))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return
        own_rows = slice(rows.start - top, rows.stop - top)
        own_columns = slice(columns.start - left, columns.stop - left)
        region = self.rgb[rows, columns]
        region *= 1.0 - sprite.alpha[own_rows, own_columns, None]
        region += gain * sprite.premultiplied[own_rows, own_columns]

    def mark_shape(self, patch: Patch, distance: FloatArray) -> None:
        """Marks a shape and the pixels that its soft edge touches; at least one if it is tiny."""
        self.mark(patch, distance < self.pixel / 2)

    def mark(self, patch: Patch, inside: BoolArray, channel: int = 0) -> None:
        """Adds pixels (h, w) to the defect mask number `channel`."""
        while len(self.masks) <= channel:
            self.masks.append(np.zeros(self.rgb.shape[:2], dtype=np.bool_))
        self.masks[channel][patch.rows, patch.columns] |= inside


def _clipped(low: float, high: float, size: int) -> slice:
    """Returns the pixels low..high inside the image, at least two of them (gradients need two)."""
    start = int(np.clip(np.floor(low), 0, size - 2))
    return slice(start, int(np.clip(np.ceil(high), start + 2, size)))


def frame(reach: float, pixel: float, angle: float = 0.0) -> Patch:
    """Returns a free-standing patch reaching `reach` from its centre, to render sprites on."""
    half = math.ceil(reach / pixel) + 1
    steps = np.arange(-half, half + 1) * pixel
    u, v = _axes(steps, steps, angle)
    return Patch(slice(0, steps.size), slice(0, steps.size), u, v, pixel)


def _axes(right: FloatArray, down: FloatArray, angle: float) -> tuple[FloatArray, FloatArray]:
    """Returns the coordinates (h, w) of pixels in a frame turned by `angle`."""
    cos, sin = math.cos(angle), math.sin(angle)
    u = (cos * right)[None, :] + (sin * down)[:, None]
    v = (-sin * right)[None, :] + (cos * down)[:, None]
    return u.astype(np.float32), v.astype(np.float32)


def turned(x: float, y: float, angle: float) -> tuple[float, float]:
    """Returns a point turned about the origin, clockwise on the image."""
    cos, sin = math.cos(angle), math.sin(angle)
    return cos * x - sin * y, sin * x + cos * y


def sprite(alpha: FloatArray, colour: FloatArray, shade_alpha: FloatArray) -> Sprite:
    """Returns a sprite of colour (h, w, 3) under alpha (h, w), over a black shade."""
    return Sprite(alpha[..., None] * colour, alpha + shade_alpha * (1.0 - alpha))


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Returns the mixture of two colours; `share` is the second one's."""
    red, green, blue = (a + share * (b - a) for a, b in zip(first, second, strict=True))
    return red, green, blue


def tinted(value: FloatArray, colour: Colour) -> FloatArray:
    """Returns brightness (h, w) in one colour, (h, w, 3)."""
    return value[..., None] * np.asarray(colour, dtype=np.float32)


def sign(rng: np.random.Generator) -> float:
    """Returns -1 or 1."""
    return float(2 * rng.integers(2) - 1)


# Distance fields ---------------------------------------------------------------------------


def ellipse(u: FloatArray, v: FloatArray, a: float, b: float) -> FloatArray:
    """Returns the distance to an ellipse of half-axes a, b (first order, exact for a circle)."""
    scaled = np.hypot(u / a, v / b)
    slope = np.hypot(u / a**2, v / b**2)
    distance: FloatArray = scaled * (scaled - 1.0) / np.maximum(slope, 1e-6)
    return distance


def circle(u: FloatArray, v: FloatArray, radius: float) -> FloatArray:
    """Returns the distance to a circle about the origin."""
    return np.hypot(u, v) - radius


def box(u: FloatArray, v: FloatArray, a: float, b: float, corner: float = 0.0) -> FloatArray:
    """Returns the distance to a rectangle of half-sides a, b with rounded corners."""
    x = np.abs(u) - (a - corner)
    y = np.abs(v) - (b - corner)
    outside = np.hypot(np.maximum(x, 0.0), np.maximum(y, 0.0))
    distance: FloatArray = outside + np.minimum(np.maximum(x, y), 0.0) - corner
    return distance


def segment(
    u: FloatArray, v: FloatArray, start: tuple[float, float], end: tuple[float, float]
) -> FloatArray:
    """Returns the distance to a line segment; subtract a radius for a rod with round ends."""
    run_x, run_y = end[0] - start[0], end[1] - start[1]
    x, y = u - start[0], v - start[1]
    along = np.clip((x * run_x + y * run_y) / (run_x**2 + run_y**2), 0.0, 1.0)
    distance: FloatArray = np.hypot(x - along * run_x, y - along * run_y)
    return distance


def polygon(u: FloatArray, v: FloatArray, sides: int, inradius: float) -> FloatArray:
    """Returns the distance to a regular polygon given the radius of its inner circle."""
    angles = [2.0 * math.pi * side / sides for side in range(sides)]
    faces = [math.cos(angle) * u + math.sin(angle) * v for angle in angles]
    distance: FloatArray = np.maximum.reduce(faces) - inradius
    return distance


def lobed(
    u: FloatArray, v: FloatArray, radius: float, roughness: float, phase: float
) -> FloatArray:
    """Returns the distance to an irregular round blob; roughness 0 is a circle, 0.4 ragged."""
    theta = np.arctan2(v, u)
    waves = np.sin(2 * theta + phase) + np.sin(3 * theta + 2.3 * phase)
    waves = waves + 0.6 * np.sin(5 * theta + 3.1 * phase)
    return np.hypot(u, v) - radius * (1.0 + (roughness / 2) * waves)


def smoothstep(low: float, high: float, value: FloatArray) -> FloatArray:
    """Returns 0 below low, 1 above high, and a smooth cubic between; falling if high < low."""
    t: FloatArray = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def line(distance: FloatArray, width: float) -> FloatArray:
    """Returns a soft line, 1 where the distance is 0, fading within about `width`."""
    strength: FloatArray = np.exp(-np.square(distance / width))
    return strength


# Noise -------------------------------------------------------------------------------------

BSPLINE_GAIN = 2.0
"""Undoes most of the smoothing of the B-spline, so that noise has a spread of about 0.6."""


def noise(rng: np.random.Generator, shape: tuple[int, ...], cell: float) -> FloatArray:
    """Returns smooth noise (h, w), mostly in -1..1, whose bumps are `cell` pixels wide."""
    height, width = shape
    rows = height / cell
    columns = width / cell
    grid = rng.uniform(-BSPLINE_GAIN, BSPLINE_GAIN, (int(rows) + 4, int(columns) + 4))
    tall = _bspline(grid.astype(np.float32), np.linspace(0.0, rows, height), axis=0)
    return _bspline(tall, np.linspace(0.0, columns, width), axis=1)


def _bspline(grid: FloatArray, position: NDArray[np.float64], axis: int) -> FloatArray:
    """Interpolates along one axis with a cubic B-spline at positions 0..size-4."""
    base = position.astype(np.intp)
    t = position - base
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    column = (-1, 1) if axis == 0 else (1, -1)
    taps = [
        (weight / 6).astype(np.float32).reshape(column) * np.take(grid, base + k, axis=axis)
        for k, weight in enumerate(weights)
    ]
    return taps[0] + taps[1] + taps[2] + taps[3]


def fractal(
    rng: np.random.Generator, shape: tuple[int, ...], cell: float, octaves: int
) -> FloatArray:
    """Returns noise (h, w) summed over octaves, each half as wide and half as strong."""
    total = noise(rng, shape, cell)
    for octave in range(1, octaves):
        total += noise(rng, shape, max(cell / 2**octave, 1.0)) / 2**octave
    return total


# Print -------------------------------------------------------------------------------------


@cache
def stencil(text: str) -> FloatArray:
    """Returns text as ink coverage (h, w) in 0..1, cropped to its letters."""
    font = ImageFont.load_default(64)
    left, top, right, bottom = font.getbbox(text)
    sheet = Image.new("L", (round(right - left) + 8, round(bottom - top) + 8))
    ImageDraw.Draw(sheet).text((4 - left, 4 - top), text, fill=255, font=font)
    return np.asarray(sheet, dtype=np.float32) / 255.0


def lookup(texture: FloatArray, u: FloatArray, v: FloatArray) -> FloatArray:
    """Returns texture values (h, w) at positions u, v in 0..1 across and down it, 0 outside.

    A texture finer than the pixels is blurred to their size first.
    """
    rows, columns = texture.shape
    step = float(np.hypot(u[0, 1] - u[0, 0], u[1, 0] - u[0, 0])) * columns
    if step > 1.0:
        texture = ndimage.gaussian_filter(texture, 0.4 * step)
    position = np.stack([v * rows - 0.5, u * columns - 0.5])
    values: FloatArray = ndimage.map_coordinates(texture, position, order=1, prefilter=False)
    return values


# Light -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Normal:
    """Unit surface normals, (h, w) each, in the image's axes."""

    x: FloatArray
    y: FloatArray
    z: FloatArray


def bevel(distance: FloatArray, width: float, pixel: float, height: float = 1.0) -> Normal:
    """Returns normals of a shape whose edge rounds off over `width`, flat further in.

    `height` 1 makes the edge a quarter circle, smaller values flatter.
    """
    down, right = np.gradient(distance, pixel)
    t = np.clip(1.0 + distance / width, 0.0, 0.97)
    slope = height * t / np.sqrt(1.0 - t * t)
    length = np.sqrt(1.0 + slope * slope * (right * right + down * down))
    return Normal(slope * right / length, slope * down / length, 1.0 / length)


def shade(
    colour: Colour | FloatArray,
    normal: Normal,
    light: Light,
    gloss: float = 0.0,
    sharpness: float = 20.0,
) -> FloatArray:
    """Returns colour (h, w, 3) under Lambert's law plus a Blinn-Phong highlight of height gloss."""
    facing = np.clip(normal.x * light.x + normal.y * light.y + normal.z * light.z, 0.0, 1.0)
    diffuse = light.ambient + (1.0 - light.ambient) * facing / light.z
    rgb: FloatArray = np.asarray(colour, dtype=np.float32) * diffuse[..., None]
    if gloss:
        norm = math.hypot(light.x, light.y, light.z + 1.0)
        along = (normal.x * light.x + normal.y * light.y + normal.z * (light.z + 1.0)) / norm
        rgb = rgb + (gloss * np.clip(along, 0.0, 1.0) ** sharpness)[..., None]
    return rgb


def metal(normal: Normal, light: Light, tint: Colour) -> FloatArray:
    """Returns polished metal (h, w, 3): it mirrors a bright lamp, its strip and a dark room."""
    towards = normal.x * light.x + normal.y * light.y
    side = normal.x * light.y - normal.y * light.x
    value = 0.40 + 0.35 * smoothstep(-0.5, 0.5, towards)
    value += 0.40 * line(towards - 0.28, 0.12) - 0.28 * line(towards + 0.42, 0.16)
    value += 0.12 * np.sin(7.0 * side)
    return tinted(value, tint)
