"""The camera: where it stands, what light it has, and how it turns a canvas into a photograph."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dfsc_tune.data.builtin.drawing import Canvas, Light, View, tinted

VIGNETTE = 0.10
"""Loss of light in the corners."""
BLUR = 0.0016
"""Typical blur in scene units: 0.4 pixels at 256, 1.8 at 1100, as the sharp LOCO images have."""
READ_NOISE = 0.006
SHOT_NOISE = 0.012
"""Noise of a dark and of a white pixel, as a share of white."""


def random_view(rng: np.random.Generator) -> View:
    """Returns a camera position that is off by about a hundredth of the image height."""
    return View(
        rng.normal(0.0, 0.006),
        rng.normal(0.0, 0.006),
        rng.normal(0.0, 0.008),
        rng.uniform(0.985, 1.015),
    )


def random_light(rng: np.random.Generator) -> Light:
    """Returns a lamp from above left, a few degrees off its place."""
    direction = np.array([-0.36, -0.46, 0.8]) + rng.normal(0.0, 0.04, 3)
    x, y, z = direction / np.linalg.norm(direction)
    return Light(float(x), float(y), float(z), float(rng.uniform(0.42, 0.52)))


def photograph(canvas: Canvas, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Returns the canvas as a camera sees it, uint8 (H, W, 3).

    Exposure, white balance, a slant of light, vignette, blur and noise differ between images.
    """
    whole = canvas.whole()
    corner = math.hypot(0.5, 0.5 * canvas.rgb.shape[1] / canvas.height)
    radius = np.hypot(whole.u, whole.v) / corner
    slant_x, slant_y = rng.normal(0.0, 0.03), rng.normal(0.0, 0.03)
    field_of_light = (1.0 - VIGNETTE * radius**2) * (1.0 + slant_x * whole.u + slant_y * whole.v)
    red, green, blue = rng.normal(1.0, 0.035) * rng.normal(1.0, 0.012, 3)
    rgb = canvas.rgb * tinted(field_of_light, (red, green, blue))
    sigma = BLUR * canvas.height * rng.uniform(0.7, 1.5)
    rgb = ndimage.gaussian_filter(rgb, (sigma, sigma, 0.0), truncate=3.0)
    np.clip(rgb, 0.0, 1.0, out=rgb)
    spread = READ_NOISE + (SHOT_NOISE - READ_NOISE) * np.sqrt(rgb)
    rgb += spread * rng.standard_normal(rgb.shape, dtype=np.float32)
    pixels: NDArray[np.uint8] = np.clip(rgb * 255.0 + 0.5, 0.0, 255.0).astype(np.uint8)
    return pixels
