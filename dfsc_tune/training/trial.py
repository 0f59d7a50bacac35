"""Runs one trial: trains, scores, saves a checkpoint and reports, until the steps are done.

A trial does not know its caller. It is given its data, a function to call with its progress and a
folder for its checkpoint. To stop a trial, that function does not return.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dfsc_tune.config import PLAIN, TrialConfig
from dfsc_tune.data.prepared import ResidentImages
from dfsc_tune.errors import UserError
from dfsc_tune.models.detector import Detector
from dfsc_tune.models.scoring import (
    DifferenceMaps,
    difference_maps,
    fit_normalization,
    image_scores,
    joined_maps,
)
from dfsc_tune.progress import CHECKPOINT, Progress
from dfsc_tune.storage.checkpoints import load, load_newest, save_next
from dfsc_tune.training.objectives import objective_value
from dfsc_tune.training.prepare import TrialData, resident
from dfsc_tune.training.train import Training

_IF_LOST = (
    "its trial has ended, so restore the file or train the settings again: with `confirm` for a "
    "search, with another --name for anything else"
)

_PLACES: dict[str, Any] = {"data": True, "model": {"teacher"}, "train": {"penalty_images"}}
"""Settings that may differ when a trial goes on, as its files may have moved."""
_AFTERWARDS: dict[str, Any] = {
    **_PLACES,
    "objective": True,
    "score": True,
    "speed": True,
    "train": {"penalty_images", "ema_momentum", "extra_ema_momenta", "choose_ema_momentum"},
}
"""Settings that may differ between the detector and its training."""


def run_trial(
    config: TrialConfig,
    data: TrialData,
    report: Callable[[Progress], None],
    checkpoint_dir: Path,
    device: str = "cpu",
    note: Callable[[str], None] = warnings.warn,
) -> Progress:
    """Trains one model and reports on the way; goes on from the folder's checkpoint if it has one.

    Of the folder's two checkpoints, the newest that is undamaged and of these settings counts. A
    trial that goes on first reports its checkpoint's progress again, as the process that should
    have received it may have ended before it did.

    Args:
        config: the trial's settings.
        data: from `prepare_category` for the same category, objective and model.
        report: called every `report_interval` steps and after the last, with the checkpoint of
            that step already saved.
        checkpoint_dir: where the checkpoint is kept.
        device: "cpu" or a CUDA device.
        note: called if a checkpoint was damaged, before the next report.

    Returns:
        The last progress.

    Raises:
        TrialError: a loss is not finite.
    """
    path = checkpoint_dir / CHECKPOINT

    def begin() -> Training:
        return Training(config, resident(data, device))

    def restore(training: Training, state: Mapping[str, Any]) -> Progress:
        return _restore(training, state, _PLACES)

    training, progress = load_newest(path, begin, restore, note)
    if progress is not None:
        report(progress)
    num_steps, interval = config.train.num_steps, config.train.report_interval
    while progress is None or progress.step < num_steps:
        start = time.perf_counter()
        losses = training.run(min(num_steps, (training.step // interval + 1) * interval))
        metrics = judge_training(training)
        spent = progress.seconds if progress else 0.0
        progress = Progress(
            step=training.step,
            value=objective_value(next(iter(metrics.values())), config.objective.metric),
            metrics=metrics,
            losses=losses,
            seconds=spent + time.perf_counter() - start,
        )
        state = {"training": training.state_dict(), "progress": asdict(progress)}
        save_next(path, {**state, "config": config.model_dump()})
        report(progress)
    return progress


def finished_detector(
    config: TrialConfig, data: TrialData, checkpoint_dir: Path, **origin: Any
) -> Detector:
    """Returns the detector in a trial's checkpoint, for the config's EMA momentum.

    Args:
        config: the trial's settings.
        data: as given to the trial.
        checkpoint_dir: the folder with its checkpoint.
        origin: passed on to `Detector` (`origin`, `selection_digests`, `training_digests`).

    Raises:
        UserError: the checkpoint is missing, damaged or not of the last step.
    """
    # On the CPU and in float32, as the detector will score on any machine.
    plain = config.model_copy(update={"speed": PLAIN})
    path = checkpoint_dir / CHECKPOINT
    training = Training(plain, resident(data, "cpu"))
    progress = load(path, lambda state: _restore(training, state, _AFTERWARDS), _IF_LOST)
    if progress.step < config.train.num_steps:
        raise UserError(f"the checkpoint {path} is of step {progress.step}, not of the last one")
    validation = training.data.validation
    (maps,) = _maps(training, validation, [config.train.ema_momentum])
    normalization = fit_normalization(maps, config.score)
    scores = image_scores(maps, normalization, validation.sizes, config.score)
    return Detector(
        config=config,
        teacher=data.teacher,
        student=training.averages[config.train.ema_momentum],
        autoencoder=training.autoencoder.eval().requires_grad_(False),
        normalization=normalization,
        threshold=float(scores.max()),
        num_validation=len(scores),
        **origin,
    )


def _restore(training: Training, state: Mapping[str, Any], free: Mapping[str, Any]) -> Progress:
    """Restores a checkpoint's state to a new training; returns its progress.

    Raises:
        ValueError: its settings differ from the training's in others than the free ones.
    """
    # Version 0.1.0 wrote none.
    if "config" in state:
        stored = TrialConfig.model_validate(state["config"])
        if stored.model_dump(exclude=free) != training.config.model_dump(exclude=free):
            raise ValueError("it was made with other settings")
    training.load_state_dict(state["training"])
    return Progress(**state["progress"])


def judge_training(training: Training) -> dict[float, dict[str, float | None]]:
    """Returns the selection part's image AUROCs for each EMA momentum, the one that counts first.

    Before the last report, the objective may score only a share of the images.
    """
    objective, selection = training.data.objective, training.data.selection
    if training.step < training.config.train.num_steps:
        chosen = objective.early_indices(selection.defect_types)
        # `take` copies the images.
        selection = selection.take(chosen) if len(chosen) < len(selection) else selection
    parts = [training.data.validation, selection] if objective.judges_validation else [selection]
    kinds = [kind for part in parts for kind in part.kinds]
    defect_types = [defect_type for part in parts for defect_type in part.defect_types]
    metrics = {
        momentum: objective.judge(scores, kinds, defect_types)
        for momentum, scores in momentum_scores(training, *parts).items()
    }
    if training.config.train.choose_ema_momentum:
        metric = training.config.objective.metric
        best = max(metrics, key=lambda momentum: objective_value(metrics[momentum], metric))
        return {best: metrics[best], **metrics}
    return metrics


def momentum_scores(
    training: Training, *parts: ResidentImages
) -> dict[float, npt.NDArray[np.float64]]:
    """Returns the scores (N,) for each EMA momentum, normalised by the validation images.

    Args:
        training: the training whose networks score.
        parts: images, scored one part after the other; the training's own validation images, if
            among them, pass the networks once, for their scores and for the normalisation.
    """
    config, momenta = training.config.score, list(training.averages)
    validation = training.data.validation
    references = _maps(training, validation, momenta)
    judged = [
        references if part is validation else _maps(training, part, momenta) for part in parts
    ]
    sizes = np.concatenate([part.sizes for part in parts])
    return {
        momentum: image_scores(
            joined_maps([maps[index] for maps in judged]),
            fit_normalization(references[index], config),
            sizes,
            config,
        )
        for index, momentum in enumerate(momenta)
    }


def _maps(training: Training, images: ResidentImages, momenta: list[float]) -> list[DifferenceMaps]:
    return difference_maps(
        [training.averages[momentum] for momentum in momenta],
        training.autoencoder.eval(),
        images.pixels,
        images.features,
        dtype=training.dtype,
    )
