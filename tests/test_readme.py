"""The README: its commands exist, its YAML loads, its examples run, its columns are the tables'."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
import yaml
from synthetic_run import make_run
from typer.main import get_command
from typer.testing import CliRunner

from dfsc_tune.cli import app
from dfsc_tune.config import TrialConfig, loads
from dfsc_tune.export import export_detector
from dfsc_tune.predict import predict
from dfsc_tune.prepare import CategoryData
from dfsc_tune.results import load
from dfsc_tune.search.space import SearchSpace
from dfsc_tune.trial import finished_detector, run_trial

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(.*?)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
LINES = [
    line[line.index("dfsc-tune") :]
    for language, block in BLOCKS
    for line in block.splitlines()
    if language == "sh" and "dfsc-tune" in line
]


def block(language: str) -> str:
    (text,) = [text for name, text in BLOCKS if name == language]
    return text


def leaves(command: object, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """All commands of the app by their words."""
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        return {path: command}
    return {
        k: v for name, sub in subcommands.items() for k, v in leaves(sub, (*path, name)).items()
    }


COMMANDS = leaves(get_command(app))


def test_the_first_block_holds_the_two_commands() -> None:
    language, text = BLOCKS[0]
    main, tests = text.splitlines()
    assert language == "sh"
    assert main.endswith("dfsc-tune search --category screw_bag")
    assert tests.endswith("pytest")


@pytest.mark.parametrize("line", LINES)
def test_commands_in_the_readme_parse(line: str) -> None:
    words = shlex.split(line)[1:]
    path = next(tuple(words[:n]) for n in (1, 2) if tuple(words[:n]) in COMMANDS)
    command = COMMANDS[path]
    # Parsing alone runs nothing, but refuses unknown options and missing arguments.
    context = command.make_context(" ".join(path), words[len(path) :])
    assert context.params


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_stands_in_the_readme(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output
    assert f"dfsc-tune {' '.join(path)}" in README


def test_the_yaml_loads() -> None:
    space = loads(block("yaml space"), SearchSpace, "README")
    assert space.for_category("screw_bag").parameters["margin"].bounds() == (1.0, 2.0)
    trial = loads(block("yaml trial"), TrialConfig, "README")
    assert trial.train.autoencoder_augmentation
    assert yaml.safe_load(block("yaml dataset"))["defect_types"]


def test_every_column_stands_in_the_readme_with_its_dtype(tmp_path: Path) -> None:
    run = load(make_run(tmp_path))
    for name, frame in (("trials", run.trials), ("reports", run.reports), ("scores", run.scores)):
        (rows,) = re.findall(rf"^\| `{name}` \| dtype \| \|\n(.*?)(?:\n\n|\Z)", README, re.M | re.S)
        documented = {
            column: cells[2].strip()
            for cells in (row.split("|") for row in rows.splitlines()[1:])
            for column in re.findall(r"`(\w+)`", cells[1])
        }
        # Before pandas 3, text is of dtype object.
        found = {
            column: "string" if str(dtype) in ("str", "object") else str(dtype)
            for column, dtype in frame.dtypes.items()
        }
        assert documented == found


def test_the_analyses_run_and_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "results" / "nightly", categories=("pushpins", "screw_bag"))
    monkeypatch.chdir(tmp_path)
    by_pandas, by_duckdb, table_3 = [
        text for language, text in BLOCKS if language == "python analysis"
    ]
    names: dict[str, Any] = {}
    exec(by_pandas, names)
    best = names["best"].set_index("category")[["margin", "value"]].sort_index()
    sql = duckdb.sql(block("sql")).df().set_index("category")
    pd.testing.assert_frame_equal(best, sql)
    exec(by_duckdb, {})
    shown = capsys.readouterr().out
    assert all(f"{value:.6f}"[:7] in shown for value in best["value"])
    exec(table_3, names)
    # The made-up AUROC is highest at a margin of 0.8.
    assert names["table"].loc["pushpins"].idxmax() == 1.0
    assert names["paper"].loc["pushpins", 0.4] == 97.7


def test_the_exported_model_is_used_as_the_readme_says(
    category_data: CategoryData,
    trial_config: TrialConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_trial(trial_config, category_data.trial, lambda progress: None, tmp_path)
    detector = finished_detector(trial_config, category_data.trial, tmp_path)
    target = tmp_path / "results" / "nightly" / "models" / "my_product" / "model.onnx"
    export_detector(detector, target, "onnx")
    image = category_data.split.report[0].path
    (tmp_path / "incoming").mkdir()
    shutil.copy(image, tmp_path / "incoming" / "001.png")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(block("python onnx"), names)
    (prediction,) = predict(detector, [image])
    assert names["scores"][0] == pytest.approx(prediction.score, abs=1e-4)
    assert names["maps"][0].shape == (96, 128)
    assert capsys.readouterr().out.startswith("anomalous" if prediction.anomalous else "good")


def test_shipped_spaces_stand_in_the_readme() -> None:
    for path in (Path(__file__).parents[1] / "search_spaces").glob("*.yaml"):
        assert f"`{path.stem}`" in README
