"""Adapters of the controller for Ray Tune: a searcher, a scheduler, a callback and a stopper.

Tune pickles them when it starts, to resume in a way that is not used here; the controller and its
open ledger are left out of that.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import ray
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from dfsc_tune.errors import StorageError
from dfsc_tune.search.classify import classify
from dfsc_tune.search.controller import Controller
from dfsc_tune.search.failures import Failure
from dfsc_tune.search.messages import Report, failure_of, note_of

Result = TypeVar("Result")


class _OfController:
    """Holds the controller; turns a failing disk into a stop of the search."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_controller"}

    def _safely(self, action: Callable[[], Result], otherwise: Result) -> Result:
        """Runs an action; if the disk fails, stops the controller and returns `otherwise`."""
        try:
            return action()
        except (OSError, StorageError) as error:
            self._controller.stop(error)
            return otherwise


class ControllerSearcher(_OfController, Searcher):
    """Gives Tune the next trial to start."""

    def suggest(self, trial_id: str) -> Any:
        """Returns a trial's Tune config, None if there is none now, or FINISHED."""
        trial = self._safely(self._controller.next_trial, None)
        if trial is not None:
            # Plain values: Tune copies a config for each trial, and shows none of it.
            settings = trial.config.model_dump()
            return {"trial": trial.name, "trial_config": settings, "gpus": trial.gpus}
        return Searcher.FINISHED if self._controller.starts_no_more else None

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Does nothing, because the controller knows already."""

    def save(self, checkpoint_path: str) -> None:
        """Does nothing, because a search is resumed from its ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing, because there is nothing to restore."""


class ControllerScheduler(_OfController, FIFOScheduler):
    """Passes each report on, and ends the trial if the controller says so."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Returns CONTINUE or STOP."""
        ends = self._safely(lambda: self._take(_name(trial), result), False)
        return str(TrialScheduler.STOP if ends else TrialScheduler.CONTINUE)

    def _take(self, name: str, result: Mapping[str, Any]) -> bool:
        if (reason := failure_of(result)) is not None:
            self._controller.fail(name, reason)
            return True
        if (note := note_of(result)) is not None:
            self._controller.note(name, note)
        return self._controller.report(name, Report.from_plain(result))


class ControllerCallback(_OfController, Callback):
    """Passes on starts and failures, and ends hanging trials."""

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Notes that the trial runs."""
        self._safely(lambda: self._controller.started(_name(trial)), None)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Fails a trial that returned before its last report."""
        if self._controller.stopped is None:
            reason = "it ended without a last report"
            self._safely(lambda: self._controller.fail(_name(trial), reason), None)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Lets the controller decide about a trial that broke."""
        self._safely(lambda: self._controller.broke(_name(trial), _failure(trial)), None)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Ends the processes of trials that hang."""
        none: list[str] = []
        hung = self._safely(self._controller.hung, none)
        for trial in trials if hung else ():
            actor = trial.temporary_state.ray_actor
            if _name(trial) in hung and actor is not None:
                ray.kill(actor)


class ControllerStopper(_OfController, Stopper):
    """Ends Tune when the controller is stopped."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Returns false, because the scheduler ends trials."""
        return False

    def stop_all(self) -> bool:
        """True if the controller is stopped."""
        return self._controller.stopped is not None


def _name(trial: Trial) -> str:
    """The controller's name of a trial; Tune's own changes with each retry."""
    return cast(str, trial.config["trial"])


def _failure(trial: Trial) -> Failure:
    """Reads the failure of a trial from the exception that Tune keeps in its folder."""
    try:
        return classify(pickle.loads(Path(trial.pickled_error_file).read_bytes()))
    except Exception as error:
        # Its class may be unknown to this process; as a bug, it is not retried for ever.
        return Failure("bug", f"unknown error ({type(error).__name__}: {error})")
