"""The study opens in Optuna's own dashboard by the documented line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.support.made_up_study import play, study
from tests.support.processes import free_port
from tests.support.readmes import DOCS

COMMAND = "optuna-dashboard results/nightly/study.journal"
DASHBOARD = Path(sys.executable).with_name("optuna-dashboard")


def fetch(url: str, process: subprocess.Popen[bytes], seconds: float = 120) -> bytes:
    """The page, once the server answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, "the dashboard has ended"
        try:
            with urllib.request.urlopen(url) as answer:
                return bytes(answer.read())
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(url)


@pytest.mark.slow
@pytest.mark.skipif(not DASHBOARD.exists(), reason="needs optuna-dashboard (extra analysis)")
def test_the_one_liner_of_the_readme_shows_the_study(tmp_path: Path) -> None:
    assert COMMAND in DOCS
    journal = tmp_path / "results" / "nightly" / "study.journal"
    journal.parent.mkdir(parents=True)
    play(study(journal=journal))
    port = free_port()
    process = subprocess.Popen(
        [DASHBOARD, *COMMAND.split()[1:], "--port", str(port)],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        base = f"http://127.0.0.1:{port}"
        found = json.loads(fetch(f"{base}/api/studies", process))["study_summaries"]
        assert [summary["study_name"] for summary in found] == ["run/tray"]
        assert b"Optuna Dashboard" in fetch(f"{base}/dashboard/", process)
        number = found[0]["study_id"]
        shown = json.loads(fetch(f"{base}/api/studies/{number}?after=0", process))
        assert len(shown["trials"]) == 8
    finally:
        process.terminate()
        process.wait()
