"""A report costs the same however many trials there have been: counted, not timed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfsc_tune.config import TrialConfig
from dfsc_tune.search.ledger import Ledger
from dfsc_tune.search.messages import Report
from tests.scale.decisions import Meter, play
from tests.scale.search import (
    NUM_REPORTS,
    large_search,
    never_stopping,
    open_controller,
    report,
)

NUM_TRIALS = 100


class Counter(Meter):
    """Counts the calls of functions and the bytes that are written, instead of seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[tuple[int, int, int]]] = {}

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        num_calls, before = 0, bytes_written()

        def count(frame: Any, event: str, argument: Any) -> None:
            nonlocal num_calls
            num_calls += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            yield
        finally:
            sys.setprofile(None)
        found = (self.num_trials, num_calls, bytes_written() - before)
        self.found.setdefault(what, []).append(found)

    def typical(self, what: str, low: int, high: int) -> np.ndarray:
        """Median calls and bytes while there were so many trials."""
        rows = [row[1:] for row in self.found[what] if low <= row[0] <= high]
        return np.median(rows, axis=0)


def bytes_written() -> int:
    """By this process so far, whether or not they have reached the disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("wchar")))


def trial(settings: TrialConfig) -> list[Report]:
    momenta = settings.train.ema_momenta
    curve = [1 - 1 / (1 + settings.loss.margin + x) for x in range(NUM_REPORTS)]
    return [report(settings, n + 1, dict.fromkeys(momenta, x)) for n, x in enumerate(curve)]


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the kernel counts no bytes here")
def test_a_report_costs_as_much_after_a_hundred_trials_as_after_ten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fdatasync", lambda file: None)
    # The tables are written now and then, for a share of the time that they take: not now.
    monkeypatch.setattr(time, "monotonic", lambda: 1e9)
    request = large_search(tmp_path, NUM_TRIALS, "random")
    folder = tmp_path / request.name
    folder.mkdir()
    counter = Counter()
    with closing(Ledger(folder)) as ledger, never_stopping():
        controller = open_controller(request, ledger)
        for _ in play(controller, trial, counter, num_workers=4):
            pass
        assert controller.is_finished
        controller.close()
    for what in ("report", "line on the terminal"):
        early, late = counter.typical(what, 10, 15), counter.typical(what, 95, NUM_TRIALS)
        assert (late <= 1.1 * early).all(), f"{what}: {early} calls and bytes, then {late}"
    assert len(counter.found["report"]) == NUM_TRIALS * NUM_REPORTS
