"""Reads and writes anomaly maps as TIFF files, laid out for MVTec LOCO AD's evaluation code.

    <folder>/<category>/test/<good or defect folder>/<image>.tiff

Each is one page of one channel, at the upright size of its image. Those written here are float32,
uncompressed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from logging import NullHandler, getLogger
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffFile, imwrite

from dfsc_tune.data.files import list_files
from dfsc_tune.data.images import open_upright
from dfsc_tune.data.layout import find_categories
from dfsc_tune.data.records import Category
from dfsc_tune.errors import UserError
from dfsc_tune.storage.atomic import atomic_path

AnomalyMap = NDArray[np.float32]
"""Scores (H, W); the higher, the more anomalous."""

_SUFFIXES = (".tif", ".tiff")
# Kept in the file itself, so that a later evaluation of the map knows it too.
_CHOSEN_ON = "the model was chosen on this image"


def map_paths(folder: Path, category: Category) -> dict[str, Path]:
    """Returns the path of each test image's map, by the image's name in the category.

    Raises UserError if two images would share a map, or if `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"'{folder}' is a file: give a folder of maps.")
    paths: dict[str, Path] = {}
    owners: dict[Path, str] = {}
    for name in (record.name for record in category.test):
        path = (folder / category.name / name).with_suffix(".tiff")
        if path in owners:
            raise UserError(
                f"Images '{owners[path]}' and '{name}' of category '{category.name}' would share "
                f"the map '{path.name}': rename one of them."
            )
        owners[path], paths[name] = name, path
    return paths


def check_apart(paths: Iterable[Path], category: Category) -> None:
    """Refuses maps that would lie among the files of a category of the data.

    Args:
        paths: from `map_paths`.
        category: the category whose maps they are.
    """
    # Not Path.resolve, which raises if a link leads back to itself.
    data = Path(os.path.realpath(category.root.parent))
    taken = {Path(os.path.realpath(data / name)) for name in find_categories(data)}
    taken |= {Path(os.path.realpath(record.path.parent)) for record in category.records}
    for path in paths:
        folder = Path(os.path.realpath(path.parent))
        if not taken.isdisjoint((folder, *folder.parents)):
            raise UserError(
                f"Maps would lie among the data, such as '{path}': choose another folder."
            )


def find_maps(folder: Path, category: Category) -> dict[str, Path]:
    """Finds the map file, `.tiff` or `.tif`, of each test image by its name in the category.

    Raises UserError if an image has none.
    """
    expected = map_paths(folder, category)
    there = {
        path.with_suffix(".tiff"): path
        for parent in dict.fromkeys(path.parent for path in expected.values())
        for path in list_files(parent)
        if path.suffix.lower() in _SUFFIXES
    }
    missing = [path for path in expected.values() if path not in there]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(expected)} test images of category '{category.name}' have "
            f"no map, such as '{missing[0]}': put a map of every image there."
        )
    return {name: there[path] for name, path in expected.items()}


def write_map(path: Path, anomaly_map: AnomalyMap, chosen_on: bool = False) -> None:
    """Writes one map atomically.

    Args:
        path: from `map_paths`.
        anomaly_map: at its image's size.
        chosen_on: whether the model was trained or chosen on that image; `was_chosen_on` reads it
            back.

    Raises:
        UserError: the file cannot be written.
    """
    description = _CHOSEN_ON if chosen_on else None
    try:
        with atomic_path(path) as temporary:
            imwrite(temporary, anomaly_map, description=description, metadata=None)
    except OSError as error:
        raise UserError(f"Map '{path}' cannot be written: {error.strerror or error}.") from error


def was_chosen_on(path: Path) -> bool:
    """Returns whether the map's model was chosen on its image; raises UserError if unreadable."""
    with _opened(path) as tiff:
        return tiff.pages.first.description == _CHOSEN_ON


def read_map(path: Path, image: Path) -> AnomalyMap:
    """Reads the map of an image from a TIFF file of any real numbers.

    Raises UserError if the map is not one channel of finite numbers as large as the image, or if
    either file cannot be read.
    """
    with _opened(path) as tiff:
        numbers = tiff.asarray()
    if numbers.ndim != 2 or numbers.dtype.kind not in "fiu":
        raise UserError(
            f"Map '{path}' holds {numbers.dtype} of shape {numbers.shape}, but "
            "a map is one channel of real numbers, (height, width)."
        )
    with open_upright(image) as opened:
        width, height = opened.size
    if numbers.shape != (height, width):
        raise UserError(
            f"Map '{path}' is {numbers.shape[1]}×{numbers.shape[0]} pixels, but its image "
            f"'{image}' is {width}×{height} (width×height): resize the map to its image."
        )
    with np.errstate(over="ignore"):
        anomaly_map = numbers.astype(np.float32, copy=False)
    if not np.isfinite(anomaly_map).all():
        raise UserError(f"Map '{path}' holds NaN, infinity or numbers too large for float32.")
    return anomaly_map


# Else it would log a line for each damaged tag before the error sentence.
getLogger("tifffile").addHandler(NullHandler())


@contextmanager
def _opened(path: Path) -> Iterator[TiffFile]:
    try:
        with TiffFile(path) as tiff:
            yield tiff
    except MemoryError:
        raise
    except Exception as error:  # The reader raises almost any type on broken bytes.
        raise UserError(f"Map '{path}' cannot be read as a TIFF file ({error}).") from error
