"""Formats a model's metrics as a table of text, beside the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dfsc_tune.evaluation.measure import AU_PRO_LIMIT, AU_SPRO_LIMIT, PixelMetrics
from dfsc_tune.metrics import KINDS, Interval
from dfsc_tune.reference import PublishedResult

_NAMES = (*KINDS, "mean")
NO_VALUE = "–"


def metric_rows(
    aurocs: Mapping[str, float | None],
    intervals: Mapping[str, Interval],
    published: Sequence[PublishedResult],
    pixel: PixelMetrics | None,
) -> list[tuple[str, ...]]:
    """Returns the rows of all metrics by kind of defect; the first row names the columns.

    Args:
        aurocs: image AUROCs, by the names of `metrics.image.AUROCS`.
        intervals: their intervals, by kind.
        published: the paper's numbers; empty if they do not apply.
        pixel: the maps' metrics; None if there are none.
    """

    def row(
        name: str,
        values: Mapping[str, float | None],
        of_values: Mapping[str, Interval] | None = None,
    ) -> tuple[str, ...]:
        shown = (with_interval(values.get(x), (of_values or {}).get(x)) for x in _NAMES)
        return name, *shown

    rows: list[tuple[str, ...]] = [("", *_NAMES)]
    rows.append(row("image AUROC", {x: aurocs[f"auroc_{x}"] for x in _NAMES}, intervals))
    rows += [row(f"  {one.method}, published", {**one.image_auroc}) for one in published]
    if pixel is None:
        return rows
    rows.append(row("pixel AUROC", {**pixel.pixel_auroc}))
    for name, areas, limit in (
        ("AU-PRO", pixel.au_pro, AU_PRO_LIMIT),
        ("AU-sPRO", pixel.au_spro, AU_SPRO_LIMIT),
    ):
        rows.append(row(f"{name}, FPR ≤ {limit}", {kind: areas[kind][limit] for kind in areas}))
    rows += [row(f"  {one.method}, published", {"mean": one.au_spro}) for one in published]
    return rows


def with_interval(value: float | None, interval: Interval | None) -> str:
    """Formats a number and its interval, as all tables show them."""
    if value is None:
        return NO_VALUE
    return f"{value:.3f}" + (f" ({interval.low:.3f} to {interval.high:.3f})" if interval else "")
