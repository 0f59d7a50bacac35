"""Blends a piece of one image into another without a seam, and finds places where it fits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from dfsc_tune.synthetic.regions import Mask, Pixels

Corners = npt.NDArray[np.int64]

_RING = 3
# In grey levels.
_VISIBLE_MISFIT = 28.0
_HIDDEN_SHARE = 0.6
# The median of a standard normal variable's absolute value.
_MEDIAN_OF_NORMAL = 0.6745
# Blending evens out an offset of brightness, so it counts less than a difference in pattern.
_OFFSET_WEIGHT = 0.3


def blend(target: Pixels, source: Pixels, mask: Mask) -> Pixels:
    """Returns the target with the source's pattern inside the mask and no step at its border.

    The difference along the border is spread over the inside by Laplace's equation and added to
    the source (Pérez et al., Poisson Image Editing, 2003, in its membrane form).

    Args:
        target: (h, w, 3).
        source: (h, w, 3).
        mask: (h, w), False along the box's edges, except those that are the image's own.
    """
    index = np.full(mask.shape, -1)
    index[mask] = np.arange(mask.sum())
    rows: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    degree = np.zeros(mask.sum())
    right = np.zeros((mask.sum(), 3))
    step = np.pad(target - source, ((1, 1), (1, 1), (0, 0)))
    padded = np.pad(index, 1, constant_values=-2)
    inside = np.nonzero(mask)
    for down, across in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        place = inside[0] + 1 + down, inside[1] + 1 + across
        neighbour = padded[place]
        # Beyond the image's edge there is no neighbour, so the membrane has a free end there.
        degree += neighbour != -2
        linked = neighbour >= 0
        rows.append(np.nonzero(linked)[0])
        columns.append(neighbour[linked])
        border = neighbour == -1
        right[border] += step[place][border]
    row, column = np.concatenate(rows), np.concatenate(columns)
    laplace = sparse.csc_matrix(
        (
            np.concatenate([degree, np.full(len(row), -1.0)]),
            (
                np.concatenate([np.arange(len(degree)), row]),
                np.concatenate([np.arange(len(degree)), column]),
            ),
        )
    )
    result = target.copy()
    result[mask] = source[mask] + spsolve(laplace, right)
    return result.clip(0, 255).astype(np.float32)


def misfits(target: Pixels, mask: Mask, image: Pixels, corners: Corners) -> npt.NDArray[np.float64]:
    """Returns the misfit of the ring around a mask at places of an image, in grey levels (K,).

    It is the root mean square of the difference along the ring. A constant difference counts less,
    as blending evens it out.

    Args:
        target: (h, w, 3), with the ring to match.
        mask: (h, w).
        image: (W, W, 3).
        corners: (K, 2), possible places of the box's first pixel in the image.
    """
    ring = _ring(mask)
    rows, columns = np.nonzero(ring)
    found = image[corners[:, :1] + rows, corners[:, 1:] + columns]
    difference = found - target[ring]
    offset = difference.mean(axis=1, keepdims=True)
    pattern: npt.NDArray[np.float64] = np.sqrt(np.square(difference - offset).mean(axis=(1, 2)))
    pattern += _OFFSET_WEIGHT * np.sqrt(np.square(offset).mean(axis=(1, 2)))
    return pattern


def tolerance(target: Pixels, mask: Mask) -> float:
    """Returns the largest misfit without a visible seam: busier patterns hide larger ones."""
    restlessness = float(target[_ring(mask)].std(axis=0).max())
    return max(_VISIBLE_MISFIT, _HIDDEN_SHARE * restlessness)


def smooth_filling(rng: np.random.Generator, target: Pixels, mask: Mask) -> tuple[float, Pixels]:
    """Returns a plain surface as grainy as the ring around a mask, (h, w, 3), and its misfit.

    Blended in, it takes the ring's colours and their slope.
    """
    ring = _ring(mask)
    smooth = ndimage.gaussian_filter(target, (1, 1, 0))
    grain = np.median(np.abs(target - smooth)[ring]) / _MEDIAN_OF_NORMAL
    filling = rng.normal(0, grain, target.shape).astype(np.float32)
    return float(target[ring].std(axis=0).max()), filling


def _ring(mask: Mask) -> Mask:
    return ndimage.binary_dilation(mask, iterations=_RING) & ~mask


def crop(image: Pixels, top: int, left: int, mask: Mask) -> Pixels:
    """Returns the box of a mask (h, w) in an image, as a view (h, w, 3)."""
    height, width = mask.shape
    return image[top : top + height, left : left + width]
