"""Scores trained models on test images, once each, for all protocols.

A protocol (an objective) says on which images a setting is chosen and on which it is reported. The
trainings know nothing of it, so one model's scores serve them all.
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
from dfsc_tune.results import CHECKPOINTS, Run
from dfsc_tune.search.provenance import base_config, check_same
from dfsc_tune.storage.parquet import read_parquet, write_parquet
from dfsc_tune.training.objectives import Split, split_test
from dfsc_tune.training.prepare import CategoryData, prepare_category, prepare_images
from dfsc_tune.training.trial import finished_detector

Splits = dict[Protocol, Split]

Model = Mapping[str, Any]
"""A model's name: the columns and values that its rows are found by."""

Maps = Sequence[npt.NDArray[np.float32]]
"""An anomaly map (H, W) an image, at the image's original size."""


class Rows:
    """Rows about models, in a Parquet file that grows.

    Args:
        path: of the file, which need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        again = "delete it, and its models are judged again"
        self.table = read_parquet(path, again).to_pandas() if path.exists() else pd.DataFrame()

    def of(self, model: Model) -> pd.DataFrame:
        """A model's rows."""
        if self.table.empty:
            return self.table
        matching = (self.table[name] == value for name, value in model.items())
        return self.table[np.logical_and.reduce(list(matching))]

    def add(self, model: Model, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds a model's rows, also on the disk."""
        added = pd.DataFrame([{**model, **row} for row in rows])
        self.table = pd.concat([self.table, added], ignore_index=True)
        write_parquet(self._path, self.table)


class Judged:
    """The scores and areas of judged models, kept in a folder.

    `scores` has a row a model and image: what names the model, image, kind, score. `areas` has a
    row a model and protocol: what names the model, protocol, au_spro (of the protocol's report
    part, the mean of both kinds).
    """

    def __init__(self, folder: Path) -> None:
        self.scores = Rows(folder / "test_scores.parquet")
        self.areas = Rows(folder / "test_areas.parquet")


@dataclass(frozen=True)
class Scored:
    """A model's answers to a `Judge`'s images."""

    scores: Sequence[float]
    maps: Callable[[], Maps]
    """Makes the anomaly maps, which take gigabytes, where they are wanted."""


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
    """Scores each model of a batch trained to the full budget that is not scored yet.

    Args:
        run: the batch's.
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
    judged = Judged(run.folder)
    complete = run.trials[run.trials["state"] == "complete"]
    for category, trials in complete.groupby("category"):
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
    """The name of a training's model, scored in some way."""
    return {
        "category": category,
        "trial": trial,
        "sigmoid": scoring.sigmoid,
        "ema_momentum": scoring.ema_momentum,
    }


class Judge:
    """A category's images, prepared when the first model is to be scored on them.

    Args:
        run: of a batch, whose data and settings they are.
        category: of it.
        data: the folder that holds its categories.
        device: where models run.
        protocols: that the scores are to serve.
        say: told when images are prepared.
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
        """The category, prepared; UserError if it is not what the models were trained with."""
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
        """All images that a protocol selects or reports on."""
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
        """Scores a model unless that is done.

        Args:
            judged: what is done, and is added to.
            model: its name.
            score: runs it on `images`.
            areas: whether its AU-sPRO is wanted too; all anomalous images must have masks.
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
        """The answers of a trial's model, scored in some way."""
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
    """The AU-sPRO of some images, the mean of both kinds; their maps by name."""
    chosen = [maps[record.name] for record in records]
    kinds = [record.kind for record in records]
    defects: list[Defect] = []
    for index, (record, anomaly_map) in enumerate(zip(records, chosen, strict=True)):
        defects += read_defects(index, record, category, anomaly_map)
    return au_spro_by_kind(chosen, kinds, defects, (AU_SPRO_LIMIT,))["mean"][AU_SPRO_LIMIT]
