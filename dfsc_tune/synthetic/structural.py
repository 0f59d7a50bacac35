"""Recipes of structural anomalies: patches, scars, scratches, stains, foreign texture, blur.

Each takes a scene and other scenes of its category and returns the changed image (W, W, 3). Changes
vary in size and strength from hardly to plainly visible. Lengths are shares of the image's side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from skimage import draw

from dfsc_tune.synthetic.blending import blend
from dfsc_tune.synthetic.regions import Mask, Pixels, box_around
from dfsc_tune.synthetic.scenes import Scene

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def cut_paste(rng: np.random.Generator, scene: Scene, others: Sequence[Scene]) -> Pixels:
    """Pastes a rectangle from elsewhere in the image, slightly relit (CutPaste, 2021)."""
    mask = _on_product(rng, scene, _rectangle(rng, scene.size, (0.03, 0.12), (0.03, 0.12)))
    return _laid_over(scene.pixels, _moved_to(rng, scene, mask) * rng.uniform(0.85, 1.15), mask)


def scar(rng: np.random.Generator, scene: Scene, others: Sequence[Scene]) -> Pixels:
    """Pastes a thin rotated strip from elsewhere in the image (CutPaste-Scar, 2021)."""
    mask = _on_product(rng, scene, _rectangle(rng, scene.size, (0.01, 0.025), (0.06, 0.2)))
    return _laid_over(scene.pixels, _moved_to(rng, scene, mask) * rng.uniform(0.7, 1.3), mask)


def blended_patch(rng: np.random.Generator, scene: Scene, others: Sequence[Scene]) -> Pixels:
    """Blends in a patch of another image without a seam (natural synthetic anomalies, 2022)."""
    mask = _on_product(rng, scene, _blob(rng, scene.size, rng.uniform(0.05, 0.16))) > 0.5
    mask[[0, -1]] = mask[:, [0, -1]] = False
    other = others[int(rng.integers(len(others)))]
    source = _moved_to(rng, other, mask)
    if not mask.any():
        return scene.pixels
    box = box_around(mask)
    image = scene.pixels.copy()
    image[box] = blend(image[box], source[box], mask[box])
    return image


def scratch(rng: np.random.Generator, scene: Scene, others: Sequence[Scene]) -> Pixels:
    """Draws a thin bent line, lighter or darker than the pixels that it crosses."""
    size = scene.size
    start = np.array(scene.product_point(rng))
    angle, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-0.6, 0.6)
    length = rng.uniform(0.06, 0.25) * size
    middle = start + length / 2 * np.array([np.sin(angle), np.cos(angle)])
    end = middle + length / 2 * np.array([np.sin(angle + bend), np.cos(angle + bend)])
    points = np.clip(np.round([start, middle, end]), 0, size - 1).astype(int).tolist()
    line = np.zeros((size, size), dtype=np.float32)
    (r0, c0), (r1, c1), (r2, c2) = points
    line[draw.bezier_curve(r0, c0, r1, c1, r2, c2, weight=1, shape=line.shape)] = 1
    width = rng.uniform(0.0015, 0.004) * size
    line = ndimage.gaussian_filter(line, width)
    strength = rng.choice([-1, 1]) * _from_log_uniform(rng, 25, 120)
    return scene.pixels + np.float32(strength / line.max()) * line[..., None]


def stain(rng: np.random.Generator, scene: Scene, others: Sequence[Scene]) -> Pixels:
    """Draws a soft spot of another colour."""
    mask = _on_product(rng, scene, _blob(rng, scene.size, rng.uniform(0.04, 0.15), soft=0.01))
    strength = _from_log_uniform(rng, 0.15, 0.7)
    return _laid_over(scene.pixels, rng.uniform(0, 255, 3).astype(np.float32), strength * mask)


def texture(rng: np.random.Generator, scene: Scene, others: Sequence[Scene]) -> Pixels:
    """Lays a foreign texture over the places where smooth noise is high (DRAEM, 2021)."""
    size = scene.size
    mask = _on_product(rng, scene, _blob(rng, size, rng.uniform(0.06, 0.18)))
    grain = ndimage.gaussian_filter(
        rng.standard_normal((size, size, 3)), (*rng.uniform(0.002, 0.015, 2) * size, 0)
    )
    pattern = 128 + 60 * grain / grain.std() + rng.uniform(-60, 60, 3)
    strength = _from_log_uniform(rng, 0.15, 0.8)
    return _laid_over(scene.pixels, pattern.clip(0, 255).astype(np.float32), strength * mask)


def blurred(rng: np.random.Generator, scene: Scene, others: Sequence[Scene]) -> Pixels:
    """Smears and fades a spot of the image."""
    mask = _on_product(rng, scene, _blob(rng, scene.size, rng.uniform(0.08, 0.2), soft=0.01))
    sigma = rng.uniform(0.006, 0.025) * scene.size
    smooth = ndimage.gaussian_filter(scene.pixels, (sigma, sigma, 0))
    pale = smooth + rng.uniform(0, 0.5) * ((smooth @ _LUMA)[..., None] - smooth)
    return _laid_over(scene.pixels, pale, mask)


RECIPES = {
    "cut_paste": cut_paste,
    "scar": scar,
    "blended_patch": blended_patch,
    "scratch": scratch,
    "stain": stain,
    "texture": texture,
    "blurred": blurred,
}


def _from_log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _laid_over(image: Pixels, above: Pixels, opacity: Pixels) -> Pixels:
    return (image + opacity[..., None] * (above.clip(0, 255) - image)).astype(np.float32)


def _moved_to(rng: np.random.Generator, source: Scene, mask: Mask | Pixels) -> Pixels:
    """Returns the source shifted cyclically, so that another part of its product is at the mask."""
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return source.pixels
    row, column = source.product_point(rng)
    shift = (int(rows.mean()) - row, int(columns.mean()) - column)
    return np.roll(source.pixels, shift, (0, 1))


def _rectangle(
    rng: np.random.Generator,
    size: int,
    heights: tuple[float, float],
    widths: tuple[float, float],
) -> Pixels:
    """Returns a rotated rectangle in the middle of an empty mask (size, size)."""
    height, width = rng.uniform(*heights) * size, rng.uniform(*widths) * size
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)]) * (height / 2, width / 2)
    mask: Mask = draw.polygon2mask((size, size), corners @ turn.T + size / 2)
    return mask.astype(np.float32)


def _blob(rng: np.random.Generator, size: int, diameter: float, soft: float = 0.0) -> Pixels:
    """Returns an uneven spot in the middle of an empty mask (size, size), soft or hard."""
    radius = diameter * size / 2
    rows, columns = np.ogrid[:size, :size]
    distance = np.hypot(rows - size / 2, (columns - size / 2) * rng.uniform(0.6, 1.6)) / radius
    noise = ndimage.gaussian_filter(rng.standard_normal((size, size)), radius / 3)
    inside = (distance + 0.35 * noise / noise.std() < 1) & (distance < 2)
    mask = inside.astype(np.float32)
    return ndimage.gaussian_filter(mask, soft * size) if soft else mask


def _on_product(rng: np.random.Generator, scene: Scene, centred: Pixels) -> Pixels:
    """Moves a mask so that its middle lies on the product, cropping it at the image's edges."""
    row, column = scene.product_point(rng)
    half = scene.size // 2
    return ndimage.shift(centred, (row - half, column - half), order=0)
