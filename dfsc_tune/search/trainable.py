"""The function that Ray runs for each trial: `run_trial` with Tune's report."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from dfsc_tune.config import TrialConfig
from dfsc_tune.progress import Progress
from dfsc_tune.results import SETTINGS
from dfsc_tune.search.messages import Report, failure_to_plain, note_to_plain
from dfsc_tune.search.remote_checkpoints import StoredCheckpoints
from dfsc_tune.storage.places import scratch_folder
from dfsc_tune.training.prepare import TrialData
from dfsc_tune.training.train import TrialError
from dfsc_tune.training.trial import run_trial


def tune_trial(
    config: Mapping[str, Any],
    *,
    data: Mapping[str, ray.ObjectRef[TrialData]],
    checkpoints: Path | StoredCheckpoints,
    num_threads: int,
    device: str,
) -> None:
    """Runs one trial inside a Tune session, from its last checkpoint if there is one.

    Args:
        config: the suggestion of `adapters.ControllerSearcher`.
        data: each category's images in Ray's object store: one copy a node, shared by all trials.
        checkpoints: the folder, the same on all nodes, in which each trial has its own; or where
            they are kept in an object store.
        num_threads: CPU threads, so that concurrent trials do not fight.
        device: "cpu", or "cuda" for the GPU that Ray gave this trial.
    """
    torch.set_num_threads(num_threads)
    if not torch.cuda.is_available():
        # Ray's GPUs may only be counted; the trial's row and a warning say where it ran.
        device = "cpu"
    trial_config = TrialConfig.model_validate(config["trial_config"])

    notes: list[str] = []

    def report(progress: Progress) -> None:
        said = note_to_plain("; ".join(notes)) if notes else {}
        notes.clear()
        tune.report({**Report(progress, platform.node(), device).to_plain(), **said})

    try:
        _check_shared(checkpoints)
        trial_data = _fetch(data[trial_config.category])
        with _folder(checkpoints, config["trial"]) as (folder, keep):

            def keep_and_report(progress: Progress) -> None:
                keep()
                report(progress)

            run_trial(trial_config, trial_data, keep_and_report, folder, device, notes.append)
    except TrialError as failure:
        # Reported, not raised, because this process is sound and can take the next trial.
        tune.report(failure_to_plain(str(failure)))


def _check_shared(checkpoints: Path | StoredCheckpoints) -> None:
    """Refuses to train on a node without the run's folder, where checkpoints would be lost."""
    if isinstance(checkpoints, Path) and not (checkpoints.parent / SETTINGS).is_file():
        raise TrialError(
            f"its node does not see the run's folder {checkpoints.parent}: give --results on a "
            "path that all nodes share, or in an object store"
        )


@contextmanager
def _folder(
    checkpoints: Path | StoredCheckpoints, trial: str
) -> Iterator[tuple[Path, Callable[[], None]]]:
    """The folder of a trial's checkpoint, and what to do with each before it is reported."""
    if isinstance(checkpoints, Path):
        yield checkpoints / trial, lambda: None
        return
    with scratch_folder() as scratch:
        folder = scratch / trial
        checkpoints.fetch(trial, folder)
        yield folder, lambda: checkpoints.put(trial, folder)


@functools.lru_cache(maxsize=1)
def _fetch(shared: ray.ObjectRef[TrialData]) -> TrialData:
    """A category's data; trials that follow one another in a process find them on its device."""
    fetched: TrialData = ray.get(shared)
    return fetched
