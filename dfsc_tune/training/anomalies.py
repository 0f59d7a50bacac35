"""Makes a category's synthetic anomalies from its good validation images, as images for trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dfsc_tune.config import ObjectiveConfig
from dfsc_tune.data.images import decode_images
from dfsc_tune.data.prepared import PreparedImages
from dfsc_tune.data.records import Category, ImageRecord
from dfsc_tune.errors import UserError
from dfsc_tune.synthetic.anomalies import Anomaly
from dfsc_tune.synthetic.store import stored_anomalies


def anomalies_of(
    category: Category,
    good: npt.NDArray[np.uint8],
    counts: Mapping[str, int],
    settings: ObjectiveConfig,
) -> list[Anomaly]:
    """Returns the category's synthetic anomalies.

    Args:
        category: not refused by its objective, so that it has enough validation images.
        good: its validation images as the networks see them, (N, 3, S, S).
        counts: anomalies to make, by recipe.
        settings: the seed and the metric.

    Raises:
        UserError: no anomaly, or none of the metric's kind, can be made from the images, or an
            image cannot be read.
    """
    large = decode_images(category.validation, 2 * good.shape[-1]).pixels
    anomalies = stored_anomalies(good, large, counts, settings.split_seed)
    if not anomalies:
        raise UserError(
            f"no anomalies could be made from the validation images of category '{category.name}' "
            f"in {category.root} by objective.recipes: {', '.join(counts)}; use others"
        )
    if settings.metric not in ("mean", *(anomaly.kind for anomaly in anomalies)):
        raise UserError(
            f"no {settings.metric} anomalies could be made from the validation images of category "
            f"'{category.name}' in {category.root}; use another metric"
        )
    return anomalies


def prepared_anomalies(
    anomalies: Sequence[Anomaly],
    pixels: npt.NDArray[np.uint8],
    features: npt.NDArray[np.floating],
    good: PreparedImages,
) -> PreparedImages:
    """Returns anomalies as prepared images, with the records and sizes of their good images."""
    records = tuple(
        ImageRecord(
            path=good.records[anomaly.source].path,
            name=f"synthetic/{anomaly.recipe}/{index:03d}",
            kind=anomaly.kind,
            defect_type=anomaly.recipe,
        )
        for index, anomaly in enumerate(anomalies)
    )
    sizes = good.sizes[[anomaly.source for anomaly in anomalies]]
    return PreparedImages(records, pixels, features, sizes)


def shortfall_notes(wanted: Mapping[str, int], selection: Sequence[ImageRecord]) -> Iterator[str]:
    """Yields a note on the recipes that made fewer anomalies than wanted, if there are any.

    Args:
        wanted: anomalies to make, by recipe.
        selection: the images of the selection part.
    """
    made = Counter(record.defect_type for record in selection)
    few = [f"{made[x]} of {count} {x}" for x, count in wanted.items() if made[x] < count]
    if few:
        yield f"fewer anomalies than wanted could be made: {', '.join(few)}"
