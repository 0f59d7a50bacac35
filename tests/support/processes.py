"""Commands run as a user does, in processes of their own, and all that these have started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

ENVIRONMENT = os.environ | {
    # Keeps Ray's ports on the loopback.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "COLUMNS": "200",
}


def start(*arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from dfsc_tune.cli import app; app()", *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    process = start(*arguments, cwd=cwd)
    stdout, stderr = process.communicate(timeout=300)
    assert "Traceback" not in stderr, stderr
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


def session_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that a started command and its children began, Ray's too."""
    found = []
    for each in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getsid(each.pid) == process.pid and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
    return found


def kill_tree(pid: int) -> None:
    """SIGKILL for a process and all below it."""
    with suppress(psutil.NoSuchProcess):
        ancestor = psutil.Process(pid)
        for victim in (ancestor, *ancestor.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                victim.kill()


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port
