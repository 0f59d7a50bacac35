"""Decides a search: which trials there are, what they reported, what happens to them next.

It alone decides; Ray Tune only carries out, and nothing here knows of Ray (`adapters` passes on).
A trial's journey: `next_trial` suggests it, `started` notes that it runs, `report` takes what it
tells, compares it and ends it or not; `fail`, `broke` and `hung` are for what goes wrong.

Each suggestion, report and failure is in the ledger before it has an effect, and one method,
`_follow`, gives an event its effect, whether it happens now or is read from the ledger: to resume a
search is to take the ledger's events once more and go on.
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
from dfsc_tune.spaces.space import SPARED, Role
from dfsc_tune.storage.checkpoints import previous
from dfsc_tune.storage.removal import remove_below

_SAME_ERRORS = 3
_DEADLINE_FACTOR = 10.0
_DEADLINE_START_SECONDS = 300.0

Why = signal.Signals | str | Exception
"""Why a search ends before its time: a signal, a sentence, or an error of the machinery."""


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
    """Since the last report."""
    is_given: bool = False
    """Whether Tune has it, if only to wait for a free place."""
    ready_at: float = 0.0
    """When it may be given to Tune; by the monotonic clock, as all times here."""
    heard_at: float = math.inf
    """When it started or last reported, while it runs."""


class Controller:
    """Decides what is tried, how long, and how often, and keeps the books of it."""

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
        """Takes up the search where its ledger ends.

        Args:
            folder: the run.
            ledger: of that run, open.
            searcher: one that has suggested nothing yet.
            asha: one that has taken no report yet.
            gpus_per_trial: each trial's share of a GPU to begin with.
            deadline_seconds: a trial that reports nothing for so long hangs; None: see `deadline`.
            on_end: told each trial that ends from now on, and its state, before anything else is
                done about it.
        """
        self.tables = RunTables(folder)
        self.capacity = 1
        """How many trials may be open at once."""
        self.stopped: Why | None = None
        """Why no more trials are started, if so."""
        self.num_expected = searcher.num_expected
        """How many trials each category is to have."""
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
        """Takes the events of earlier sessions once more."""
        with self.tables.paused():
            for number, event in enumerate(self._ledger.events, start=1):
                try:
                    self._check_order(event)
                    self._follow(event)
                except (KeyError, ValueError, TypeError, UserError) as error:
                    problem = f"does not follow from those before it ({first_line(error)})"
                    raise DamagedLedgerError(self._ledger.path, number, problem) from error
            # Those of a large run take much memory.
            self._ledger.events.clear()
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
        """Whether every trial has been suggested and has ended."""
        return not self._open and not self._searcher.num_left

    @property
    def starts_no_more(self) -> bool:
        """Whether `next_trial` will never again give a trial in this session."""
        return self.stopped is not None or self.is_finished

    @property
    def is_finalized(self) -> bool:
        """Whether the results of all that has ended are written."""
        return self._num_finalized == self.num_ended

    @property
    def num_ended(self) -> int:
        """How many trials have ended."""
        return self._num_trials - len(self._open)

    @property
    def num_open(self) -> int:
        """How many trials were suggested and have not ended."""
        return len(self._open)

    def checkpoint_dir(self, trial: str) -> Path:
        """The folder of a trial's checkpoints."""
        return self._checkpoints / trial

    def next_trial(self) -> OpenTrial | None:
        """A trial to start now; None if there is none yet, or never again (`starts_no_more`)."""
        if self.stopped is not None:
            return None
        now = time.monotonic()
        for trial in self._open.values():
            if not trial.is_given and trial.ready_at <= now:
                trial.is_given = True
                return trial
        if len(self._open) >= self.capacity:
            # A trial that waits to be tried again keeps its place.
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
        """Takes a trial's report; whether the trial ends with it."""
        trial = self._open.get(name)
        if trial is None:
            return True
        trial.heard_at = time.monotonic()
        if report.progress.step <= trial.step:
            # It went on from a checkpoint and says again what is known.
            return False
        self._happen({"event": "reported", "trial": name, **report.to_plain()})
        return name not in self._open

    def note(self, name: str, text: str) -> None:
        """Writes down what a user should know of a trial; nothing is decided by it."""
        if name in self._open:
            self._happen({"event": NOTED, "trial": name, "note": text})

    def fail(self, name: str, reason: str) -> None:
        """Ends a trial as failed."""
        if name in self._open:
            self._happen({"event": "failed", "trial": name, "reason": reason})
            self._stop_if_all_fail_alike(reason)

    def broke(self, name: str, failure: Failure) -> None:
        """Decides about a trial whose process is gone: tried again, failed, or the search's end."""
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
            # What was too much for this trial would be for the next ones.
            self._gpus = max(self._gpus, retry.gpus)
            trial.ready_at = time.monotonic() + retry.pause_seconds
            self.tables.trials[name]["error"] = failure.reason
        elif failure.kind == "storage":
            self.stop(StorageError(failure.reason))
        else:
            often = f" ({trial.num_retries + 1} times in a row)" if trial.num_retries else ""
            self.fail(name, f"{failure.reason}{often}")

    def _note_loss(self, name: str, failure: Failure, seconds: float) -> None:
        """Writes down what is trained again; nothing is decided by it."""
        event = {"event": BROKE, "trial": name, "kind": failure.kind, "seconds": round(seconds, 3)}
        # The disk may be what failed.
        with suppress(StorageError):
            self._ledger.append(event)

    def hung(self) -> list[str]:
        """Fails the trials that have not reported for too long; their names."""
        late = time.monotonic() - self.deadline
        names = [trial.name for trial in self._open.values() if trial.heard_at < late]
        for name in names:
            self.fail(name, f"it hung: no report for {self.deadline:.0f} s")
        return names

    @property
    def deadline(self) -> float:
        """The seconds without a report after which a trial hangs.

        If the settings do not say: ten times the slowest report of the run and five minutes to
        start; before the first report nothing is known, and nothing hangs.
        """
        if self._deadline_seconds is not None:
            return self._deadline_seconds
        if not self._slowest_report:
            return math.inf
        return _DEADLINE_START_SECONDS + _DEADLINE_FACTOR * self._slowest_report

    def stop(self, why: Why) -> None:
        """Starts no more trials; those that run end where they are and can be resumed."""
        if self.stopped is None:
            self.stopped = why

    def close(self) -> None:
        """Closes the books of this session: what has not ended is interrupted."""
        for name in self._open:
            if name in self.tables.trials:
                self.tables.end(name, "interrupted")
        self.tables.write()
        self._searcher.close()

    def finalized(self) -> None:
        """Notes that the results of what has ended are written."""
        self._happen({"event": FINALIZED, "num_ended": self.num_ended})

    def ended(self, why: str | None) -> None:
        """Notes that this session does no more, and why if that is before its time."""
        # The disk may be why.
        with suppress(StorageError):
            self._ledger.append({"event": ENDED, "why": why})

    def _happen(self, event: Event) -> None:
        """Writes an event down, then gives it its effect."""
        self._ledger.append(event)
        self._follow(event)

    def _follow(self, event: Event) -> None:
        """Gives an event its effect, whether it happens now or is read from the ledger."""
        match event:
            case {"event": "suggested", "trial": name, "category": category}:
                suggestion = {key: event[key] for key in ("values", "role", "params")}
                self._begin(name, self._searcher.suggest_again(name, category, **suggestion))
            case {"event": "reported", "trial": name}:
                self._follow_report(self._open[name], Report.from_plain(event))
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

    def _follow_report(self, trial: OpenTrial, report: Report) -> None:
        name, progress = trial.name, report.progress
        self._slowest_report = max(self._slowest_report, progress.seconds - trial.seconds)
        trial.step, trial.seconds, trial.num_retries = progress.step, progress.seconds, 0
        self.tables.report(name, progress, report.node, report.device)
        # The winner is compared with the spared trials at the full budget.
        if self._asha.goes_on(
            trial.config.category,
            name,
            progress.step,
            progress.value,
            spared=trial.role in SPARED,
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
        # Only a complete trial can become the best; nothing falls back any more.
        if state == "complete":
            remove_below(self._checkpoints, f"{name}/{previous(Path(CHECKPOINT))}")
        else:
            remove_below(self._checkpoints, name)

    def _stop_if_all_fail_alike(self, reason: str) -> None:
        if self.num_ended == _SAME_ERRORS and len(set(self._first_errors)) == 1:
            self.stop(
                f"the first {_SAME_ERRORS} trials failed with the same error, so the rest would: "
                f"{reason}"
            )
