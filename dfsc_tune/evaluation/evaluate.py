"""Evaluates a model, or anomaly maps made by any program, on a category's test images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from dfsc_tune.data.files import map_in_threads
from dfsc_tune.data.fingerprint import content_digest
from dfsc_tune.data.images import decode_images, safe_workers
from dfsc_tune.data.layout import read_category
from dfsc_tune.data.oddities import page_notes
from dfsc_tune.data.records import Category, ImageRecord
from dfsc_tune.errors import UserError
from dfsc_tune.evaluation.maps import (
    AnomalyMap,
    check_apart,
    find_maps,
    map_paths,
    read_map,
    was_chosen_on,
    write_map,
)
from dfsc_tune.evaluation.measure import Evaluation, JudgedImages, measure
from dfsc_tune.metrics.image import can_be_judged
from dfsc_tune.models.detector import Detector

# The number of images that are scored, or whose maps are read, at a time.
_BATCH = 16

Update = Callable[[int, int], None]
"""Called with the images done and the images in all."""


def evaluate_model(
    detector: Detector,
    data: Path,
    category_name: str,
    *,
    include_selection: bool = False,
    save_maps: Path | None = None,
    device: str = "cpu",
    update: Update | None = None,
) -> Evaluation:
    """Measures a model on the labelled test images of a category.

    Images that the model was trained or chosen on, recognised by their content, are left out unless
    `include_selection` is set.

    Args:
        detector: the model.
        data: the folder that holds the category.
        category_name: its name.
        include_selection: whether to evaluate on all test images.
        save_maps: a folder for the maps, laid out as described in `maps`. It receives the maps of
            all test images, as other tools expect; the files record which are left out here.
        device: where the model runs.
        update: called with the progress of the maps.

    Raises:
        UserError: the data cannot be read, no good or no anomalous image remains, or a map cannot
            be written.
    """
    category = read_category(data, category_name)
    digests = {*detector.selection_digests, *detector.training_digests}
    seen = {x.name for x in category.test if content_digest(x.path) in digests}
    images = _judged(category, seen, include_selection)
    if save_maps is None:
        made = _made_maps(detector, images.records, device, update)
        return measure(images, (anomaly_map for _, anomaly_map in made))
    paths = map_paths(save_maps, category)
    check_apart(paths.values(), category)
    judged = {record.name for record in images.records}

    def written() -> Iterator[AnomalyMap]:
        for record, anomaly_map in _made_maps(detector, category.test, device, update):
            write_map(paths[record.name], anomaly_map, record.name in seen)
            if record.name in judged:
                yield anomaly_map

    return measure(images, written())


def evaluate_maps(
    maps: Path,
    data: Path,
    category_name: str,
    *,
    include_selection: bool = False,
    update: Update | None = None,
) -> Evaluation:
    """Measures the anomaly maps in a folder, laid out as described in `maps`, of any program.

    Images whose maps record that the model was chosen on them are left out unless
    `include_selection` is set.

    Args:
        maps: the folder of maps.
        data: the folder that holds the category.
        category_name: its name.
        include_selection: whether to evaluate on all test images.
        update: called with the progress of the maps.

    Raises:
        UserError: the data or the maps cannot be read, or no good or no anomalous image remains.
    """
    category = read_category(data, category_name)
    paths = find_maps(maps, category)
    chosen_on = map_in_threads(was_chosen_on, paths.values())
    seen = {name for name, chosen in zip(paths, chosen_on, strict=True) if chosen}
    images = _judged(category, seen, include_selection)
    return measure(images, _stored_maps(paths, images.records, update))


def _judged(category: Category, seen: set[str], include_selection: bool) -> JudgedImages:
    """Returns the test images to evaluate on, given the names of those that made the model."""
    records = tuple(x for x in category.test if include_selection or x.name not in seen)
    if not can_be_judged(record.kind for record in records):
        used = f"; {len(seen)} were used to train or choose the model" if seen else ""
        way_out = ", or give --include-selection" if seen and not include_selection else ""
        raise UserError(
            f"category '{category.name}' in {category.root.parent} has no good or no anomalous "
            f"test image to judge on{used}; add some{way_out}"
        )
    notes = [*category.notes, *page_notes({record.name: record.path for record in records})]
    if seen and include_selection:
        notes.append(
            f"{len(seen)} of these images were used to train or choose the model: the numbers "
            "are optimistic"
        )
    elif seen:
        notes.append(f"left out {len(seen)} images that were used to train or choose the model")
    optimistic = bool(seen) and include_selection
    return JudgedImages(category, records, tuple(notes), optimistic)


def _made_maps(
    detector: Detector, records: Sequence[ImageRecord], device: str, update: Update | None
) -> Iterator[tuple[ImageRecord, AnomalyMap]]:
    for part in _batches(records, update):
        decoded = decode_images(part, detector.config.model.image_size)
        differences = detector.difference_maps(decoded.pixels, device=device)
        maps = detector.anomaly_maps(differences, decoded.original_sizes)
        yield from zip(part, maps, strict=True)


def _stored_maps(
    paths: Mapping[str, Path], records: Sequence[ImageRecord], update: Update | None
) -> Iterator[AnomalyMap]:
    workers = safe_workers([record.path for record in records])
    for part in _batches(records, update):
        yield from map_in_threads(lambda x: read_map(paths[x.name], x.path), part, workers)


def _batches(
    records: Sequence[ImageRecord], update: Update | None
) -> Iterator[Sequence[ImageRecord]]:
    for start in range(0, len(records), _BATCH):
        yield records[start : start + _BATCH]
        if update:
            update(min(start + _BATCH, len(records)), len(records))
