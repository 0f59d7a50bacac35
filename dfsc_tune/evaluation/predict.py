"""Scores new images with a trained model; an unreadable image does not stop the others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from dfsc_tune.data.files import check_text, list_images
from dfsc_tune.data.images import decode_images
from dfsc_tune.data.misplaced import describe_unread
from dfsc_tune.data.oddities import page_notes
from dfsc_tune.errors import UserError
from dfsc_tune.evaluation.heatmap import overlay
from dfsc_tune.models.detector import Detector
from dfsc_tune.storage.atomic import atomic_path

_BATCH = 16


@dataclass(frozen=True)
class Prediction:
    """The model's answer for one image."""

    image: str
    score: float | None
    """The higher, the more anomalous; None if the image could not be read."""
    anomalous: bool | None
    """True if the score exceeds the model's threshold."""
    error: str | None = None


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Returns the given image files, and those in the given folders.

    Raises:
        UserError: a path does not exist or is not text, or a folder holds no image.
    """
    images: list[Path] = []
    for path in paths:
        check_text(path)
        if path.is_dir():
            found = list_images(path)
            if not found:
                unread = "".join(f"; {sentence}" for sentence in describe_unread(path, str(path)))
                raise UserError(
                    f"no images in the folder {path}; give image files or their folder{unread}"
                )
            images += found
        elif path.is_file():
            images.append(path)
        else:
            raise UserError(f"no such image or folder: {path}")
    return images


def describe_unscored(paths: Sequence[Path], images: Sequence[Path]) -> Iterator[str]:
    """Yields a sentence for each kind of file that is given and not scored.

    Args:
        paths: image files, and folders of them.
        images: the result of `find_images`.
    """
    for path in paths:
        if path.is_dir():
            yield from describe_unread(path, str(path))
    yield from page_notes({str(image): image for image in images})


def predict(
    detector: Detector,
    images: Sequence[Path],
    heatmaps: Path | None = None,
    device: str = "cpu",
) -> Iterator[Prediction]:
    """Scores images, a few at a time.

    Args:
        detector: from `load_detector`.
        images: files.
        heatmaps: a folder for a PNG of each image with its anomaly map on top, if wanted.
        device: where the model runs.

    Raises:
        UserError: a heat map would take the place of an image.
    """
    targets = _heatmap_paths(images, heatmaps) if heatmaps else {}
    for start in range(0, len(images), _BATCH):
        yield from _predict_batch(detector, images[start : start + _BATCH], targets, device)


def _predict_batch(
    detector: Detector, images: Sequence[Path], targets: dict[Path, Path], device: str
) -> list[Prediction]:
    try:
        decoded = decode_images(images, detector.config.model.image_size)
    except UserError as error:
        if len(images) == 1:
            return [Prediction(str(images[0]), None, None, str(error))]
        # One of them is broken; scoring each separately shows which.
        return [
            prediction
            for image in images
            for prediction in _predict_batch(detector, [image], targets, device)
        ]
    maps = detector.difference_maps(decoded.pixels, device=device)
    scores = detector.scores(maps, decoded.original_sizes).tolist()
    if targets:
        anomaly_maps = detector.anomaly_maps(maps, decoded.original_sizes)
        for image, pixels, anomaly_map in zip(images, decoded.pixels, anomaly_maps, strict=True):
            with atomic_path(targets[image]) as temporary:
                overlay(pixels, anomaly_map, detector.threshold).save(temporary, format="PNG")
    return [
        Prediction(str(image), score, score > detector.threshold)
        for image, score in zip(images, scores, strict=True)
    ]


def _heatmap_paths(images: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Returns a heat map's file for each image, named after it; equal names are numbered."""
    paths: dict[Path, Path] = {}
    taken: set[str] = set()
    for image in dict.fromkeys(images):
        # A name has 255 bytes at most.
        stem = image.stem.encode()[:240].decode(errors="ignore")
        names = (f"{stem}{end}.png" for end in chain([""], (f"_{n}" for n in count(2))))
        name = next(name for name in names if name not in taken)
        taken.add(name)
        paths[image] = folder / name
    # Not Path.resolve, which raises if a link leads back to itself.
    originals = {os.path.realpath(image) for image in images}
    folders = {os.path.realpath(image.parent) for image in images}
    is_beside_images = os.path.realpath(folder) in folders
    for path in paths.values():
        # What lies beside the images may be another image, which was not given.
        if os.path.realpath(path) in originals or (is_beside_images and os.path.lexists(path)):
            raise UserError(
                f"the heat maps would overwrite images such as {path}; choose another folder than "
                "theirs"
            )
    return paths
