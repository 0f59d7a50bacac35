"""Opens image files upright and decodes them to one square size.

Every format that Pillow reads is accepted. Grey becomes three equal channels, transparency is laid
over black, 16-bit grey is scaled by its whole range (65,535 becomes 255), and an EXIF rotation is
applied.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from dfsc_tune.data.files import map_in_threads
from dfsc_tune.data.records import ImageRecord
from dfsc_tune.errors import UserError

# Pillow warns of a decompression bomb above this number; here it is the limit. A decoded image
# takes up to about ten bytes per pixel, so one image of this size, or several with as many pixels
# in all, take less than 1 GB.
MAX_PIXELS = 89_478_485

# For programs in other languages: what `read_pixels` does.
PREPROCESSING = (
    "Take the first page or frame and turn it upright by its EXIF orientation. Convert to RGB: "
    "grey and palette entries by their values, CMYK without a colour profile, 16-bit colours by "
    "their upper 8 bits. Keep 16-bit grey in 16 bits. Multiply colours by alpha, as laid over "
    "black. Squash the whole image to image_size x image_size by an antialiased bilinear "
    "(triangle) filter. Then divide 16-bit grey by 257, round it, and repeat grey in 3 channels."
)

_CONVERTIBLE_MODES = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"})


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """Images at one size, in the order of the paths."""

    # uint8 (N, 3, S, S), RGB.
    pixels: NDArray[np.uint8]
    # int32 (N, 2): height and width of each file's image, upright.
    original_sizes: NDArray[np.int32]


def decode_images(
    images: Sequence[ImageRecord | Path], image_size: int, workers: int | None = None
) -> DecodedImages:
    """Decodes images and squashes them to `image_size` squares (Pillow's antialiased bilinear).

    `workers` threads decode (default: one per CPU); fewer if the images are so large that more
    threads would take above 1 GB beyond the result. Raises UserError naming the first file that is
    missing, broken or too large.
    """
    paths = [image.path if isinstance(image, ImageRecord) else image for image in images]
    pixels = np.empty((len(paths), 3, image_size, image_size), dtype=np.uint8)
    sizes = np.empty((len(paths), 2), dtype=np.int32)

    def decode(index: int) -> None:
        pixels[index], sizes[index] = _decode(paths[index], image_size)

    map_in_threads(decode, range(len(paths)), safe_workers(paths, workers))
    return DecodedImages(pixels, sizes)


def read_pixels(path: Path | str, image_size: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Reads an image as the input of an exported model, decoded and resized as in every command.

    This module needs only Pillow and NumPy, so it can also be used where a model is deployed.

    Args:
        path: an image file.
        image_size: S, the model's.

    Returns:
        uint8 (S, S, 3) RGB, and the height and width of the file's image, upright.

    Raises:
        UserError: the file is missing, broken or too large.
    """
    pixels, size = _decode(Path(path), image_size)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0)), size


def decode_thumbnail(path: Path, longest: int) -> NDArray[np.uint8]:
    """Reads the image in its own proportions, uint8 (3, H, W) RGB, no side above `longest` pixels.

    Raises UserError if the file is missing, broken or too large.
    """
    with open_upright(path) as image:
        scale = min(longest / max(image.size), 1.0)
        size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
        return _resized(flatten(image, path), size)


def safe_workers(paths: Sequence[Path], workers: int | None = None) -> int:
    """Returns how many threads, at most `workers` (default: one per CPU), may decode at once.

    Every thread is counted as if it held the largest image all the time: the C library keeps, for
    each thread, the memory that an image took, so a limit on the memory in use would not hold.
    """
    largest = max(map_in_threads(_pixel_count, paths, workers), default=0)
    return max(1, min(workers or os.cpu_count() or 1, MAX_PIXELS // max(1, largest)))


def _pixel_count(path: Path) -> int:
    """Returns the pixels by the file's header; 0 if it is broken, as decoding will tell."""
    with suppress(UserError), _broken_file_is_user_error(path), Image.open(path) as image:
        return image.width * image.height
    return 0


def has_more_pages(path: Path) -> bool:
    """Returns whether a file holds pages or frames after the first; False if it is unreadable."""
    # A separate function, as a broken second page must not keep the first from being read.
    with suppress(Exception), Image.open(path) as image:
        return bool(getattr(image, "is_animated", False))
    return False


@contextmanager
def open_upright(path: Path) -> Iterator[Image.Image]:
    """Yields the decoded image of a file, its EXIF rotation applied.

    Raises UserError if the file is missing, is not fully readable as an image, or has more than
    MAX_PIXELS.
    """
    with _broken_file_is_user_error(path):
        image = Image.open(path)
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise _too_large(path)
        with _broken_file_is_user_error(path):
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
        yield image


def flatten(image: Image.Image, path: Path) -> Image.Image:
    """Converts an image to mode L, RGB, RGBa (first three channels over black) or I (16-bit).

    Raises UserError, naming `path`, for pixels whose range is unknown (floats, 32-bit integers).
    """
    if image.mode.startswith("I;16"):
        return image.convert("I")
    if image.mode == "I":
        _check_16_bit(image, path)
        return image
    if image.has_transparency_data:
        # Premultiplied colours are the same as compositing on black, and stay so when resized.
        return (image if image.mode == "RGBA" else image.convert("RGBA")).convert("RGBa")
    if image.mode not in _CONVERTIBLE_MODES:
        raise UserError(
            f"'{path}' has pixels of Pillow's mode {image.mode}, whose range is unknown: "
            "save it with 8 or 16 bits a channel."
        )
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _decode(path: Path, image_size: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Returns uint8 (3, S, S), and the original upright height and width."""
    with open_upright(path) as image:
        size = image.height, image.width
        return _resized(flatten(image, path), (image_size, image_size)), size


def _check_16_bit(image: Image.Image, path: Path) -> None:
    low, high = cast("tuple[int, int]", image.getextrema())
    if low < 0 or high > 65_535:
        raise UserError(
            f"'{path}' has grey values from {low} to {high}, beyond 16 bits: "
            "save it with 8 or 16 bits a channel."
        )


def _resized(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Returns uint8 (3, H, W) of `size` (W, H) from an image that went through `flatten`."""
    small = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    if image.mode == "I":
        small = np.rint(small / 257).astype(np.uint8)
    if small.ndim == 2:
        return np.broadcast_to(small, (3, *small.shape))
    return small[..., :3].transpose(2, 0, 1)


@contextmanager
def _broken_file_is_user_error(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"Image file '{path}' does not exist.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path) from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise almost any type on broken bytes.
        raise UserError(
            f"'{path}' cannot be read as an image ({_reason(error)}): replace or delete it; "
            "`dfsc-tune data check PATH` with the data folder lists every such file."
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its format is unknown or its header broken"
    return str(error) or type(error).__name__


def _too_large(path: Path) -> UserError:
    return UserError(
        f"'{path}' has more than {MAX_PIXELS:,} pixels, the limit: scale it down or cut it."
    )
