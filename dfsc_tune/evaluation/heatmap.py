"""Draws an anomaly map over its image, for people."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

_OPACITY = 0.6


def overlay(
    pixels: npt.NDArray[np.uint8], anomaly_map: npt.NDArray[np.float32], threshold: float
) -> Image.Image:
    """Returns the image with its anomaly map on top, at the map's size.

    All images of a model have the same colour scale, so they can be compared: orange is its
    threshold.

    Args:
        pixels: (3, h, w) RGB of any size.
        anomaly_map: (H, W).
        threshold: of the model.
    """
    height, width = anomaly_map.shape
    image = Image.fromarray(pixels.transpose(1, 2, 0)).resize((width, height))
    full = 2 * threshold if threshold > 0 else max(float(anomaly_map.max()), 1e-6)
    strength = np.clip(anomaly_map / full, 0, 1)
    gray = Image.fromarray((strength * 255).astype(np.uint8))
    heat = ImageOps.colorize(gray, black="#000080", mid="#ff8c00", white="#ffff60")
    opacity = Image.fromarray((strength * 255 * _OPACITY).astype(np.uint8))
    return Image.composite(heat, image, opacity)
