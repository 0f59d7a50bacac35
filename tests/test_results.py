"""A run's folder: tables, what counts as best, what the summary says, damage."""

from __future__ import annotations

import errno
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfsc_tune import results
from dfsc_tune.config import TrainConfig, TrialConfig
from dfsc_tune.errors import UserError
from dfsc_tune.metrics import Interval
from dfsc_tune.progress import Progress
from dfsc_tune.results import SCHEMAS, SCORES, RunTables, files, write_settings, write_table
from tests.support.commands import invoke
from tests.support.synthetic_run import dataset, run_settings

COUNTS = {"good": 20, "logical": 10, "structural": 10}
SETTINGS = run_settings(
    searched={"tray": ["margin"]}, datasets={"tray": dataset(selection=COUNTS, report=COUNTS)}
)
CONFIG = TrialConfig(
    category="tray", train=TrainConfig(num_steps=20, report_interval=10, extra_ema_momenta=(0.0,))
)


def progress(step: int, value: float) -> Progress:
    aurocs = {"auroc_logical": value - 0.1, "auroc_structural": value + 0.1, "auroc_mean": value}
    return Progress(step, value, {0.99: aurocs, 0.0: aurocs}, {"total": 1.5}, seconds=step / 10)


@pytest.fixture
def tables(tmp_path: Path) -> RunTables:
    """Three trials: one complete, one stopped early at a higher value, one failed."""
    write_settings(tmp_path, SETTINGS)
    tables = RunTables(tmp_path)
    for name, role in (("a", "sampler"), ("b", "paper"), ("c", "sampler")):
        tables.start(name, CONFIG, role)
    tables.report("a", progress(10, 0.8))
    tables.report("a", progress(20, 0.7))
    tables.end("a", "complete")
    tables.report("b", progress(10, 0.89))
    tables.end("b", "pruned")
    tables.end("c", "failed", "a loss became nan")
    tables.write()
    return tables


def scores(separation: float, role: str, seed: int = 0) -> list[dict[str, object]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "category": "tray",
            "trial": "a",
            "role": role,
            "image": f"test/{kind}/{index:03d}.png",
            "kind": kind,
            "defect_type": kind,
            "score": float(rng.normal(0 if kind == "good" else separation)),
            "threshold": 1.0,
        }
        for kind in ("good", "logical", "structural")
        for index in range(30)
    ]


def test_tables_have_the_documented_columns_and_a_schema_version(
    tables: RunTables, tmp_path: Path
) -> None:
    write_table(tmp_path, SCORES, scores(1.0, "best"))
    for name, schema in SCHEMAS.items():
        stored = pq.read_schema(tmp_path / name)
        assert stored.names == schema.names
        assert stored.types == schema.types
        assert stored.metadata[b"dfsc_tune_schema"] == results.SCHEMA_VERSION.encode()


def test_rows_follow_the_trials(tables: RunTables, tmp_path: Path) -> None:
    run = results.load(tmp_path)
    trials = run.trials.set_index("trial")
    assert trials["state"].to_dict() == {"a": "complete", "b": "pruned", "c": "failed"}
    a = trials.loc["a"]
    assert (a["value"], a["step"], a["best_value"], a["best_step"]) == (0.7, 20, 0.8, 10)
    assert (a["auroc_logical"], a["seconds"]) == (pytest.approx(0.6), 2.0)
    assert trials.loc["c", "error"] == "a loss became nan"
    assert len(run.reports) == 6
    assert run.reports["own_momentum"].sum() == 3


def test_tallies_follow_the_trials(tables: RunTables) -> None:
    assert tables.best["tray"]["trial"] == "a"
    assert (tables.num_steps, tables.num_steps_of_ended) == (30, 30)
    tables.start("d", CONFIG, "sampler")
    tables.report("d", progress(20, 0.71))
    assert (tables.num_steps, tables.num_steps_of_ended) == (50, 30)
    tables.end("d", "complete")
    assert (tables.num_steps, tables.num_steps_of_ended) == (50, 50)
    assert tables.best["tray"]["trial"] == "d"
    # Worse, or not at the full budget: neither is best.
    for name, value, state in (("e", 0.70, "complete"), ("f", 0.9, "interrupted")):
        tables.start(name, CONFIG, "sampler")
        tables.report(name, progress(20, value))
        tables.end(name, state)
    assert tables.best["tray"]["trial"] == "d"
    assert (tables.num_steps, tables.num_steps_of_ended) == (90, 70)


def test_reports_of_all_writes_are_in_the_table(tables: RunTables, tmp_path: Path) -> None:
    tables.report("b", progress(20, 0.9))
    for _ in range(2):
        tables.write()
        reports = results.load(tmp_path).reports
        own = reports[reports["own_momentum"]]
        assert list(zip(own["trial"], own["step"], strict=True)) == [
            ("a", 10), ("a", 20), ("b", 10), ("b", 20),
        ]  # fmt: skip


def test_a_better_trial_is_not_told_with_the_numbers_of_the_one_before(
    tables: RunTables, tmp_path: Path
) -> None:
    write_table(tmp_path, SCORES, scores(3.0, "best"))
    assert results.summaries(results.load(tmp_path))[0].trial == "a"
    tables.start("d", CONFIG, "sampler")
    tables.report("d", progress(20, 0.71))
    tables.end("d", "complete")
    tables.write()
    assert results.summaries(results.load(tmp_path)) == []


def test_best_is_the_last_value_among_full_budget_trials(tables: RunTables, tmp_path: Path) -> None:
    best = results.best_trials(results.load(tmp_path).trials)
    # b was higher, and so was a earlier: neither counts.
    assert best["trial"].tolist() == ["a"]
    assert best["value"].tolist() == [0.7]


def test_values_that_are_no_numbers_are_never_best() -> None:
    frame = pd.DataFrame(
        {"category": ["x", "x"], "trial": ["a", "b"], "state": "complete", "value": [np.nan, 0.5]}
    )
    assert results.best_trials(frame)["trial"].tolist() == ["b"]


def test_a_run_without_scores_has_no_summary(tables: RunTables, tmp_path: Path) -> None:
    assert results.summaries(results.load(tmp_path)) == []


def test_the_summary_is_of_the_report_part(tables: RunTables, tmp_path: Path) -> None:
    rows = scores(1.5, "best") + scores(1.5, "paper", seed=1)
    write_table(tmp_path, SCORES, rows)
    (summary,) = results.summaries(results.load(tmp_path))
    assert summary.settings == {"margin": 1.0}
    assert summary.num_images == {"good": 30, "logical": 30, "structural": 30}
    assert summary.intervals["mean"].low < summary.aurocs["auroc_mean"]
    assert summary.selection_value == 0.7
    assert summary.selection_interval.low < 0.7 < summary.selection_interval.high
    text = "\n".join(results.describe(summary))
    assert "unseen" in text
    assert "no difference beyond noise" in text


def test_a_clear_gain_is_called_real(tables: RunTables, tmp_path: Path) -> None:
    write_table(tmp_path, SCORES, scores(3.0, "best") + scores(0.0, "paper", seed=1))
    (summary,) = results.summaries(results.load(tmp_path))
    assert summary.gains["paper"].value > 0.3
    assert "margin_0" not in summary.gains
    assert "a real difference" in "\n".join(results.describe(summary))


def test_a_gain_whose_interval_holds_0_is_not_called_real(
    tables: RunTables, tmp_path: Path
) -> None:
    write_table(tmp_path, SCORES, scores(3.0, "best") + scores(0.0, "paper", seed=1))
    (summary,) = results.summaries(results.load(tmp_path))
    gain = replace(summary.gains["paper"], p_value=0.04, interval=Interval(-0.01, 0.7, 0.95))
    unsure = replace(summary, gains={"paper": gain})
    assert "no difference beyond noise" in "\n".join(results.describe(unsure))


@pytest.mark.parametrize(("separation", "at_chance"), [(0.0, True), (2.0, False)])
def test_numbers_at_chance_are_called_so(
    tables: RunTables, tmp_path: Path, separation: float, at_chance: bool
) -> None:
    write_table(tmp_path, SCORES, scores(separation, "best"))
    (summary,) = results.summaries(results.load(tmp_path))
    assert ("chance" in "\n".join(results.describe(summary))) == at_chance


def test_it_says_so_when_nothing_can_be_said_of_a_gain(tables: RunTables, tmp_path: Path) -> None:
    write_table(tmp_path, SCORES, scores(1.0, "best"))
    (summary,) = results.summaries(results.load(tmp_path))
    assert "was not trained to the full budget" in "\n".join(results.describe(summary))
    tuning_lost = "\n".join(results.describe(replace(summary, role="paper")))
    assert "tuning gained nothing" in tuning_lost


def test_tables_of_another_schema_are_refused(tables: RunTables, tmp_path: Path) -> None:
    table = pq.read_table(tmp_path / "trials.parquet")
    later = table.replace_schema_metadata({b"dfsc_tune_schema": b"99"})
    pq.write_table(later, tmp_path / "trials.parquet")
    with pytest.raises(UserError, match="schema version 99"):
        results.load(tmp_path)


def test_tables_of_an_older_schema_are_read(
    tables: RunTables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trials.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["node", "best_step"]), path)
    monkeypatch.setattr(files, "SCHEMA_VERSION", "9")
    trials = results.load(tmp_path).trials
    assert trials.columns.tolist() == SCHEMAS["trials.parquet"].names
    assert trials[["node", "best_step"]].isna().all(axis=None)
    assert trials["value"].notna().sum() == 2


def test_dtypes_do_not_depend_on_the_rows(tables: RunTables, tmp_path: Path) -> None:
    full = results.load(tmp_path)
    write_table(tmp_path, "trials.parquet", [])
    empty = results.load(tmp_path)
    assert full.trials["best_step"].isna().sum() == 1
    assert empty.trials.dtypes.equals(full.trials.dtypes)


def test_oracle_numbers_are_marked_wherever_they_appear(tables: RunTables, tmp_path: Path) -> None:
    write_settings(tmp_path, run_settings(objective={"name": "oracle"}))
    write_table(tmp_path, SCORES, scores(1.0, "best"))
    (summary,) = results.summaries(results.load(tmp_path))
    assert "SELECTED ON (oracle: optimistic)" in results.describe(summary)[0]
    assert "optimistic" not in results.describe(replace(summary, objective="holdout"))[0]


def test_a_perfect_selection_value_is_not_called_certain(tmp_path: Path) -> None:
    write_settings(tmp_path, SETTINGS)
    tables = RunTables(tmp_path)
    tables.start("a", CONFIG, "paper")
    tables.report("a", progress(20, 0.8))
    tables.trials["a"] |= {"value": 1.0, "auroc_logical": 1.0, "auroc_structural": 1.0}
    tables.end("a", "complete")
    tables.write()
    write_table(tmp_path, SCORES, scores(9.0, "best"))
    (summary,) = results.summaries(results.load(tmp_path))
    assert summary.selection_interval.low < 0.97


def test_a_run_that_fails_at_its_start_says_why_even_if_its_folder_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_empty(path: object, **settings: object) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr("os.rmdir", not_empty)
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="no such data"), results.removed_on_error(tmp_path / "x"):
        raise UserError("no such data")


def test_runs_are_found_by_name_and_by_path(tables: RunTables, tmp_path: Path) -> None:
    assert results.find_run(tmp_path.parent, tmp_path.name) == tmp_path
    assert results.find_run(Path("elsewhere"), str(tmp_path)) == tmp_path
    assert tmp_path.name in results.list_runs(tmp_path.parent)


def test_damaged_runs_are_refused(tables: RunTables, tmp_path: Path) -> None:
    (tmp_path / "trials.parquet").write_bytes(b"PAR1 and then rubbish")
    with pytest.raises(UserError, match="damaged"):
        results.load(tmp_path)


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("step", ["x", "y", "z"], "Failed to parse"),
        ("state", None, "column state has nulls"),
        ("trial", ["../victim", "b", "c"], "must be the name of a single file"),
        ("category", ["other", "tray", "tray"], "category 'other' is not the run's"),
        ("auroc_mean", [5.0, 0.5, None], "column auroc_mean has values outside 0 to 1"),
    ],
)
def test_a_table_with_wrong_values_is_one_sentence(
    tables: RunTables, tmp_path: Path, column: str, values: list[object] | None, told: str
) -> None:
    table = pq.read_table(tmp_path / "trials.parquet")
    found = pa.nulls(3) if values is None else pa.array(values)
    table = table.drop_columns([column]).append_column(column, found)
    pq.write_table(table, tmp_path / "trials.parquet")
    with pytest.raises(UserError, match=rf"trials\.parquet is damaged \(.*{told}"):
        results.load(tmp_path)


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "name: of another program", "\xff"])
def test_a_file_that_is_no_run_hides_no_other(tmp_path: Path, text: str) -> None:
    for name in ("good", "other"):
        (tmp_path / name).mkdir()
    write_settings(tmp_path / "good", SETTINGS)
    (tmp_path / "other" / "run.yaml").write_text(text, encoding="latin-1")
    listed = invoke("runs", "--results", tmp_path)
    assert listed.exit_code == 0
    assert listed.stdout.startswith("good ")
    assert re.fullmatch("warning: .*other/run.yaml.*\n", listed.stderr)


def test_a_reader_sees_whole_files_while_a_run_goes_on(tmp_path: Path) -> None:
    write_settings(tmp_path, SETTINGS)
    tables = RunTables(tmp_path)
    tables.start("a", CONFIG, "paper")
    for step in range(1, 30):
        tables.report("a", progress(step, 0.5))
        tables.write()
        assert len(results.load(tmp_path).reports) == 2 * step
    assert {path.suffix for path in tmp_path.iterdir()} == {".yaml", ".parquet"}
