"""`dfsc-tune confirm` through a real local Ray: a search, its confirmation, and the call again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from dfsc_tune import results
from dfsc_tune.config import TrialConfig
from dfsc_tune.models.teacher_files import shipped_teacher
from dfsc_tune.results.status import status_of
from dfsc_tune.search.ledger import Ledger
from dfsc_tune.settings import load
from tests.support.commands import assert_one_sentence, invoke
from tests.support.processes import run
from tests.support.readmes import columns, documented_columns
from tests.support.trays import CATEGORY, make_tray

SPACE = """\
fixed: {model: {network: tiny, image_size: 128, teacher: teacher.safetensors}}
parameters:
  margin: {type: float, low: 0.0, high: 2.0}
  ema_momentum: {type: free, choices: [0.0, 0.9]}
budget: {num_trials: 3, num_steps: 4, report_interval: 4, grace_period: 4}
"""


@pytest.mark.slow
def test_confirm_retrains_decides_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tray(tmp_path / "data")
    make_tray(tmp_path / "data", "box")
    shutil.copy(shipped_teacher("tiny"), tmp_path / "teacher.safetensors")
    (tmp_path / "space.yaml").write_text(SPACE)
    searched = run(
        "search", "--data", "data", "--category", CATEGORY, "--category", "box",
        "--space", "space.yaml", "--name", "x", cwd=tmp_path,
    )  # fmt: skip
    assert searched.returncode == 0, searched.stderr
    done = run("confirm", "x", "--top", "1", "--seeds", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # Of each trial is told what is searched of its category only, too.
    assert "seed=1 margin=" in done.stderr
    for text in ("search of 3 trials", "objective holdout", "paper ", "margin_0", "± "):
        assert text in done.stdout
    folder = tmp_path / "results" / "x-confirm"
    trials = results.load(folder).trials
    assert set(trials["state"]) == {"complete"}
    assert set(trials["seed"]) == {1, 2}
    table = pd.read_parquet(folder / "confirmed.parquet")
    assert len(trials) == 2 * len(table)
    searched_columns = {"margin": "float64", "ema_momentum": "float64"}
    assert columns(table) == documented_columns("confirmed") | searched_columns
    table = table[table["category"] == CATEGORY]
    (winner,) = table[table["winner"]].to_dict("records")
    assert 0 <= winner["report_auroc"] <= 1
    assert table[~table["setting"].isin(["paper", winner["setting"]])]["report_auroc"].isna().all()
    best = load(folder / "best" / f"{CATEGORY}.yaml", TrialConfig)
    assert (best.loss.margin, best.seed) == (winner["margin"], 1)
    assert "fresh seeds" in (folder / "best" / f"{CATEGORY}.yaml").read_text()
    ledger = Ledger(tmp_path / "results" / "x")
    assert_one_sentence(invoke("confirm", tmp_path / "results" / "x"), "still running")
    ledger.close()
    before = trials["seconds"].tolist()
    # As if killed with the trainings done. What is finished needs no Ray, so no process of its own.
    monkeypatch.chdir(tmp_path)
    (folder / "scores.parquet").unlink()
    *events, published, ended = (folder / "ledger.jsonl").read_text().splitlines(keepends=True)
    assert "published" in published
    assert "ended" in ended
    (folder / "ledger.jsonl").write_text("".join(events))
    again = invoke("confirm", "x", "--top", "1", "--seeds", "2")
    assert again.stdout == done.stdout
    assert status_of(results.load(folder)).ended
    assert set(results.load(folder).scores["category"]) == {CATEGORY, "box"}
    assert results.load(folder).trials["seconds"].tolist() == before
    places = {"data": "moved", "teacher.safetensors": "moved.safetensors"}
    for then, now in places.items():
        Path(then).rename(now)
    moved = invoke(
        "confirm", "x", "--top", "1", "--seeds", "2",
        "--data", "moved", "--teacher", "moved.safetensors",
    )  # fmt: skip
    assert moved.stdout == done.stdout
    best = load(folder / "best" / f"{CATEGORY}.yaml", TrialConfig)
    assert best.data == str(Path("moved").resolve())
    assert best.model.teacher == str(Path("moved.safetensors").resolve())
    for then, now in places.items():
        Path(now).rename(then)
    assert_one_sentence(invoke("confirm", "x", "--seeds", "3"), "other settings")
    assert_one_sentence(invoke("confirm", "x-confirm"), "not made by a search")
    assert_one_sentence(invoke("resume", "x-confirm"), "`dfsc-tune confirm x --top 1 --seeds 2")
    told = invoke("best", "x-confirm")
    assert "after run x" in told.stdout
    assert all(line.strip() in told.stdout for line in done.stdout.splitlines() if "±" in line)
    # A category that cannot be decided does not keep the other from it.
    of_paper = (trials["category"] == CATEGORY) & (trials["margin"] == 1.0) & (trials["seed"] == 1)
    trials.loc[of_paper, "state"] = "failed"
    trials.to_parquet(folder / "trials.parquet")
    (folder / "confirmed.parquet").unlink()
    assert_one_sentence(
        invoke("confirm", "x", "--top", "1", "--seeds", "2"), f"{CATEGORY}: the paper's setting"
    )
    assert set(pd.read_parquet(folder / "confirmed.parquet")["category"]) == {"box"}
    told = invoke("best", "x-confirm").stdout
    assert f"{CATEGORY}.yaml" not in told
    assert f"{CATEGORY}: not decided" in told
