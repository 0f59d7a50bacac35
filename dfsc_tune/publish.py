"""After the trials: the best model of each category, scored on the images that no trial saw."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dfsc_tune.checkpoint import write_text
from dfsc_tune.config import TrialConfig, dump
from dfsc_tune.data.prepared import PreparedImages
from dfsc_tune.detector import Detector, save_detector
from dfsc_tune.prepare import CategoryData, prepare_images
from dfsc_tune.results import SCORES, best_trials, describe, headlines, load, write_table
from dfsc_tune.trial import finished_detector


def publish(
    folder: Path,
    data: Mapping[str, CategoryData],
    configs: Mapping[str, TrialConfig],
    checkpoints: Mapping[str, Path],
) -> None:
    """Writes `models/`, `scores.parquet` and `best/` of a run whose trials have ended.

    The paper's setting is scored on the same images, so that the gain can be judged.

    Args:
        folder: the run.
        data: the searched categories.
        configs: of each trial, by its id.
        checkpoints: the folder of each trial's last checkpoint.
    """
    trials = load(folder).trials
    rows: list[dict[str, Any]] = []
    chosen: dict[str, TrialConfig] = {}
    for best in best_trials(trials).to_dict("records"):
        category = str(best["category"])
        scored = {"best": str(best["trial"])} | _paper_trial(trials, category, str(best["trial"]))
        report: PreparedImages | None = None
        for role, trial in scored.items():
            detector = finished_detector(
                configs[trial],
                data[category].trial,
                checkpoints[trial],
                origin=f"run {folder.name}, trial {trial}",
                selection_digests=data[category].selection_digests,
            )
            if report is None:
                report = prepare_images(
                    data[category].split.report, detector.teacher, detector.config.model
                )
            rows += _score_rows(detector, report, category, trial, role)
            if role == "best":
                save_detector(folder / "models" / category, detector)
                chosen[category] = configs[trial]
    write_table(folder, SCORES, rows)
    for headline in headlines(load(folder)):
        config = chosen[headline.category]
        origin = f"The best of run {folder.name} for {headline.category}: trial {headline.trial}."
        path = folder / "best" / f"{headline.category}.yaml"
        write_text(path, dump(config, header="\n".join([origin, *describe(headline)])))


def _paper_trial(trials: pd.DataFrame, category: str, best: str) -> dict[str, str]:
    wanted = (trials["category"] == category) & (trials["role"] == "paper")
    complete = trials[wanted & (trials["state"] == "complete") & (trials["trial"] != best)]
    return {"paper": str(complete["trial"].iloc[0])} if len(complete) else {}


def _score_rows(
    detector: Detector, images: PreparedImages, category: str, trial: str, role: str
) -> list[dict[str, Any]]:
    scores = detector.scores(detector.difference_maps(images.pixels, images.features), images.sizes)
    return [
        {
            "category": category,
            "trial": trial,
            "role": role,
            "image": record.name,
            "kind": record.kind,
            "defect_type": record.defect_type,
            "score": score,
            "threshold": detector.threshold,
        }
        for record, score in zip(images.records, scores.tolist(), strict=True)
    ]
