"""One trial's whole story: train, score, save, report, until the steps are done.

A trial does not know who asked for it. It is given its data, a function to call with its progress
and a folder for its checkpoint; whoever wants it to stop just does not let that call return.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dfsc_tune.checkpoint import load, save
from dfsc_tune.config import TrialConfig
from dfsc_tune.data.prepared import PreparedImages, shared_tensor
from dfsc_tune.detector import Detector
from dfsc_tune.objective import judge, objective_value
from dfsc_tune.prepare import TrialData
from dfsc_tune.scoring import DifferenceMaps, difference_maps, fit_normalization, image_scores
from dfsc_tune.train import Training

CHECKPOINT = "trial.pt"


@dataclass(frozen=True)
class Progress:
    """What a trial tells at a report."""

    step: int
    value: float
    """The objective's value for the EMA momentum that counts."""
    metrics: dict[float, dict[str, float | None]]
    """Image AUROCs of the selection part, for each EMA momentum; the one that counts is first."""
    losses: dict[str, float]
    """Means over the steps since the last report."""
    seconds: float
    """Time spent so far, training and scoring."""

    @property
    def ema_momentum(self) -> float:
        """The EMA momentum that counts: the trial's own, or the best one if it may choose."""
        return next(iter(self.metrics))


def run_trial(
    config: TrialConfig,
    data: TrialData,
    report: Callable[[Progress], None],
    checkpoint_dir: Path,
    device: str = "cpu",
) -> Progress:
    """Trains one model and reports on the way; goes on from the folder's checkpoint if it has one.

    Args:
        config: the trial's settings.
        data: from `prepare_category` for the same category, objective and model.
        report: called every `report_interval` steps and after the last, with the checkpoint of
            that step already saved.
        checkpoint_dir: where the checkpoint is kept.
        device: "cpu" or a CUDA device.

    Returns:
        The last progress.

    Raises:
        TrialError: a loss is not finite.
    """
    training = Training(config, data.train, data.teacher, device, data.penalty_pixels)
    path = checkpoint_dir / CHECKPOINT
    progress: Progress | None = None
    if path.exists():
        progress = _resume(training, path)
    num_steps, interval = config.train.num_steps, config.train.report_interval
    while progress is None or progress.step < num_steps:
        start = time.perf_counter()
        losses = training.run(min(num_steps, (training.step // interval + 1) * interval))
        metrics = _judge(training, data)
        spent = progress.seconds if progress else 0.0
        progress = Progress(
            step=training.step,
            value=objective_value(next(iter(metrics.values())), config.objective.metric),
            metrics=metrics,
            losses=losses,
            seconds=spent + time.perf_counter() - start,
        )
        save(path, {"training": training.state_dict(), "progress": asdict(progress)})
        report(progress)
    return progress


def finished_detector(
    config: TrialConfig, data: TrialData, checkpoint_dir: Path, **origin: Any
) -> Detector:
    """The detector that a trial's checkpoint holds, for the config's EMA momentum.

    Args:
        config: the trial's settings.
        data: as given to the trial.
        checkpoint_dir: the folder with its checkpoint.
        origin: passed on to `Detector` (`origin`, `selection_digests`).
    """
    training = Training(config, data.train, data.teacher)
    _resume(training, checkpoint_dir / CHECKPOINT)
    validation = data.validation
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
        **origin,
    )


def _resume(training: Training, path: Path) -> Progress:
    state = load(path)
    training.load_state_dict(state["training"])
    return Progress(**state["progress"])


def _judge(training: Training, data: TrialData) -> dict[float, dict[str, float | None]]:
    """The AUROCs for each EMA momentum, the one that counts first."""
    score = training.config.score
    momenta = list(training.averages)
    validation = _maps(training, data.validation, momenta)
    selection = _maps(training, data.selection, momenta)
    metrics = {}
    for momentum, reference, maps in zip(momenta, validation, selection, strict=True):
        normalization = fit_normalization(reference, score)
        scores = image_scores(maps, normalization, data.selection.sizes, score)
        metrics[momentum] = judge(scores, data.selection.kinds)
    if training.config.train.choose_ema_momentum:
        metric = training.config.objective.metric
        best = max(metrics, key=lambda momentum: objective_value(metrics[momentum], metric))
        return {best: metrics[best], **metrics}
    return metrics


def _maps(training: Training, images: PreparedImages, momenta: list[float]) -> list[DifferenceMaps]:
    return difference_maps(
        [training.averages[momentum] for momentum in momenta],
        training.autoencoder.eval(),
        shared_tensor(images.pixels, training.device),
        shared_tensor(images.features, training.device),
    )
