"""What deciding costs: all that the driver does at a suggestion and at a report, but for Ray."""

from __future__ import annotations

import heapq
import io
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from rich.console import Console

from dfsc_tune.search.controller import Controller
from dfsc_tune.search.ledger import Ledger
from dfsc_tune.search.live import LiveView
from dfsc_tune.search.messages import Report
from tests.scale.search import CATEGORY, Trials, large_search, open_controller

# Trials of one speed would report in lockstep, which no real ones do.
_SPEED_SPREAD = 0.1


@dataclass(frozen=True)
class Cost:
    """Of one kind of decision, at some number of trials."""

    what: str
    num_trials: int
    count: int
    median: float
    """Seconds by the clock."""
    mean: float
    cpu: float
    """Mean seconds of CPU time."""

    def __str__(self) -> str:
        milliseconds = f"{1e3 * self.median:9.2f} {1e3 * self.mean:9.2f} {1e3 * self.cpu:9.2f}"
        return f"{self.num_trials:6d} {self.what:<20} {milliseconds}  (n = {self.count})"


class Meter:
    """Measures decisions, and keeps how many trials there were at each."""

    def __init__(self) -> None:
        self.num_trials = 0
        self._taken: dict[str, list[tuple[int, float, float]]] = defaultdict(list)

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Measures the block."""
        start, cpu = time.perf_counter(), time.process_time()
        yield
        spent = time.perf_counter() - start, time.process_time() - cpu
        self._taken[what].append((self.num_trials, *spent))

    def costs(self, num_trials: int) -> list[Cost]:
        """What each kind of decision cost in the last tenth of the so many trials."""
        found = []
        for what, taken in self._taken.items():
            numbers, seconds, cpu = np.array(taken).T
            chosen = (numbers > 0.9 * num_trials - 1) & (numbers <= num_trials)
            if count := int(chosen.sum()):
                clock, cpu_mean = seconds[chosen], float(cpu[chosen].mean())
                figures = float(np.median(clock)), float(clock.mean()), cpu_mean
                found.append(Cost(what, num_trials, count, *figures))
        return found


def measure(
    results: Path,
    trials: Trials,
    num_trials: int,
    *,
    sampler: str,
    num_workers: int,
    marks: set[int],
) -> None:
    """Runs a search of so many trials in simulated time, and prints its own cost on the way.

    Args:
        results: the folder for the run.
        trials: what trials report.
        num_trials: of the search.
        sampler: of its space.
        num_workers: how many trials run at once.
        marks: the numbers of trials at which the cost is looked at.
    """
    request = large_search(results, num_trials, sampler)
    folder = results / request.name
    folder.mkdir(parents=True)
    meter, memory_before = Meter(), _memory_mb()
    print(" trials decision               median      mean   CPU mean (milliseconds)")

    def look(controller: Controller) -> None:
        with meter.of("writing the tables"):
            controller.tables.write()
        found = meter.costs(meter.num_trials)
        disk = {x.name: f"{x.stat().st_size / 1e6:.1f}" for x in sorted(folder.glob("*.*"))}
        memory = f"{_memory_mb() - memory_before:.0f} MB more memory than before"
        print(
            "\n".join(map(str, found)), f"       {memory}; MB on disk: {disk}", sep="\n", flush=True
        )

    with closing(Ledger(folder)) as ledger:
        controller = open_controller(request, ledger)
        for _ in play(controller, trials, meter, num_workers):
            if meter.num_trials in marks:
                look(controller)
        controller.close()
    start, memory_before = time.perf_counter(), _memory_mb()
    with closing(Ledger(folder)) as ledger:
        open_controller(request, ledger)
    memory = _memory_mb() - memory_before
    print(f"taken up again in {time.perf_counter() - start:.1f} s; {memory:.0f} MB more memory")


def play(controller: Controller, trials: Trials, meter: Meter, num_workers: int) -> Iterator[None]:
    """Carries out a controller in simulated time, metered; yields at each new trial."""
    chance = np.random.default_rng(0)
    controller.capacity = num_workers
    view = LiveView(controller, {CATEGORY: ["margin"]}, Console(file=io.StringIO()))
    queue: list[tuple[float, str, float, Iterator[Report]]] = []
    now = 0.0
    while True:
        while len(queue) < num_workers:
            with meter.of("suggestion"):
                trial = controller.next_trial()
                if trial is not None:
                    controller.started(trial.name)
            if trial is None:
                break
            meter.num_trials += 1
            yield
            interval = float(np.exp(_SPEED_SPREAD * chance.standard_normal()))
            coming = iter(trials(trial.config))
            heapq.heappush(queue, (now + interval, trial.name, interval, coming))
        if not queue:
            return
        now, name, interval, coming = heapq.heappop(queue)
        report = next(coming)
        with meter.of("report"):
            ends = controller.report(name, report)
            controller.hung()
        if ends:
            with meter.of("line on the terminal"):
                told = SimpleNamespace(config={"trial": name})
                view.on_trial_complete(0, [], told)  # type: ignore[arg-type]
        else:
            heapq.heappush(queue, (now + interval, name, interval, coming))


def _memory_mb() -> float:
    """What this process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6
