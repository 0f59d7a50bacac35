"""Scores a study's trained models on test images, once each, for all protocols.

A protocol (an objective) says on which images a setting is chosen and on which it is reported. The
trainings know nothing of it, so one model's scores serve them all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dfsc_tune.config import ObjectiveConfig
from dfsc_tune.data.prepared import PreparedImages
from dfsc_tune.data.records import Category, ImageRecord
from dfsc_tune.evaluation.measure import AU_SPRO_LIMIT, read_defects
from dfsc_tune.metrics import Defect, au_spro_by_kind
from dfsc_tune.metrics.image import GOOD
from dfsc_tune.models.detector import Detector
from dfsc_tune.reproduce.tables import Protocol, Scoring
from dfsc_tune.results import CHECKPOINTS, Run
from dfsc_tune.search.provenance import base_config, check_same
from dfsc_tune.storage.atomic import atomic_path
from dfsc_tune.training.objectives import Split, split_test
from dfsc_tune.training.prepare import CategoryData, prepare_category, prepare_images
from dfsc_tune.training.trial import finished_detector

SCORES, AREAS = "test_scores.parquet", "test_areas.parquet"
_MODEL = ["category", "trial", "sigmoid", "ema_momentum"]

Splits = dict[Protocol, Split]


@dataclass(frozen=True)
class Judged:
    """What a study's models are worth."""

    scores: pd.DataFrame
    """A row a model and image: category, trial, sigmoid, ema_momentum, image, kind, score."""
    areas: pd.DataFrame
    """A row a model and protocol: category, trial, sigmoid, ema_momentum, protocol, au_spro (of its
    report part, the mean of both kinds); of the categories that they were asked for."""


def splits_of(category: Category, protocols: Sequence[Protocol]) -> Splits:
    """What each protocol selects and reports on; `synthetic` selects on what is not made yet.

    Raises:
        UserError: a protocol cannot be carried out on these images.
    """
    return {name: split_test(category, ObjectiveConfig(name=name)) for name in protocols}


def with_made(splits: Splits, scores: pd.DataFrame, category: str) -> Splits:
    """The splits, `synthetic` selecting on the images that were made for it and scored."""
    if "synthetic" not in splits or scores.empty:
        return splits
    split = splits["synthetic"]
    tested = [record.name for record in split.report]
    made = scores[(scores["category"] == category) & ~scores["image"].isin(tested)]
    selection = tuple(
        ImageRecord(Path(name), name, kind, GOOD if kind == GOOD else _recipe(name))
        for name, kind in made.drop_duplicates("image")[["image", "kind"]].itertuples(index=False)
    )
    return {**splits, "synthetic": replace(split, selection=selection)}


def _recipe(name: str) -> str:
    """By which recipe an anomaly was made: `prepare` names it synthetic/<recipe>/<number>."""
    return name.split("/")[1]


def judge_study(
    run: Run,
    data: Path,
    scorings: Sequence[Scoring],
    protocols: Sequence[Protocol],
    *,
    areas: Collection[str],
    device: str,
    say: Callable[[str], None],
) -> Judged:
    """Scores each model trained to the full budget that is not scored yet.

    Args:
        run: the study's.
        data: the folder that holds its categories.
        scorings: each is a model of its own of every training.
        protocols: that the scores are to serve.
        areas: the categories to measure AU-sPRO of too, which takes minutes a model on large
            images; all their anomalous test images must have masks.
        device: where the models run.
        say: told what goes on.

    Raises:
        UserError: data or teacher are not those that the models were trained with.
    """
    scores, found_areas = read_rows(run.folder / SCORES), read_rows(run.folder / AREAS)
    complete = run.trials[run.trials["state"] == "complete"]
    for name, trials in complete.groupby("category"):
        models = [
            (str(row["trial"]), scoring)
            for row in trials.to_dict("records")
            for scoring in scorings
        ]
        unscored = _missing(scores, str(name), models)
        unmeasured = _missing(found_areas, str(name), models) if name in areas else []
        if not unscored and not unmeasured:
            continue
        say(f"scoring {len({*unscored, *unmeasured})} models of {name} …")
        judge = Judge(run, str(name), data, device, protocols)
        for trial, scoring in dict.fromkeys([*unscored, *unmeasured]):
            model = _named(str(name), trial, scoring)
            detector = judge.detector(trial, scoring)
            if (trial, scoring) in unscored:
                rows = [{**model, **row} for row in judge.scores(detector)]
                scores = with_rows(run.folder / SCORES, scores, rows)
            if (trial, scoring) in unmeasured:
                rows = [{**model, **row} for row in judge.areas(detector)]
                found_areas = with_rows(run.folder / AREAS, found_areas, rows)
    return Judged(scores, found_areas)


class Judge:
    """A category's images, ready to be scored by its models.

    `images` are all that a protocol selects or reports on.
    """

    def __init__(
        self, run: Run, category: str, data: Path, device: str, protocols: Sequence[Protocol]
    ) -> None:
        self._run = run
        self._base = base_config(run, category)
        makes = "synthetic" in protocols
        name = "synthetic" if makes else "oracle"
        objective = self._base.objective.model_copy(update={"name": name})
        config = self._base.model_copy(update={"objective": objective})
        self.data: CategoryData = prepare_category(config, data, device)
        check_same(run, category, self.data.fingerprint, self.data.trial.teacher)
        self._device = device
        self._splits = splits_of(self.data.category, protocols)
        self.images: PreparedImages = self.data.trial.selection
        if makes:
            tested = prepare_images(
                self.data.category.test,
                self.data.trial.teacher,
                config.model,
                device,
                config.speed.feature_dtype,
            )
            self.images = tested + self.images

    def detector(self, trial: str, scoring: Scoring) -> Detector:
        """A trained model, scored as asked."""
        rows = self._run.trials.set_index("trial")
        searched = self._run.settings["searched"][self._base.category]
        values = rows.loc[[trial], searched].to_dict("records")[0]
        values |= {"sigmoid": scoring.sigmoid, "ema_momentum": scoring.ema_momentum}
        checkpoint = self._run.folder / CHECKPOINTS / trial
        return finished_detector(
            self._base.with_values({str(name): x for name, x in values.items()}),
            self.data.trial,
            checkpoint,
        )

    def scores(self, detector: Detector) -> Iterator[dict[str, Any]]:
        """A row an image."""
        maps = detector.difference_maps(self.images.pixels, self.images.features, self._device)
        scores = detector.scores(maps, self.images.sizes).tolist()
        for record, score in zip(self.images.records, scores, strict=True):
            yield {"image": record.name, "kind": record.kind, "score": score}

    def areas(self, detector: Detector) -> Iterator[dict[str, Any]]:
        """A row a protocol. All anomalous images must have masks."""
        differences = detector.difference_maps(
            self.images.pixels, self.images.features, self._device
        )
        return self.areas_of(detector.anomaly_maps(differences, self.images.sizes))

    def areas_of(self, maps: Sequence[npt.NDArray[np.float32]]) -> Iterator[dict[str, Any]]:
        """As `areas`, of the anomaly maps (H, W) of all images at their original sizes."""
        category = self.data.category
        by_name = {x.name: found for x, found in zip(self.images.records, maps, strict=True)}
        for protocol, split in self._splits.items():
            yield {"protocol": protocol, "au_spro": _area(category, split.report, by_name)}


def _area(
    category: Category,
    records: Sequence[ImageRecord],
    maps: dict[str, npt.NDArray[np.float32]],
) -> float:
    """The AU-sPRO of some images, the mean of both kinds."""
    chosen = [maps[record.name] for record in records]
    kinds = [record.kind for record in records]
    defects: list[Defect] = []
    for index, (record, anomaly_map) in enumerate(zip(records, chosen, strict=True)):
        defects += read_defects(index, record, category, anomaly_map)
    return au_spro_by_kind(chosen, kinds, defects, (AU_SPRO_LIMIT,))["mean"][AU_SPRO_LIMIT]


def _named(category: str, trial: str, scoring: Scoring) -> dict[str, Any]:
    return {
        "category": category,
        "trial": trial,
        "sigmoid": scoring.sigmoid,
        "ema_momentum": scoring.ema_momentum,
    }


def _missing(
    known: pd.DataFrame, category: str, models: Sequence[tuple[str, Scoring]]
) -> list[tuple[str, Scoring]]:
    """The models that have no row yet."""
    there = set(known[_MODEL].itertuples(index=False, name=None)) if len(known) else set()
    return [x for x in models if tuple(_named(category, *x).values()) not in there]


def read_rows(path: Path) -> pd.DataFrame:
    """A table of scores or areas; empty where it is not there yet."""
    return pd.read_parquet(path) if path.exists() else pd.DataFrame()


def with_rows(path: Path, known: pd.DataFrame, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The table with rows added, also on the disk."""
    if not rows:
        return known
    table = pd.concat([known, pd.DataFrame(rows)], ignore_index=True)
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)
    return table
