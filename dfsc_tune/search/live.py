"""The view of a running search: a live table, or lines if there is no terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from dfsc_tune.pages.terminal import shown_auroc, shown_settings, trial_table
from dfsc_tune.results import shown_duration
from dfsc_tune.results.status import TrialLine
from dfsc_tune.search.controller import Controller
from dfsc_tune.search.messages import note_of

_REFRESH_PER_SECOND = 2
_SHOWN_RUNNING = 12


class LiveView(Callback):
    """Shows a controller's trials while Tune runs; must come after its own among the callbacks."""

    def __init__(
        self, controller: Controller, searched: Mapping[str, Iterable[str]], console: Console
    ) -> None:
        """Prepares the view.

        Args:
            controller: the controller whose trials are shown.
            searched: the names of the settings that vary, by category.
            console: the console; a table if it is a terminal, lines otherwise.
        """
        self._controller = controller
        self._searched = searched
        self._console: Console | None = console
        self._live: Live | None = None
        self._start = time.monotonic()
        self._steps_before = controller.tables.num_steps

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks; a ledger, a console and its refresh thread cannot be.
        return {**self.__dict__, "_controller": None, "_console": None, "_live": None}

    def setup(self, *args: Any, **info: Any) -> None:
        """Starts the display."""
        self._start = time.monotonic()
        if self._console is not None and self._console.is_terminal:
            self._live = Live(
                get_renderable=self._table,
                console=self._console,
                refresh_per_second=_REFRESH_PER_SECOND,
                transient=True,
            )
            self._live.start()

    def close(self) -> None:
        """Ends the display; needed after an error, when Tune calls nothing more."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: Mapping[str, Any],
        **info: Any,
    ) -> None:
        """Shows a trial's note, above the table where there is one."""
        if self._console is not None and (note := note_of(result)):
            self._console.print(f"trial {trial.config['trial']}: {note}")

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Prints how a trial ended, if there is no table."""
        self._say(trial)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Prints that a trial broke, if there is no table."""
        self._say(trial)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Ends the display."""
        self.close()

    def _say(self, trial: Trial) -> None:
        if self._console is None or self._live is not None:
            return
        row = self._controller.tables.trials[trial.config["trial"]]
        if row["state"] == "running":
            # If the search stops, it prints the reason at its end.
            if self._controller.stopped is None:
                self._console.print(
                    f"trial {row['trial']} broke after step {row['step']} and is retried: "
                    f"{row['error']}",
                )
            return
        best = self._controller.tables.best.get(row["category"])
        best_value = shown_auroc(best["value"] if best else None)
        settings = shown_settings(self._line(row, row["state"]).settings)
        self._console.print(
            f"{self._controller.num_ended}/{self._num_expected()} {row['category']} "
            f"{row['state']} at step {row['step']}: AUROC {shown_auroc(row.get('value'))} "
            f"(best {best_value})  {settings}  {self._time_left()}"
            # Of a trial that has not failed, it is a note, which was shown when it came.
            + (f"  {row['error']}" if row["state"] == "failed" else ""),
        )

    def _table(self) -> RenderableType:
        rows = self._rows()
        states = Counter(row["state"] for row in rows)
        waiting = self._num_expected() - len(rows)
        counts = ", ".join(
            f"{states[state]} {state}"
            for state in ("running", "complete", "pruned", "failed")
            if states[state] or state == "running"
        )
        title = f"{counts}, {waiting} to come · {self._time_left()}"
        best = self._controller.tables.best
        running = [row for row in rows if row["state"] == "running"]
        lines = [
            *(self._line(best[x], "best") for x in self._controller.num_expected if x in best),
            *(self._line(row, "running") for row in running[:_SHOWN_RUNNING]),
        ]
        return Group(Text(title), trial_table(lines))

    def _line(self, row: Mapping[str, Any], label: str) -> TrialLine:
        return TrialLine(
            category=row["category"],
            label=label,
            step=row["step"],
            num_steps=row["num_steps"],
            value=row.get("value"),
            settings={name: row[name] for name in self._searched[row["category"]]},
        )

    def _rows(self) -> list[dict[str, Any]]:
        # A copy: the table is drawn by a thread of its own while trials are added.
        return list(self._controller.tables.trials.values())

    def _num_expected(self) -> int:
        return sum(self._controller.num_expected.values())

    def _time_left(self) -> str:
        ended, tables = self._controller.num_ended, self._controller.tables
        elapsed = time.monotonic() - self._start
        if not ended:
            return f"{shown_duration(elapsed)} so far"
        # Measured in steps, because trials end at different steps and running ones count, too.
        steps_a_trial = tables.num_steps_of_ended / ended
        to_do = max(steps_a_trial * self._num_expected() - tables.num_steps, 0)
        left = elapsed * to_do / max(tables.num_steps - self._steps_before, 1)
        return f"{shown_duration(elapsed)} so far, about {shown_duration(left)} left"
