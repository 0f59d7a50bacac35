"""Finalizes a run: scores and writes the best model of each category after the trials."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dfsc_tune.config import TrialConfig
from dfsc_tune.errors import UserError
from dfsc_tune.models.detector import Detector, load_detector, save_detector
from dfsc_tune.results import (
    MODELS,
    REFERENCES,
    REPORTS,
    SCORES,
    TRIALS,
    best_trials,
    complete_trials,
    describe,
    load,
    summary_of,
    write_table,
)
from dfsc_tune.settings import dump
from dfsc_tune.settings import load as load_config
from dfsc_tune.storage.atomic import write_text
from dfsc_tune.training.prepare import CategoryData, prepare_images
from dfsc_tune.training.trial import finished_detector


def finalize(
    folder: Path,
    data: Mapping[str, CategoryData],
    configs: Mapping[str, TrialConfig],
    checkpoint_dir: Callable[[str], Path],
    device: str = "cpu",
    *,
    only_scores: bool = False,
) -> None:
    """Writes `models/`, `scores.parquet` and `best/` of a run whose trials have ended.

    The paper's setting and margin 0 are scored on the same images, to measure the gain over them.
    A category that cannot be finalized again keeps the scores that it has.

    Args:
        folder: the run.
        data: the searched categories.
        configs: the config of each trial, by its id.
        checkpoint_dir: returns the folder of a trial's last checkpoint.
        device: the device that the models run on.
        only_scores: whether to write only scores, because the caller chooses the best itself.

    Raises:
        UserError: a category could not be finalized; the others were.
    """
    trials = load(folder).trials
    configs = {
        str(row["trial"]): configs[row["trial"]].with_momentum(row["ema_momentum"])
        for row in trials.to_dict("records")
    }
    rows = _rows_by_category(load(folder).scores)
    problems = []
    for best in best_trials(trials).to_dict("records"):
        category, trial = str(best["category"]), str(best["trial"])
        scored = {"best": trial, **_reference_trials(trials, category, trial)}
        try:
            detectors = {
                role: finished_detector(
                    configs[name],
                    data[category].trial,
                    checkpoint_dir(name),
                    origin=f"run {folder.name}, trial {name}",
                    selection_digests=data[category].selection_digests,
                    training_digests=data[category].training_digests,
                )
                for role, name in scored.items()
            }
            rows[category] = score_rows(data[category], scored, detectors, device)
        except UserError as error:
            problems.append(f"{category}: {error}")
            continue
        write_table(folder, SCORES, [row for each in rows.values() for row in each])
        if only_scores:
            continue
        save_detector(folder / MODELS / category, detectors["best"])
        _write_best(folder, category, configs[trial])
    if problems:
        raise UserError("; ".join(problems))


def files_are_whole(folder: Path, categories: Iterable[str]) -> bool:
    """True if the tables and all that `finalize` writes for these categories are whole."""
    if not all((folder / name).is_file() for name in (TRIALS, REPORTS)):
        return False
    try:
        run = load(folder)
        for category in categories:
            load_detector(folder / MODELS / category)
            load_config(folder / "best" / f"{category}.yaml", TrialConfig)
            if summary_of(run, category) is None:
                return False
    except UserError:
        return False
    return True


def _rows_by_category(scores: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    table = scores.astype(object).where(scores.notna(), None)
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_dict("records"):
        rows.setdefault(str(row["category"]), []).append({str(x): y for x, y in row.items()})
    return rows


def _write_best(folder: Path, category: str, config: TrialConfig) -> None:
    summary = summary_of(load(folder), category)
    assert summary is not None, "its scores have just been written"
    origin = f"The best of run {folder.name} for {category}: trial {summary.trial}."
    text = dump(config, header="\n".join([origin, *describe(summary)]))
    write_text(folder / "best" / f"{category}.yaml", text)


def _reference_trials(trials: pd.DataFrame, category: str, best: str) -> dict[str, str]:
    """Returns the trials that the best one is compared with, by role, if trained in full."""
    others = trials[(trials["category"] == category) & (trials["trial"] != best)]
    complete = complete_trials(others).drop_duplicates("role").set_index("role")
    return {role: str(complete["trial"][role]) for role in REFERENCES if role in complete.index}


def score_rows(
    data: CategoryData,
    trials: Mapping[str, str],
    detectors: Mapping[str, Detector],
    device: str,
) -> list[dict[str, Any]]:
    """Makes rows of `scores.parquet`: each detector's scores of the images that no trial saw.

    Args:
        data: the category.
        trials: trials by role.
        detectors: the detectors of these trials, by role; all have one teacher.
        device: the device that they run on.
    """
    if not data.split.report:
        return []
    # All detectors of a category share the teacher and therefore its features.
    first = next(iter(detectors.values()))
    images = prepare_images(data.split.report, first.teacher, first.config.model, device)
    rows = []
    for role, detector in detectors.items():
        maps = detector.difference_maps(images.pixels, images.features, device)
        scores = detector.scores(maps, images.sizes).tolist()
        rows += [
            {
                "category": data.category.name,
                "trial": trials[role],
                "role": role,
                "image": record.name,
                "kind": record.kind,
                "defect_type": record.defect_type,
                "score": score,
                "threshold": detector.threshold,
            }
            for record, score in zip(images.records, scores, strict=True)
        ]
    return rows
