"""Runs side by side: pairing by image, what is said where it cannot be done, table and page."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from dfsc_tune.errors import UserError
from dfsc_tune.metrics import image_auroc_difference
from dfsc_tune.pages.comparison import compare_runs, comparison_figures, comparison_table
from dfsc_tune.pages.page import write_comparison
from dfsc_tune.results import Run, load, write_settings, write_table
from tests.support.commands import invoke
from tests.support.synthetic_run import CATEGORY, KINDS, dataset, make_run, run_settings

COUNTS = dict.fromkeys(KINDS, 30)


def with_scores(folder: Path, change: float, dropped: int = 0) -> Path:
    """Raises the scores of a run's anomalous images, and drops some images."""
    scores = load(folder).scores
    scores.loc[scores["kind"] != "good", "score"] += change
    kept = scores[~scores["image"].isin(scores["image"].unique()[:dropped])]
    write_table(folder, "scores.parquet", kept.to_dict("records"))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Three runs on the same images: a first, a better one, and one that kept fewer images."""
    make_run(tmp_path / "first")
    with_scores(make_run(tmp_path / "better"), 1.0)
    with_scores(make_run(tmp_path / "fewer"), 1.0, dropped=10)
    return [load(tmp_path / name) for name in ("first", "better", "fewer")]


def best(run: Run) -> pd.DataFrame:
    return run.scores[run.scores["role"] == "best"].set_index("image")


def test_runs_on_the_same_images_are_paired(runs: list[Run]) -> None:
    (comparison,) = compare_runs(runs)
    first, better, fewer = comparison.entries
    assert first.gap is None
    expected = image_auroc_difference(
        best(runs[1])["score"], best(runs[0])["score"], best(runs[0])["kind"].tolist()
    )
    assert better.gap is not None
    assert (better.gap.value, better.gap.p_value) == (expected.value, expected.p_value)
    assert better.gap.num_images == 90
    # Only images that both runs kept from their searches count.
    assert fewer.gap is not None
    assert fewer.gap.num_images == 80
    assert comparison.notes == []


def test_runs_on_other_images_are_not_paired_and_say_so(runs: list[Run], tmp_path: Path) -> None:
    settings = run_settings(datasets={CATEGORY: dataset(fingerprint="1" * 32)})
    write_settings(tmp_path / "better", settings)
    (comparison,) = compare_runs([runs[0], load(tmp_path / "better")])
    (paired,) = compare_runs(runs[:2])
    gap, sharper = comparison.entries[1].gap, paired.entries[1].gap
    assert gap is not None
    assert sharper is not None
    assert gap.p_value is None
    assert gap.value == pytest.approx(sharper.value)
    assert gap.interval.low < gap.value < gap.interval.high
    # The images' luck counts twice.
    width = gap.interval.high - gap.interval.low
    assert width > sharper.interval.high - sharper.interval.low
    assert "different images" in comparison.notes[0]
    assert comparison_table(comparison).rows[1][5] == "not paired"


def test_only_shared_categories_are_compared(tmp_path: Path) -> None:
    both = load(make_run(tmp_path / "both", categories=(CATEGORY, "box")))
    tray = load(make_run(tmp_path / "tray"))
    box = load(make_run(tmp_path / "box", categories=("box",)))
    found = {x.category: len(x.entries) for x in compare_runs([both, tray, box])}
    assert found == {CATEGORY: 2, "box": 2}
    with pytest.raises(UserError, match="share no category"):
        compare_runs([tray, box])
    with pytest.raises(UserError, match="at least two"):
        compare_runs([tray])
    with pytest.raises(UserError, match="twice"):
        compare_runs([tray, tray])


def test_what_makes_numbers_incomparable_is_noted(runs: list[Run], tmp_path: Path) -> None:
    datasets = {CATEGORY: dataset(teacher_sha256="1" * 64, objective="oracle")}
    settings = run_settings(objective={"name": "oracle"}, datasets=datasets)
    write_settings(tmp_path / "better", settings)
    write_settings(tmp_path / "empty", run_settings())
    others = [load(tmp_path / "better"), load(tmp_path / "empty")]
    (comparison,) = compare_runs([runs[0], *others])
    text = " ".join(comparison.notes)
    assert "better reports on the images it selected on (oracle): optimistic" in text
    assert "different teachers" in text
    assert "empty has no scores" in text
    assert comparison_table(comparison).rows[2][1:6] == ["–"] * 5


def test_the_page_holds_table_and_figures(runs: list[Run], tmp_path: Path) -> None:
    comparisons = compare_runs(runs)
    write_comparison(comparisons, runs, tmp_path / "compared.html")
    page = (tmp_path / "compared.html").read_text(encoding="utf-8")
    assert page.count("data-figure=") >= 2
    for cell in comparison_table(comparisons[0]).rows[1][:3]:
        assert cell in page


def test_runs_of_one_name_are_both_drawn(tmp_path: Path) -> None:
    runs = [load(make_run(tmp_path / folder / "nightly")) for folder in ("here", "there")]
    (comparison,) = compare_runs(runs)
    aurocs, margins = comparison_figures(comparison, runs)
    assert [len(trace.x) for trace in aurocs.data] == [2, 2, 2]
    assert [trace.name for trace in margins.data] == [str(run.folder) for run in runs]


def test_the_command_prints_a_table_or_json(runs: list[Run], tmp_path: Path) -> None:
    command = ["compare", "first", "better", "--results", str(tmp_path)]
    shown = invoke(*command)
    assert shown.exit_code == 0, shown.output
    assert "above the first" in shown.stdout
    (found,) = json.loads(invoke(*command, "--json").stdout)
    assert found["entries"][1]["gap"]["num_images"] == 90
    replaced = invoke(*command, "--html", str(tmp_path / "first" / "scores.parquet"))
    assert replaced.exit_code == 2
    assert "--html would replace" in replaced.stderr
    wrong = invoke(*command[:2], *command[3:])
    assert wrong.exit_code == 2
    assert "at least two runs" in wrong.stderr
