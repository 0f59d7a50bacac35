"""A Ray head with a token on the loopback, started by `ray start`, ended by its own pids."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_RAY = [sys.executable, "-m", "ray.scripts.scripts"]
_START_SECONDS = 90


@dataclass(frozen=True)
class Head:
    """A head that runs."""

    address: str
    """For `ray.init`."""
    dashboard: str
    environment: dict[str, str]
    """With its token, for processes that shall talk to it."""


@contextmanager
def local_head(folder: Path, *arguments: str, **environment: str) -> Iterator[Head]:
    """Runs a head, and ends it and all that it has started.

    Args:
        folder: becomes the home of who runs it, with the token.
        arguments: more of them for `ray start`.
        environment: more for it.
    """
    home = folder / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("t" * 64)
    scratch = tempfile.mkdtemp(prefix="head_")  # Ray's sockets want a short path.
    port, dashboard, agent = 26379, 28265, 28266
    inherited = {key: x for key, x in os.environ.items() if not key.startswith(("RAY_", "XDG_"))}
    environment = (
        inherited
        | environment
        | {
            "HOME": str(home),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            # Keeps Ray's ports on the loopback.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }
    )
    command = [
        *_RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}", f"--temp-dir={scratch}", *arguments,
    ]  # fmt: skip
    log = (folder / "head.log").open("w")
    process = subprocess.Popen(
        command, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    head = Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", environment)
    try:
        _wait(process, head.dashboard, folder / "head.log")
        yield head
    finally:
        log.close()
        _end(process, scratch)


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=2)
        except urllib.error.HTTPError as refusal:
            if refusal.code in (401, 403):
                # It answers, and wants its token.
                return
        except OSError:
            time.sleep(0.3)
        else:
            raise AssertionError("the dashboard lets anyone in")


def _end(process: subprocess.Popen[bytes], scratch: str) -> None:
    """Ends the launcher, which ends what it has started, and whatever of that is still there."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            # Only ours name this folder.
            if re.search(re.escape(scratch), words):
                os.kill(int(entry.name), signal.SIGKILL)
    shutil.rmtree(scratch, ignore_errors=True)
