"""The paper's numbers on MVTec LOCO AD (`paper.json`), for comparison with one's own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

METHODS = ("DFSC", "EfficientAD-S")
CATEGORIES = ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors")


@dataclass(frozen=True)
class PublishedResult:
    """The paper's result of one method on one category's whole test set; shares, not percent."""

    method: str
    image_auroc: dict[str, float]
    """By kind (Table 1); "mean" is the mean of the two kinds, which the table does not list."""
    au_spro: float
    """Up to an FPR of 0.05, the mean of both kinds (Table 2)."""


def published_results(category: str) -> tuple[PublishedResult, ...]:
    """Returns the paper's results of its method and its baseline; none for other categories."""
    if category not in CATEGORIES:
        return ()
    tables = paper_tables()
    return tuple(_published(tables, category, method) for method in METHODS)


def published_margins(category: str) -> dict[float, float]:
    """Returns the image AUROC (a share) by margin, from the paper's Table 3; may be empty."""
    by_margin = paper_tables()["image_auroc_by_margin"].get(category, {})
    return {float(margin): percent / 100 for margin, percent in by_margin.items()}


def paper_tables() -> dict[str, Any]:
    """Returns all numbers of `paper.json`, in percent."""
    text = (files(__package__) / "paper.json").read_text(encoding="utf-8")
    tables: dict[str, Any] = json.loads(text)
    return tables


def _published(tables: dict[str, Any], category: str, method: str) -> PublishedResult:
    percent = {kind: found[category][method] for kind, found in tables["image_auroc"].items()}
    percent["mean"] = sum(percent.values()) / len(percent)
    return PublishedResult(
        method=method,
        image_auroc={kind: value / 100 for kind, value in percent.items()},
        au_spro=tables["au_spro_fpr_0.05"][category][method] / 100,
    )
