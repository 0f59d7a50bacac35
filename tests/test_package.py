"""The package's face: what it offers, and what importing it does not load."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import dfsc_tune

PACKAGE = Path(dfsc_tune.__file__).parent


def test_every_public_name_is_there() -> None:
    for name in dfsc_tune.__all__:
        assert getattr(dfsc_tune, name).__name__ == name


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, dfsc_tune; print({'torch', 'ray', 'pandas', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_analysis_interface_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys, dfsc_tune.results, dfsc_tune.results.status, dfsc_tune.results.confirmed; "
        "print({'torch', 'ray', 'skimage', 'sklearn', 'optuna'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_architecture_page_names_files_that_exist() -> None:
    page = (PACKAGE / "README.md").read_text()
    named = re.findall(r"`([a-z_/]+\.py|[a-z_]+/(?:[a-z_]+/)*)`", page)
    assert len(named) > 30
    # Some are of the run's folder, and not of the package.
    missing = {name for name in named if not (PACKAGE / name).exists()}
    assert missing <= {"models/", "best/", "results/"}


def test_the_architecture_page_draws_the_import_contract() -> None:
    page = (PACKAGE / "README.md").read_text()
    drawn = re.findall(r"^([a-z][a-z |]*?)  +\S", page.split("```")[1], flags=re.MULTILINE)
    contracts = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    layers = contracts["tool"]["importlinter"]["contracts"][0]["layers"]
    assert ["__main__", *drawn] == layers
