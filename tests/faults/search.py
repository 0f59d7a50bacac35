"""A small search that gives the same trials each time, run in processes that can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tests.support.processes import kill_tree
from tests.support.trays import CATEGORY, make_tray

# One trial at a time: what is suggested then depends on nothing but the seed.
SPACE = """\
fixed:
  model: {network: tiny, image_size: 128, teacher: random}
parameters:
  margin: {type: float, low: 0.0, high: 2.0}
  # With the last of them a trial breaks: its losses become no number.
  learning_rate: {type: categorical, choices: [1e-2, 3e-3, 1e-3, 1e30]}
  optimizer: {type: categorical, choices: [adamw, adam]}
  weight_decay: {type: float, low: 1e-6, high: 1e-3, scale: log, when: {optimizer: adamw}}
  ema_momentum: {type: free, choices: [0.0, 0.5, 0.9]}
starting_points: [{learning_rate: 1e30}]
budget: {num_trials: 8, num_steps: 16, report_interval: 2, grace_period: 4, reduction_factor: 2}
resources: {gpus_per_trial: 1}
"""
BREAKING_RATE = 1e30
_ONE_AT_A_TIME = ["--gpus", "1", "--device", "cpu", "--seed", "7"]
LEDGER = "ledger.jsonl"
_COMMAND = [sys.executable, "-c", "from dfsc_tune.cli import app; app()"]
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled"}
_ENVIRONMENT = os.environ | ON_LOOPBACK | {"COLUMNS": "200"}
_POLL_SECONDS = 0.05
_SESSION_SECONDS = 1200


class Session:
    """One process of a run: the first searches, the later ones resume."""

    def __init__(self, work: Path, run: str, address: str | None = None) -> None:
        """Starts it.

        Args:
            work: the folder made by `prepare`.
            run: the run's name.
            address: a Ray cluster, or None for one of its own.
        """
        self.folder = work / "results" / run
        self._before = self.ledger_size()
        if (self.folder / "run.yaml").exists():
            arguments = ["resume", run, "--address", address or "local"]
        else:
            arguments = ["search", "--data", "data", "--category", CATEGORY, "--name", run]
            arguments += ["--space", "space.yaml", *_ONE_AT_A_TIME]
            arguments += ["--address", address] if address else []
        self._log_path = work / f"{run}.log"
        self._log = self._log_path.open("a")
        self._log_size = self._log_path.stat().st_size
        self.process = subprocess.Popen(
            [*_COMMAND, *arguments],
            cwd=work,
            env=_ENVIRONMENT,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def ledger_size(self) -> int:
        """The bytes of the run's ledger."""
        ledger = self.folder / LEDGER
        return ledger.stat().st_size if ledger.exists() else 0

    def wait_until_it_works(self) -> bool:
        """Waits for its first event; whether it came before the end of the process."""
        while self.process.poll() is None:
            if self.ledger_size() > self._before:
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def wait(self) -> int:
        """Waits for the end; the exit status."""
        status = self.process.wait(timeout=_SESSION_SECONDS)
        self._log.close()
        return status

    @property
    def found_no_ray(self) -> bool:
        """Whether Ray did not start within the 30 s that it gives itself: a machine too busy."""
        said = self._log_path.read_bytes()[self._log_size :]
        return b"Ray did not start on this machine" in said

    def kill(self, *, with_children: bool) -> None:
        """Kills the driver, or all of its processes like a machine that goes dark."""
        if with_children:
            kill_tree(self.process.pid)
        else:
            self.process.kill()
        self.wait()

    def kill_trial(self) -> bool:
        """Kills the process of a trial; whether there was one."""
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                if " ".join(child.cmdline()).startswith("ray::ImplicitFunc"):
                    child.kill()
                    return True
        return False


def prepare(work: Path) -> None:
    """Makes the data and the space."""
    make_tray(work / "data", num_test=6)
    (work / "space.yaml").write_text(SPACE)
