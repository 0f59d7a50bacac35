"""The short fault test: the long one is `python -m tests.faults --times 50`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.compare import differences
from tests.faults.faults import disturb
from tests.faults.search import Session, prepare

pytestmark = pytest.mark.slow


def test_a_search_that_is_killed_again_and_again_ends_as_if_undisturbed(tmp_path: Path) -> None:
    prepare(tmp_path)
    reference = Session(tmp_path, "reference")
    assert reference.wait() == 0, log(tmp_path, "reference")
    for fault, moment in (("tear_checkpoint", 2.0), ("kill_driver", 1.0), ("kill_trial", 0.5)):
        assert disturb(tmp_path, "run", fault, moment), log(tmp_path, "run")
    assert Session(tmp_path, "run").wait() == 0, log(tmp_path, "run")
    results = tmp_path / "results"
    assert differences(results / "reference", results / "run") == []
    assert "Traceback" not in log(tmp_path, "run")


def log(work: Path, run: str) -> str:
    return (work / f"{run}.log").read_text()
