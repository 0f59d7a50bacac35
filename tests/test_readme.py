"""The READMEs: commands exist, YAML loads, examples run, links lead on, tables fit the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, get_args

import duckdb
import pandas as pd
import pytest
import yaml
from pydantic import BaseModel

from dfsc_tune.config import SEARCHABLE, ObjectiveConfig, TrialConfig
from dfsc_tune.results import load
from dfsc_tune.settings import loads
from dfsc_tune.spaces.sampler import SamplerName
from dfsc_tune.spaces.space import Budget, Resources, SearchSpace
from tests.support.commands import invoke
from tests.support.readmes import (
    BLOCKS,
    COMMANDS,
    LINES,
    PAGES,
    ROOT,
    block,
    columns,
    documented_columns,
    rows_below,
)
from tests.support.synthetic_run import make_run


def anchors(text: str) -> set[str]:
    """What links within a page can name: its headings, as GitHub makes anchors of them."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_first_block_holds_the_two_commands() -> None:
    language, text = BLOCKS[0]
    main, tests = text.splitlines()
    assert language == "sh"
    assert main.endswith("dfsc-tune search --category screw_bag")
    assert tests.endswith("pytest")


@pytest.mark.parametrize("line", LINES)
def test_commands_parse(line: str) -> None:
    words = shlex.split(line)[1:]
    path = next(tuple(words[:n]) for n in (1, 2) if tuple(words[:n]) in COMMANDS)
    command = COMMANDS[path]
    # Parsing alone runs nothing, but refuses unknown options and missing arguments.
    context = command.make_context(" ".join(path), words[len(path) :])
    assert context.params


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_stands_in_a_readme(path: tuple[str, ...]) -> None:
    result = invoke(*path, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output
    assert f"dfsc-tune {' '.join(path)} " in " \n".join((*LINES, ""))


@pytest.mark.parametrize("name", [*PAGES, ".github/CONTRIBUTING.md"])
def test_links_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text(encoding="utf-8"))
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_the_yaml_loads() -> None:
    space = loads(block("yaml space"), SearchSpace, "README")
    assert space.for_category("screw_bag").parameters["margin"].bounds() == (1.0, 2.0)
    trial = loads(block("yaml trial"), TrialConfig, "README")
    assert trial.train.autoencoder_augmentation
    assert yaml.safe_load(block("yaml dataset"))["defect_types"]


def test_every_column_is_documented_with_its_dtype(tmp_path: Path) -> None:
    run = load(make_run(tmp_path))
    for name, frame in (("trials", run.trials), ("reports", run.reports), ("scores", run.scores)):
        assert documented_columns(name) == columns(frame)


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
    exec(block("python settings"), {})
    assert "pushpins 60" in capsys.readouterr().out
    exec(by_duckdb, {})
    shown = capsys.readouterr().out
    assert all(f"{value:.6f}"[:7] in shown for value in best["value"])
    exec(table_3, names)
    # The made-up AUROC is highest at a margin of 0.8.
    assert names["table"].loc["pushpins"].idxmax() == 1.0
    assert names["paper"].loc["pushpins", 0.4] == 97.7


def test_every_column_of_the_paper_s_tables_is_documented() -> None:
    table = pd.read_parquet(ROOT / "results" / "reference" / "builtin_tables" / "table3.parquet")
    assert columns(table) == documented_columns("table")


def test_every_setting_is_documented_with_its_default() -> None:
    documented = {
        cells[0].strip("| `"): (cells[1], cells[2], cells[3] == "yes")
        for cells in rows_below("setting | group | default | searched |")
    }
    trial = TrialConfig(category="any")
    expected = {
        name: (group, shown(value), name in SEARCHABLE)
        for group in ("model", "loss", "train", "score")
        for name, value in getattr(trial, group)
        # These two belong to a space's budget.
        if name not in ("num_steps", "report_interval")
    } | {"seed": ("–", "0", True)}
    assert documented == expected


@pytest.mark.parametrize(
    ("group", "settings"),
    [("objective", ObjectiveConfig), ("budget", Budget), ("resources", Resources)],
)
def test_every_key_of_a_space_is_documented_with_its_default(
    group: str, settings: type[BaseModel]
) -> None:
    documented = {cells[0].strip("| `"): cells[1] for cells in rows_below(f"`{group}` | default |")}
    assert documented == {
        name: "needed" if field.is_required() else shown(field.default)
        for name, field in settings.model_fields.items()
    }


def shown(value: object) -> str:
    """A setting's value as the table of settings has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.10f}".rstrip("0") + ("0" if value.is_integer() else "")
    if isinstance(value, tuple) and value:
        return ", ".join(map(str, value))
    return "none" if value in (None, ()) else str(value)


def test_every_sampler_is_documented() -> None:
    documented = [cells[0].split("`")[1] for cells in rows_below("`sampler` |")]
    assert sorted(documented) == sorted(get_args(SamplerName))


def test_shipped_files_are_documented() -> None:
    spaces = [cells[0].split("`")[1] for cells in rows_below("`--space` |")]
    assert sorted(spaces) == sorted(path.stem for path in (ROOT / "search_spaces").glob("*.yaml"))
    named = re.findall(r"`([\w.]+)`", "".join(cells[0] for cells in rows_below("here |")))
    shipped = {path.name for path in (ROOT / "cluster").iterdir()} - {"README.md"}
    assert sorted(named) == sorted(shipped)
