"""The package's face: what it offers, and what importing it does not load."""

from __future__ import annotations

import subprocess
import sys

import dfsc_tune


def test_every_public_name_is_there() -> None:
    for name in dfsc_tune.__all__:
        assert getattr(dfsc_tune, name).__name__ == name


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, dfsc_tune; print({'torch', 'ray', 'pandas', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_analysis_interface_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys, dfsc_tune.results, dfsc_tune.results.progress, dfsc_tune.results.confirmed; "
        "print({'torch', 'ray', 'skimage', 'sklearn', 'optuna'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
