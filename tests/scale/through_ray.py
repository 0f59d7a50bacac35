"""What Ray Tune and we cost together: many trials at once that sleep, against the ideal."""

from __future__ import annotations

import functools
import itertools
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from rich.console import Console

from dfsc_tune.results import LEDGER
from dfsc_tune.search import tune
from dfsc_tune.search.ledger import Ledger
from dfsc_tune.search.live import LiveView
from dfsc_tune.search.session import ray_session
from dfsc_tune.settings import validate
from dfsc_tune.spaces.space import SearchSpace
from tests.scale.asleep import sleeping_trial
from tests.scale.search import CATEGORY, NUM_REPORTS, large_search, open_controller


@dataclass(frozen=True)
class Efficiency:
    """How near a search through Ray came to the ideal; times in seconds."""

    num_trials: int
    num_workers: int
    wall_time: float
    """From the first suggestion to the last report, processes' start included."""
    ideal: float
    """The same if nothing but the trials' own work took time."""
    all_at_work: float
    """How long all workers had trials, from the first report of the last one to start."""
    rate: float
    """In that time: how many reports came, as a share of those if nothing else took time."""
    between_trials: list[float]
    """From a trial's last report, as the driver has it, to the next one's begin in that process."""
    cpu_per_report: tuple[float, float]
    """Of the driver, in the first and in the last tenth of the reports while all were at work."""

    def __str__(self) -> str:
        gaps = self.between_trials
        between = f"{np.median(gaps):.3f} ({min(gaps):.3f} to {max(gaps):.3f})" if gaps else "–"
        first, last = (1e3 * x for x in self.cpu_per_report)
        return (
            f"{self.num_trials} trials, {self.num_workers} at a time: wall time "
            f"{self.wall_time:.1f} s, ideal {self.ideal:.1f} s\n"
            f"while all were at work ({self.all_at_work:.1f} s): {self.rate:.1%} of the ideal's "
            f"reports\n"
            f"from one trial to the next in a process: {between} s (n = {len(gaps)})\n"
            f"the driver's CPU time a report: {first:.2f} ms in the first tenth of these, "
            f"{last:.2f} ms in the last"
        )


def measure(results: Path, num_trials: int, *, num_workers: int, seconds: float) -> Efficiency:
    """Runs sleeping trials through Ray on this machine.

    Args:
        results: the folder for the run.
        num_trials: of the search.
        num_workers: how many run at once, each in a process of its own.
        seconds: that a trial sleeps.
    """
    request = large_search(results, num_trials, "random")
    tree = request.space.model_dump()
    tree["resources"] = {"cpus_per_trial": 1, "gpus_per_trial": 1.0}
    space = validate(SearchSpace, tree, source="default")
    # GPUs that are only counted: so many places there are.
    request = replace(request, space=space, gpus=num_workers, device="cpu")
    folder = results / request.name
    folder.mkdir(parents=True)
    asleep = functools.partial(sleeping_trial, seconds=seconds)
    data: Any = {CATEGORY: SimpleNamespace(trial=None)}
    with closing(Ledger(folder)) as ledger, ray_session(request):
        controller = open_controller(request, ledger)
        view = LiveView(controller, {CATEGORY: ["margin"]}, Console(quiet=True))
        with mock.patch.object(tune, "tune_trial", asleep), _cpu_times() as cpu_times:
            tune.run_trials(request, folder, data, controller, view)
        controller.close()
        if isinstance(controller.stopped, Exception):
            raise controller.stopped
    return _efficiency(folder, num_trials, num_workers, seconds, cpu_times)


@contextmanager
def _cpu_times() -> Iterator[list[tuple[float, float]]]:
    """The time and this process's CPU time, twice a second while the block lasts."""
    times: list[tuple[float, float]] = []
    ended = threading.Event()

    def look() -> None:
        while True:
            times.append((time.time(), time.process_time()))
            if ended.wait(0.5):
                return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield times
    finally:
        ended.set()
        thread.join()


def _efficiency(
    folder: Path,
    num_trials: int,
    num_workers: int,
    seconds: float,
    cpu_times: list[tuple[float, float]],
) -> Efficiency:
    events = [json.loads(line) for line in (folder / LEDGER).read_text().splitlines()]
    suggested = [x["at"] for x in events if x["event"] == "suggested"]
    reports = defaultdict(list)
    for event in events:
        if event["event"] == "reported":
            reports[event["trial"]].append(event)
    times = np.array(sorted(x["at"] for of_trial in reports.values() for x in of_trial))
    began = sorted(of_trial[0]["at"] for of_trial in reports.values())
    # The last of the first to come, to the last that was given a place.
    start, end = began[num_workers - 1], suggested[-1]
    came = times[(times > start) & (times <= end)]
    moments, spent = zip(*cpu_times, strict=True)
    tenth = len(came) // 10
    edges = np.interp(came[[0, tenth, -1 - tenth, -1]], moments, spent)
    processes = defaultdict(list)
    for of_trial in reports.values():
        losses = dict(of_trial[-1]["losses"])
        processes[losses["process"]].append((losses["began"], of_trial[-1]["at"]))
    between = []
    for spans in processes.values():
        spans.sort()
        between += [after[0] - before[1] for before, after in itertools.pairwise(spans)]
    return Efficiency(
        num_trials=num_trials,
        num_workers=num_workers,
        wall_time=float(times.max() - suggested[0]),
        ideal=seconds * -(-num_trials // num_workers),
        all_at_work=end - start,
        rate=len(came) * seconds / ((end - start) * num_workers * NUM_REPORTS),
        between_trials=between,
        cpu_per_report=((edges[1] - edges[0]) / tenth, (edges[3] - edges[2]) / tenth),
    )
