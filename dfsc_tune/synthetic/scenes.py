"""A good image with what the recipes need of it: its regions and the area of the product."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import color

from dfsc_tune.synthetic.regions import Mask, Pixels, Region, find_regions

_FRAME = 0.03
# Share of the image's side.
_TEXTURE = 1 / 64
_BACKGROUND_COLOUR = 10.0
_LEAST_PRODUCT, _MOST_PRODUCT = 0.05, 0.95


@dataclass(frozen=True, eq=False)
class Scene:
    """A good image at twice the networks' size; its properties are computed at first use.

    Finding regions takes longest, and few recipes need them.
    """

    pixels: Pixels
    """(W, W, 3), 0 to 255."""
    lab: Pixels
    """(W, W, 3), the same in CIELAB."""

    @property
    def size(self) -> int:
        """W."""
        return len(self.pixels)

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """Object-like regions, the most salient first."""
        return find_regions(self.lab)

    @cached_property
    def occupied(self) -> Mask:
        """(W, W): True inside a region."""
        occupied = np.zeros((self.size, self.size), dtype=bool)
        for region in self.regions:
            occupied |= region.on(self.size)
        return occupied

    @cached_property
    def product(self) -> Mask:
        """(W, W): True where the image differs from its outermost frame; True everywhere if almost
        all or nothing differs."""
        return _product(self.lab)

    @cached_property
    def smooth(self) -> Pixels:
        """(W, W, 3): the pixels without their texture."""
        sigma = _TEXTURE * self.size
        smooth: Pixels = ndimage.gaussian_filter(self.pixels, (sigma, sigma, 0))
        return smooth

    def region(self, rng: np.random.Generator) -> Region:
        """Returns a random region, more salient ones more often. There must be at least one."""
        weights = np.array([region.saliency for region in self.regions])
        return self.regions[rng.choice(len(weights), p=weights / weights.sum())]

    def product_point(self, rng: np.random.Generator) -> tuple[int, int]:
        """Returns a pixel of the product, uniformly at random."""
        rows, columns = np.nonzero(self.product)
        chosen = rng.integers(len(rows))
        return int(rows[chosen]), int(columns[chosen])


def read_scene(pixels: npt.NDArray[np.uint8]) -> Scene:
    """Returns the scene of an image (3, W, W) uint8."""
    image = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    return Scene(image.astype(np.float32), color.rgb2lab(image).astype(np.float32))


def _product(lab: Pixels) -> Mask:
    width = max(round(_FRAME * len(lab)), 1)
    inner = np.zeros(lab.shape[:2], dtype=bool)
    inner[width:-width, width:-width] = True
    background = np.median(lab[~inner], axis=0)
    unlike = np.linalg.norm(lab - background, axis=-1) > _BACKGROUND_COLOUR
    product = ndimage.binary_opening(unlike, iterations=2) & inner
    return product if _LEAST_PRODUCT < product.mean() < _MOST_PRODUCT else inner
