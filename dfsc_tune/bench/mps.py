"""A daemon of NVIDIA's Multi-Process Service (MPS), by which processes share a GPU's cores.

Source: NVIDIA, Multi-Process Service, appendices "Tools and Interface Reference" and "Environment
Variables". Without MPS, processes take turns on a GPU.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dfsc_tune.errors import UserError

_CONTROL = "nvidia-cuda-mps-control"
_SECONDS = 60


def has_mps() -> bool:
    """Whether the program that controls MPS is installed."""
    return shutil.which(_CONTROL) is not None


@contextmanager
def private_mps() -> Iterator[None]:
    """Processes started within share their GPU by a daemon of their own, which ends with the block.

    Raises:
        UserError: the daemon does not start, or does not end.
    """
    with tempfile.TemporaryDirectory(prefix="mps_", ignore_cleanup_errors=True) as folder:
        folders = {f"CUDA_MPS_{x}_DIRECTORY": f"{folder}/{x.lower()}" for x in ("PIPE", "LOG")}
        for path in folders.values():
            Path(path).mkdir()
        before = {name: os.environ.get(name) for name in folders}
        os.environ.update(folders)
        try:
            try:
                _run("-d")
                yield
            finally:
                # Whatever happened: a daemon that never started only refuses this.
                _run(text="quit\n", check=False)
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def check_mps_in_use() -> None:
    """Refuses what was measured if no process has asked the block's daemon for a server.

    A process that cannot reach the daemon goes on without it, and says nothing.

    Raises:
        UserError: there is no server.
    """
    if not _run(text="get_server_list\n").split():
        raise UserError("no process used MPS although its daemon ran")


def _run(*arguments: str, text: str = "", check: bool = True) -> str:
    """What the control program answers."""
    # With its choice of GPUs applied by the daemon, a process would apply it again to what is left.
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    try:
        # Into a file: a daemon may keep a pipe open, whose end would then never come.
        with tempfile.TemporaryFile("w+") as answer:
            subprocess.run(
                [_CONTROL, *arguments],
                input=text,
                stdout=answer,
                stderr=answer,
                env=environment,
                check=check,
                text=True,
                timeout=_SECONDS,
            )
            answer.seek(0)
            return answer.read()
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"MPS does not work here: {error}") from error
