"""Reads a category into what its trials may see: decoded images and teacher features, made once."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dfsc_tune.config import FeatureDtype, ModelConfig, TrialConfig
from dfsc_tune.data.files import map_in_threads
from dfsc_tune.data.fingerprint import content_digest, fingerprint
from dfsc_tune.data.images import decode_images
from dfsc_tune.data.layout import list_category, read_category
from dfsc_tune.data.prepared import PreparedImages, ResidentImages, shared_tensor
from dfsc_tune.data.records import Category, ImageRecord
from dfsc_tune.errors import UserError
from dfsc_tune.metrics import KINDS
from dfsc_tune.metrics.image import GOOD
from dfsc_tune.models.teacher import (
    Teacher,
    channel_statistics_sha256,
    fit_channel_statistics,
    load_teacher,
    teacher_features,
    teacher_identity,
)
from dfsc_tune.training.anomalies import anomalies_of, prepared_anomalies, shortfall_notes
from dfsc_tune.training.objectives import Objective, Split, chosen_objective, objective_named

_MAX_PENALTY_IMAGES = 1000
_PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
_FEW_IMAGES = 5


@dataclass(frozen=True, eq=False)
class TrialData:
    """The data of a trial, as arrays that processes can share.

    The report part is not included, so no trial can see it.
    """

    objective: Objective
    train: PreparedImages
    validation: PreparedImages
    selection: PreparedImages
    """Images of the selection part, except the validation images."""
    teacher: Teacher
    penalty_pixels: npt.NDArray[np.uint8] | None = None

    @property
    def num_bytes(self) -> int:
        """Memory that the images take on a device."""
        images = (self.train, self.validation, self.selection)
        penalty = 0 if self.penalty_pixels is None else self.penalty_pixels.nbytes
        return penalty + sum(x.pixels.nbytes + x.features.nbytes for x in images)


@dataclass(frozen=True)
class ResidentData:
    """A trial's data as tensors on its device; a step needs no other data."""

    objective: Objective
    device: str
    train: ResidentImages
    validation: ResidentImages
    selection: ResidentImages
    teacher: Teacher
    penalty_pixels: torch.Tensor | None


@functools.lru_cache(maxsize=1)
def resident(data: TrialData, device: str) -> ResidentData:
    """Moves a trial's data to a device; successive trials of a category in a process share it."""
    penalty = data.penalty_pixels
    return ResidentData(
        objective=data.objective,
        device=device,
        train=data.train.on(device),
        validation=data.validation.on(device),
        selection=data.selection.on(device),
        teacher=copy.deepcopy(data.teacher).to(device),
        penalty_pixels=None if penalty is None else shared_tensor(penalty, device),
    )


@dataclass(frozen=True)
class CategoryData:
    """A category read for a search: the data of its trials, and the rest, hidden from them."""

    category: Category
    split: Split
    trial: TrialData
    fingerprint: str
    selection_digests: tuple[str, ...]
    training_digests: tuple[str, ...]
    """Of the training and validation images."""

    @property
    def objective(self) -> Objective:
        """The objective that judges the trials."""
        return self.trial.objective

    @property
    def selection_records(self) -> tuple[ImageRecord, ...]:
        """All images of the selection part."""
        good = self.trial.validation.records if self.objective.judges_validation else ()
        return (*good, *self.trial.selection.records)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user on these data."""
        made = shortfall_notes(self.split.anomalies, self.trial.selection.records)
        limits = _limits(self.category, self.split)
        return (*self.category.notes, *self.split.notes, *made, *limits)

    def summary(self) -> dict[str, Any]:
        """Returns the entry of these data in `run.yaml`."""
        return {
            "fingerprint": self.fingerprint,
            "layout": self.category.layout,
            "train": len(self.category.train),
            "validation": len(self.category.validation),
            "objective": self.objective.name,
            "selection": _count_kinds(self.selection_records),
            "report": _count_kinds(self.split.report),
            "teacher_sha256": teacher_identity(self.trial.teacher),
            "channel_statistics_sha256": channel_statistics_sha256(self.trial.teacher),
            "teacher_features_sha256": sha256(self.trial.train.features.data).hexdigest(),
            "notes": list(self.notes),
        }


def with_chosen_objective(config: TrialConfig, data: Path) -> TrialConfig:
    """Returns the config with `auto` replaced by the objective that suits the category."""
    objective = chosen_objective(list_category(data, config.category), config.objective)
    return config.model_copy(update={"objective": objective})


def prepare_category(config: TrialConfig, data: Path, device: str = "cpu") -> CategoryData:
    """Decodes a category's images and computes the teacher's features of them.

    Args:
        config: category, objective, model and seeds.
        data: the folder that holds the category.
        device: where the teacher runs.

    Raises:
        UserError: the data or the teacher cannot be used with these settings.
    """
    category = read_category(data, config.category)
    settings = chosen_objective(category, config.objective)
    objective = objective_named(settings.name)
    split = objective.split(category, settings)
    teacher = load_teacher(config.model)

    def prepare(records: Sequence[ImageRecord]) -> PreparedImages:
        return prepare_images(records, teacher, config.model, device, config.speed.feature_dtype)

    # The raw features of the training images give the statistics and are then normalised in place:
    # a second pass of the teacher over the largest part would double the cost.
    train = prepare_images(category.train, teacher, config.model, device)
    fit_channel_statistics(teacher, train.features)
    train.features[...] -= teacher.mean.cpu().numpy()
    train.features[...] /= teacher.std.cpu().numpy()
    train = replace(train, features=train.features.astype(config.speed.feature_dtype, copy=False))
    penalty = config.train.penalty_images
    validation = prepare(category.validation)
    selection = prepare(split.selection)
    if split.anomalies:
        anomalies = anomalies_of(category, validation.pixels, split.anomalies, settings)
        pixels = np.stack([anomaly.pixels for anomaly in anomalies])
        dtype = config.speed.feature_dtype
        features = teacher_features(teacher, pixels, device=device, dtype=dtype)
        selection += prepared_anomalies(anomalies, pixels, features, validation)
    return CategoryData(
        category=category,
        split=split,
        trial=TrialData(
            objective=objective,
            train=train,
            validation=validation,
            selection=selection,
            teacher=teacher.cpu(),
            penalty_pixels=_penalty_pixels(Path(penalty), config.model) if penalty else None,
        ),
        fingerprint=fingerprint(category),
        selection_digests=_digests(split.selection),
        training_digests=_digests([*category.train, *category.validation]),
    )


def _digests(records: Sequence[ImageRecord]) -> tuple[str, ...]:
    return tuple(sorted(map_in_threads(content_digest, [record.path for record in records])))


def prepare_images(
    records: Sequence[ImageRecord],
    teacher: Teacher,
    model: ModelConfig,
    device: str = "cpu",
    dtype: FeatureDtype = "float32",
) -> PreparedImages:
    """Decodes images and computes the teacher's features of them, kept in `dtype`."""
    decoded = decode_images([record.path for record in records], model.image_size)
    return PreparedImages(
        records=tuple(records),
        pixels=decoded.pixels,
        features=teacher_features(teacher, decoded.pixels, device=device, dtype=dtype),
        sizes=decoded.original_sizes,
    )


def _limits(category: Category, split: Split) -> Iterator[str]:
    """Yields notes on what cannot be measured, or not well, with these images."""
    without = sum(record.lacks_mask for record in category.test)
    if without:
        yield f"{without} anomalous images have no mask, so pixel metrics cannot be measured"
    parts = {"training": len(category.train), "validation": len(category.validation)}
    parts |= {
        f"{kind} report": count for kind, count in _count_kinds(split.report).items() if count
    }
    few = [f"{count} {name}" for name, count in parts.items() if count < _FEW_IMAGES]
    if few:
        yield f"only {', '.join(few)} images: expect wide intervals and trials that tie"


def _count_kinds(records: Sequence[ImageRecord]) -> dict[str, int]:
    kinds: list[str] = [record.kind for record in records]
    return {kind: kinds.count(kind) for kind in (GOOD, *KINDS)}


def _penalty_pixels(folder: Path, model: ModelConfig) -> npt.NDArray[np.uint8]:
    """Reads photographs for EfficientAD's penalty: resized to 2S, then cropped to the centre S."""
    paths = sorted(path for path in folder.glob("**/*") if path.suffix.lower() in _PHOTO_SUFFIXES)
    if not paths:
        raise UserError(f"no photographs in {folder}; train.penalty_images needs a folder of them")
    step = max(len(paths) // _MAX_PENALTY_IMAGES, 1)
    size = model.image_size
    decoded = decode_images(paths[::step][:_MAX_PENALTY_IMAGES], 2 * size)
    cut = slice(size // 2, size // 2 + size)
    return np.ascontiguousarray(decoded.pixels[:, :, cut, cut])
