"""Keeps a category's synthetic anomalies in the user's cache: making them takes a minute."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dfsc_tune.errors import UserError
from dfsc_tune.storage.atomic import atomic_path
from dfsc_tune.storage.digest import check_archive
from dfsc_tune.storage.places import cache_folder
from dfsc_tune.synthetic.anomalies import RECIPES, VERSION, Anomaly, make_anomalies

_FOLDER = "synthetic"


def stored_anomalies(
    pixels: npt.NDArray[np.uint8],
    large: npt.NDArray[np.uint8],
    counts: Mapping[str, int],
    seed: int,
) -> list[Anomaly]:
    """Returns the result of `make_anomalies` for the same arguments, made once for each user."""
    key = hashlib.sha256(repr((VERSION, *counts.items(), seed, large.shape)).encode())
    for array in (pixels, large):
        key.update(np.ascontiguousarray(array).data)
    name = f"{key.hexdigest()[:32]}.npz"
    # A missing or damaged file, on which NumPy raises almost any type, means making them again.
    with suppress(Exception):
        return _read(cache_folder() / _FOLDER / name, key.hexdigest())
    anomalies = make_anomalies(pixels, large, counts, seed)
    if anomalies:
        # A cache that cannot be written costs time, not the search.
        with suppress(OSError, UserError):
            _write(cache_folder() / _FOLDER / name, key.hexdigest(), anomalies)
    return anomalies


def _read(path: Path, key: str) -> list[Anomaly]:
    check_archive(path)
    with path.open("rb") as file, np.load(file) as arrays:
        if str(arrays["key"]) != key:
            raise ValueError("it holds the anomalies of other images")
        columns = (arrays["recipes"], arrays["sources"], arrays["pixels"], arrays["masks"])
        return [
            Anomaly(str(recipe), RECIPES[str(recipe)][0], int(source), pixels, mask)
            for recipe, source, pixels, mask in zip(*columns, strict=True)
        ]


def _write(path: Path, key: str, anomalies: list[Anomaly]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            key=np.array(key),
            recipes=np.array([anomaly.recipe for anomaly in anomalies]),
            sources=np.array([anomaly.source for anomaly in anomalies]),
            pixels=np.stack([anomaly.pixels for anomaly in anomalies]),
            masks=np.stack([anomaly.mask for anomaly in anomalies]),
        )
