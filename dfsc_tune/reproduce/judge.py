"""Scores each trained model on the test images once, for all protocols.

A protocol (an objective) says which images choose a setting and which ones give its numbers.
Trainings do not depend on it, so the scores of one model serve all protocols.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
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
from dfsc_tune.reproduce.tables import Protocol, Scoring
from dfsc_tune.results import CHECKPOINTS, Run, complete_trials
from dfsc_tune.search.provenance import base_config, check_same
from dfsc_tune.storage.parquet import read_parquet, write_parquet
from dfsc_tune.training.objectives import Split, split_test
from dfsc_tune.training.prepare import CategoryData, prepare_category, prepare_images
from dfsc_tune.training.trial import finished_detector

Splits = dict[Protocol, Split]

Model = Mapping[str, Any]
"""The identity of a model: the columns and values that select its rows."""

Maps = Sequence[npt.NDArray[np.float32]]
"""One anomaly map (H, W) for each image, at its original size."""


class Rows:
    """Rows about models, in a Parquet file to which more are added.

    Args:
        path: the file, which may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        again = "delete it, and its models are judged again"
        self.table = read_parquet(path, again).to_pandas() if path.exists() else pd.DataFrame()

    def of(self, model: Model) -> pd.DataFrame:
        """Returns a model's rows."""
        if self.table.empty:
            return self.table
        matching = (self.table[name] == value for name, value in model.items())
        return self.table[np.logical_and.reduce(list(matching))]

    def add(self, model: Model, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds a model's rows, and writes the file."""
        added = pd.DataFrame([{**model, **row} for row in rows])
        self.table = pd.concat([self.table, added], ignore_index=True)
        write_parquet(self._path, self.table)


class Judged:
    """The scores and areas of judged models, kept in a folder.

    `scores` has one row for each model and image: the model's identity, image, kind, score. `areas`
    has one row for each model and protocol: the model's identity, protocol, au_spro (on the
    protocol's report part, the mean of both kinds).
    """

    def __init__(self, folder: Path) -> None:
        self.scores = Rows(folder / "test_scores.parquet")
        self.areas = Rows(folder / "test_areas.parquet")


@dataclass(frozen=True)
class Scored:
    """A model's scores and maps of a `Judge`'s images."""

    scores: Sequence[float]
    maps: Callable[[], Maps]
    """Makes the anomaly maps; they take gigabytes, so only on demand."""


def splits_of(category: Category, protocols: Sequence[Protocol]) -> Splits:
    """Divides a category's test images by protocol; the anomalies of `synthetic` are missing yet.

    Raises:
        UserError: a protocol cannot be applied to these images.
    """
    return {name: split_test(category, ObjectiveConfig(name=name)) for name in protocols}


def with_anomalies(splits: Splits, scores: pd.DataFrame, category: str) -> Splits:
    """Adds to the `synthetic` split the anomalies that were made and scored for it."""
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
    """The recipe of an anomaly, which `prepare` names synthetic/<recipe>/<number>."""
    return name.split("/")[1]


def judge_batch(
    run: Run,
    data: Path,
    scorings: Sequence[Scoring],
    protocols: Sequence[Protocol],
    *,
    areas: Collection[str],
    device: str,
    say: Callable[[str], None],
) -> Judged:
    """Scores each model of a batch that was trained to the full budget and is not scored yet.

    Args:
        run: the run of the batch.
        data: the folder that holds its categories.
        scorings: ways to score; each makes a model of its own of every training.
        protocols: the protocols that the scores shall serve.
        areas: categories for which AU-sPRO is measured, too, which takes minutes for each model on
            large images; all their anomalous test images must have masks.
        device: the device that the models run on.
        say: called with messages on the progress.

    Raises:
        UserError: the data or the teacher differ from those that the models were trained with.
    """
    judged = Judged(run.folder)
    for category, trials in complete_trials(run.trials).groupby("category"):
        judge = Judge(run, str(category), data, device, protocols, say)
        for trial in trials["trial"]:
            for scoring in scorings:
                judge.complete(
                    judged,
                    named(str(category), str(trial), scoring),
                    partial(judge.scored, str(trial), scoring),
                    areas=category in areas,
                )
    return judged


def named(category: str, trial: str, scoring: Scoring) -> Model:
    """Returns the identity of a training's model with a way to score it."""
    return {
        "category": category,
        "trial": trial,
        "sigmoid": scoring.sigmoid,
        "ema_momentum": scoring.ema_momentum,
    }


class Judge:
    """A category's images, prepared when the first model is scored on them.

    Args:
        run: the run of a batch, with its data and settings.
        category: one of its categories.
        data: the folder that holds its categories.
        device: the device that models run on.
        protocols: the protocols that the scores shall serve.
        say: called when images are prepared.
    """

    def __init__(
        self,
        run: Run,
        category: str,
        data: Path,
        device: str,
        protocols: Sequence[Protocol],
        say: Callable[[str], None],
    ) -> None:
        self._run = run
        self._base = base_config(run, category)
        self._folder = data
        self._device = device
        self._protocols = protocols
        self._say = say

    @cached_property
    def data(self) -> CategoryData:
        """The prepared category; UserError if it differs from that of the trainings."""
        category = self._base.category
        self._say(f"scoring models of {category} …")
        name = "synthetic" if "synthetic" in self._protocols else "oracle"
        objective = self._base.objective.model_copy(update={"name": name})
        config = self._base.model_copy(update={"objective": objective})
        data = prepare_category(config, self._folder, self._device)
        check_same(self._run, category, data.fingerprint, data.trial.teacher)
        return data

    @cached_property
    def images(self) -> PreparedImages:
        """All images that any protocol selects or reports on."""
        selection = self.data.trial.selection
        if "synthetic" not in self._protocols:
            return selection
        tested = prepare_images(
            self.data.category.test,
            self.data.trial.teacher,
            self._base.model,
            self._device,
            self._base.speed.feature_dtype,
        )
        return tested + self.data.trial.validation + selection

    def complete(
        self, judged: Judged, model: Model, score: Callable[[], Scored], *, areas: bool
    ) -> None:
        """Scores a model, unless that has been done.

        Args:
            judged: the results so far; the model's are added.
            model: its identity.
            score: runs it on `images`.
            areas: whether to measure its AU-sPRO, too; all anomalous images must have masks.
        """
        unscored = judged.scores.of(model).empty
        unmeasured = areas and judged.areas.of(model).empty
        if not unscored and not unmeasured:
            return
        found = score()
        if unscored:
            records = zip(self.images.records, found.scores, strict=True)
            judged.scores.add(
                model, ({"image": x.name, "kind": x.kind, "score": score} for x, score in records)
            )
        if unmeasured:
            maps = dict(zip([x.name for x in self.images.records], found.maps(), strict=True))
            splits = splits_of(self.data.category, self._protocols)
            judged.areas.add(
                model,
                (
                    {"protocol": name, "au_spro": _area(self.data.category, split.report, maps)}
                    for name, split in splits.items()
                ),
            )

    def scored(self, trial: str, scoring: Scoring) -> Scored:
        """Runs a trial's model with a way to score it."""
        rows = self._run.trials.set_index("trial")
        searched = list(self._run.settings.searched[self._base.category])
        values = rows.loc[[trial], searched].to_dict("records")[0]
        values |= {"sigmoid": scoring.sigmoid, "ema_momentum": scoring.ema_momentum}
        config = self._base.with_values({str(name): x for name, x in values.items()})
        checkpoint = self._run.folder / CHECKPOINTS / trial
        detector = finished_detector(config, self.data.trial, checkpoint)
        images = self.images
        differences = detector.difference_maps(images.pixels, images.features, self._device)
        return Scored(
            detector.scores(differences, images.sizes).tolist(),
            partial(detector.anomaly_maps, differences, images.sizes),
        )


def _area(category: Category, records: Sequence[ImageRecord], maps: Mapping[str, Any]) -> float:
    """Computes the AU-sPRO of some images (mean of both kinds) from maps by image name."""
    chosen = [maps[record.name] for record in records]
    kinds = [record.kind for record in records]
    defects: list[Defect] = []
    for index, (record, anomaly_map) in enumerate(zip(records, chosen, strict=True)):
        defects += read_defects(index, record, category, anomaly_map)
    return au_spro_by_kind(chosen, kinds, defects, (AU_SPRO_LIMIT,))["mean"][AU_SPRO_LIMIT]
