"""Describes what a run was made with, for `run.yaml`: versions, git commit and hardware."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from dfsc_tune import __version__

_PACKAGES = ("ray", "optuna", "numpy", "pandas", "pyarrow", "scikit-learn")


def describe_machine() -> dict[str, Any]:
    """Returns versions, git commit and hardware of this machine."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "versions": {
            "python": platform.python_version(),
            # Includes the build, such as +cu130, which a wheel's own version may leave out.
            "torch": str(torch.__version__),
            "dfsc-tune": __version__,
            **{x: _version(x) for x in _PACKAGES},
        },
        "git_commit": _git_commit(),
        "hardware": {
            "platform": platform.platform(),
            "processor": _processor_name(),
            "num_cpus": os.cpu_count(),
            "gpus": gpus,
        },
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str | None:
    """Returns None if it is not installed: a single training needs neither Ray nor Optuna."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
