"""The controller of a search, which makes all decisions about its trials.

Ray Tune only runs them, and nothing here imports Ray (`adapters` connects the two). The life of a
trial: `next_trial` suggests it, `started` notes that it runs, `report` takes a report, compares it
and says whether the trial ends; `fail`, `broke` and `hung` handle what goes wrong.

Each suggestion, report and failure is written to the ledger before it has an effect. One method,
`_apply`, applies an event, whether it is new or read from the ledger, so a search is resumed by
replaying its ledger.
"""

from __future__ import annotations

import math
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dfsc_tune.config import TrialConfig
from dfsc_tune.errors import StorageError, UserError, first_line
from dfsc_tune.progress import CHECKPOINT
from dfsc_tune.results import CHECKPOINTS, ENDED, RunTables
from dfsc_tune.search.events import BROKE, FINALIZED, NOTED, DamagedLedgerError, Event
from dfsc_tune.search.failures import Failure, next_attempt
from dfsc_tune.search.ledger import Ledger
from dfsc_tune.search.messages import Report
from dfsc_tune.search.searcher import StudySearcher, SuggestedTrial
from dfsc_tune.spaces.asha import Asha
from dfsc_tune.spaces.space import REFERENCES, Role
from dfsc_tune.storage.checkpoints import previous
from dfsc_tune.storage.removal import remove_below

_SAME_ERRORS = 3
_DEADLINE_FACTOR = 10.0
_DEADLINE_START_SECONDS = 300.0

Why = signal.Signals | str | Exception
"""The reason for an early end: a signal, a sentence, or an exception of the machinery."""


@dataclass
class OpenTrial:
    """A trial that was suggested and has not ended."""

    name: str
    config: TrialConfig
    role: Role
    gpus: float
    step: int = 0
    seconds: float = 0.0
    num_retries: int = 0
    """Retries since the last report."""
    is_given: bool = False
    """True if Tune has it, even if it is still waiting for resources."""
    ready_at: float = 0.0
    """Earliest time to give it to Tune; monotonic clock, as for all times here."""
    heard_at: float = math.inf
    """Time of its start or last report, while it runs."""


class Controller:
    """Decides which trials run, for how long and how often, and records all of it."""

    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        searcher: StudySearcher,
        asha: Asha,
        *,
        gpus_per_trial: float = 0.0,
        deadline_seconds: float | None = None,
        on_end: Callable[[str, str], None] | None = None,
    ) -> None:
        """Replays the ledger, so that the search continues where it ended.

        Args:
            folder: the run.
            ledger: the run's open ledger.
            searcher: a searcher without suggestions so far.
            asha: an `Asha` without reports so far.
            gpus_per_trial: each trial's first share of a GPU.
            deadline_seconds: time without a report after which a trial hangs; None: see `deadline`.
            on_end: called with each trial that ends from now on, and its state, before its end has
                any other effect.
        """
        self.tables = RunTables(folder)
        self.capacity = 1
        """Largest number of open trials."""
        self.stopped: Why | None = None
        """The reason why no more trials start; None while they do."""
        self.num_expected = searcher.num_expected
        """Number of trials that each category will have."""
        self._checkpoints = folder / CHECKPOINTS
        self._ledger = ledger
        self._searcher = searcher
        self._asha = asha
        self._gpus = gpus_per_trial
        self._deadline_seconds = deadline_seconds
        self._slowest_report = 0.0
        self._open: dict[str, OpenTrial] = {}
        self._num_trials = 0
        self._num_finalized = -1
        self._first_errors: list[str | None] = []
        self._on_end: Callable[[str, str], None] | None = None
        self._replay()
        self._on_end = on_end

    def _replay(self) -> None:
        """Applies the events of earlier sessions again."""
        with self.tables.paused():
            for number, event in enumerate(self._ledger.take_events(), start=1):
                try:
                    self._check_order(event)
                    self._apply(event)
                except (KeyError, ValueError, TypeError, UserError) as error:
                    problem = f"does not follow from those before it ({first_line(error)})"
                    raise DamagedLedgerError(self._ledger.path, number, problem) from error
            for name in self._open:
                self.tables.end(name, "interrupted")

    def _check_order(self, event: Event) -> None:
        """Refuses, by a ValueError, an event that no search can have written after those before."""
        match event:
            case {"event": "suggested", "trial": name} if name != self._next_name:
                raise ValueError(f"trial {name} is suggested where {self._next_name} would be")
            case {"event": "suggested", "category": category} if category not in self.num_expected:
                raise ValueError(f"category {category!r} is not searched")
            case {"event": "reported" | "failed" | "noted", "trial": name} if (
                name not in self._open
            ):
                raise ValueError(f"trial {name} has not begun or has ended")
            case {"event": "reported", "trial": name, "step": step}:
                if step <= (before := self._open[name].step):
                    raise ValueError(f"trial {name} reports step {step} after step {before}")

    @property
    def _next_name(self) -> str:
        return f"{self._num_trials + 1:04d}"

    @property
    def is_finished(self) -> bool:
        """True if every trial has been suggested and has ended."""
        return not self._open and not self._searcher.num_left

    @property
    def starts_no_more(self) -> bool:
        """True if `next_trial` will return no more trials in this session."""
        return self.stopped is not None or self.is_finished

    @property
    def results_are_written(self) -> bool:
        """True if the results of all ended trials are written."""
        return self._num_finalized == self.num_ended

    @property
    def num_ended(self) -> int:
        """Number of ended trials."""
        return self._num_trials - len(self._open)

    @property
    def num_open(self) -> int:
        """Number of trials that were suggested and have not ended."""
        return len(self._open)

    def checkpoint_dir(self, trial: str) -> Path:
        """The folder of a trial's checkpoints."""
        return self._checkpoints / trial

    def next_trial(self) -> OpenTrial | None:
        """Returns a trial to start now; None if there is none now, or ever (`starts_no_more`)."""
        if self.stopped is not None:
            return None
        now = time.monotonic()
        for trial in self._open.values():
            if not trial.is_given and trial.ready_at <= now:
                trial.is_given = True
                return trial
        if len(self._open) >= self.capacity:
            # A trial that waits for its retry keeps its place.
            return None
        name = self._next_name
        if (suggested := self._searcher.suggest(name)) is None:
            return None
        self._ledger.append(
            {
                "event": "suggested",
                "trial": name,
                "category": suggested.config.category,
                "values": suggested.suggestion.values,
                "role": suggested.suggestion.role,
                "params": suggested.suggestion.params,
            }
        )
        trial = self._begin(name, suggested)
        trial.is_given = True
        return trial

    def started(self, name: str) -> None:
        """Notes that a trial runs."""
        if trial := self._open.get(name):
            trial.heard_at = time.monotonic()
            self.tables.start(name, trial.config, trial.role)

    def report(self, name: str, report: Report) -> bool:
        """Takes a trial's report; returns true if the trial ends with it."""
        trial = self._open.get(name)
        if trial is None:
            return True
        trial.heard_at = time.monotonic()
        if report.progress.step <= trial.step:
            # After a retry, a trial repeats the reports since its checkpoint.
            return False
        self._record({"event": "reported", "trial": name, **report.to_plain()})
        return name not in self._open

    def note(self, name: str, text: str) -> None:
        """Records a note for the user about a trial; it decides nothing."""
        if name in self._open:
            self._record({"event": NOTED, "trial": name, "note": text})

    def fail(self, name: str, reason: str) -> None:
        """Ends a trial as failed."""
        if name in self._open:
            self._record({"event": "failed", "trial": name, "reason": reason})
            self._stop_if_all_fail_alike(reason)

    def broke(self, name: str, failure: Failure) -> None:
        """Retries or fails a trial whose process is gone, or stops the search."""
        trial = self._open.get(name)
        if trial is None:
            return
        silent_seconds = time.monotonic() - trial.heard_at
        trial.is_given, trial.heard_at = False, math.inf
        retry = next_attempt(failure, trial.num_retries, trial.gpus)
        if retry is not None:
            self._note_loss(name, failure, max(silent_seconds, 0.0))
            trial.num_retries += 1
            trial.gpus = retry.gpus
            # The next trials would need as much memory as this one.
            self._gpus = max(self._gpus, retry.gpus)
            trial.ready_at = time.monotonic() + retry.pause_seconds
            self.tables.broke(name, failure.reason)
        elif failure.kind == "storage":
            self.stop(StorageError(failure.reason))
        else:
            often = f" ({trial.num_retries + 1} times in a row)" if trial.num_retries else ""
            self.fail(name, f"{failure.reason}{often}")

    def _note_loss(self, name: str, failure: Failure, seconds: float) -> None:
        """Records the training time that is lost; it decides nothing."""
        event = {"event": BROKE, "trial": name, "kind": failure.kind, "seconds": round(seconds, 3)}
        # The disk itself may have failed.
        with suppress(StorageError):
            self._ledger.append(event)

    def hung(self) -> list[str]:
        """Fails the trials that have not reported for too long; returns their names."""
        late = time.monotonic() - self.deadline
        names = [trial.name for trial in self._open.values() if trial.heard_at < late]
        for name in names:
            self.fail(name, f"it hung: no report for {self.deadline:.0f} s")
        return names

    @property
    def deadline(self) -> float:
        """The seconds without a report after which a trial hangs.

        The default is five minutes plus ten times the run's slowest report; before the first
        report there is no deadline.
        """
        if self._deadline_seconds is not None:
            return self._deadline_seconds
        if not self._slowest_report:
            return math.inf
        return _DEADLINE_START_SECONDS + _DEADLINE_FACTOR * self._slowest_report

    def stop(self, why: Why) -> None:
        """Starts no more trials; running ones end where they are and can be resumed."""
        if self.stopped is None:
            self.stopped = why

    def close(self) -> None:
        """Closes the tables and studies; trials that have not ended become interrupted."""
        for name in self._open:
            if name in self.tables.trials:
                self.tables.end(name, "interrupted")
        self.tables.write()
        self._searcher.close()

    def finalized(self) -> None:
        """Records that the results of the ended trials are written."""
        self._record({"event": FINALIZED, "num_ended": self.num_ended})

    def ended(self, why: str | None) -> None:
        """Records the end of this session, with the reason if it is early."""
        # The disk may be the reason.
        with suppress(StorageError):
            self._ledger.append({"event": ENDED, "why": why})

    def _record(self, event: Event) -> None:
        """Writes an event to the ledger, then applies it."""
        self._ledger.append(event)
        self._apply(event)

    def _apply(self, event: Event) -> None:
        """Applies an event, whether it is new or read from the ledger."""
        match event:
            case {"event": "suggested", "trial": name, "category": category}:
                suggestion = {key: event[key] for key in ("values", "role", "params")}
                self._begin(name, self._searcher.suggest_again(name, category, **suggestion))
            case {"event": "reported", "trial": name}:
                self._apply_report(self._open[name], Report.from_plain(event))
            case {"event": "noted", "trial": name, "note": text}:
                self.tables.note(name, text)
            case {"event": "failed", "trial": name, "reason": reason}:
                del self._open[name]
                self._searcher.fail(name)
                self._end(name, "failed", reason)
            case {"event": "published", "num_ended": num_ended}:
                self._num_finalized = num_ended

    def _begin(self, name: str, suggested: SuggestedTrial) -> OpenTrial:
        """Opens a trial that the searcher has just suggested."""
        role = suggested.suggestion.role
        self._num_trials += 1
        trial = self._open[name] = OpenTrial(name, suggested.config, role, self._gpus)
        self.tables.start(name, trial.config, role)
        return trial

    def _apply_report(self, trial: OpenTrial, report: Report) -> None:
        name, progress = trial.name, report.progress
        self._slowest_report = max(self._slowest_report, progress.seconds - trial.seconds)
        trial.step, trial.seconds, trial.num_retries = progress.step, progress.seconds, 0
        self.tables.report(name, progress, report.node, report.device)
        # The winner is compared with the reference trials, so these need the full budget.
        if self._asha.goes_on(
            trial.config.category,
            name,
            progress.step,
            progress.value,
            is_reference=trial.role in REFERENCES,
        ):
            self._searcher.report(name, progress.step, progress.value)
            return
        del self._open[name]
        self._end(name, self._searcher.finish(name, progress.step, progress.value))

    def _end(self, name: str, state: str, reason: str | None = None) -> None:
        if len(self._first_errors) < _SAME_ERRORS:
            self._first_errors.append(reason and re.sub(r"\d+", "N", reason))
        self.tables.end(name, state, reason)
        if self._on_end is not None:
            self._on_end(name, state)
        # Only a complete trial can become the best, and it needs only its last checkpoint.
        if state == "complete":
            remove_below(self._checkpoints, f"{name}/{previous(Path(CHECKPOINT))}")
        else:
            remove_below(self._checkpoints, name)

    def _stop_if_all_fail_alike(self, reason: str) -> None:
        if self.num_ended == _SAME_ERRORS and len(set(self._first_errors)) == 1:
            self.stop(
                f"the first {_SAME_ERRORS} trials failed with the same error, and so would the "
                f"rest: {reason}"
            )
