"""Deciding whether a setting is better than the paper's, on made-up trainings."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from dfsc_tune.errors import UserError
from dfsc_tune.results.confirmed import CONFIRMED, Confirmed, Decision, decide
from dfsc_tune.search.confirm import Confirmation, _write_table, describe


def trainings(**values: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"setting": setting, "seed": seed, "value": value}
            for setting, found in values.items()
            for seed, value in enumerate(found, start=1)
        ]
    )


def of(found: Decision, setting: str) -> Confirmed:
    return next(x for x in found.settings if x.setting == setting)


def test_a_clear_winner_wins() -> None:
    found = decide(trainings(paper=[0.70, 0.72, 0.71], margin_0=[0.6, 0.6, 0.6], top_1=[0.8] * 3))
    assert (found.best, found.winner) == ("top_1", "top_1")
    assert of(found, "top_1").gain == pytest.approx(0.09)
    assert of(found, "margin_0").gain_interval.high < 0
    assert "beyond the noise" in found.verdict


def test_the_interval_is_students_of_paired_differences() -> None:
    found = of(decide(trainings(paper=[0.5, 0.6, 0.7], top_1=[0.51, 0.62, 0.73])), "top_1")
    # Differences 0.01, 0.02, 0.03: sd 0.01; Student's 97.5 % quantile with 2 degrees is 4.30265.
    half = 4.30265 * 0.01 / math.sqrt(3)
    assert found.gain_interval.low == pytest.approx(0.02 - half, abs=1e-6)
    assert found.gain_interval.high == pytest.approx(0.02 + half, abs=1e-6)
    assert found.sd == pytest.approx(0.11)


def test_within_noise_the_papers_setting_is_kept() -> None:
    found = decide(trainings(paper=[0.70, 0.75, 0.71], top_1=[0.78, 0.70, 0.73]))
    assert (found.best, found.winner) == ("top_1", "paper")
    assert "within noise of the paper's setting, which is kept" in found.verdict


@pytest.mark.parametrize("other", [[0.6, 0.7], [0.8, 0.9]])
def test_the_papers_setting_itself_best_or_equal_is_kept(other: list[float]) -> None:
    found = decide(trainings(top_1=other, paper=[0.8, 0.9]))
    assert (found.best, found.winner) == ("paper", "paper")


def test_a_mean_without_a_hard_seed_is_not_taken_for_better() -> None:
    values = {"paper": [0.5, 0.6, 0.9], "top_1": [0.55, 0.65, 0.95], "top_2": [math.nan, 0.6, 0.92]}
    found = decide(trainings(**values).dropna())
    assert of(found, "top_2").mean > of(found, "top_1").mean
    assert (found.best, found.winner) == ("top_1", "top_1")


def test_a_single_seed_is_refused() -> None:
    with pytest.raises(UserError, match="with 1 fresh seeds"):
        decide(trainings(paper=[0.7], top_1=[0.9]))


def test_a_setting_without_two_pairs_is_left_out_and_said_to_be(tmp_path: Path) -> None:
    decision = decide(trainings(paper=[0.7, 0.7], top_1=[0.9], top_3=[0.6, 0.6]))
    assert [x.setting for x in decision.settings] == ["paper", "top_3"]
    # Of top_2, no training was completed.
    settings = {name: {"margin": 1.0} for name in ("paper", "top_1", "top_2", "top_3")}
    found = Confirmation("x", settings, decision, {}, 3, "holdout", Path("x.yaml"))
    (line,) = (x for x in describe(found) if "not judged" in x)
    assert "top_1 (1 completed), top_2 (0 completed), because fewer than 2 seeds" in line
    _write_table(tmp_path, [found])
    table = pd.read_parquet(tmp_path / CONFIRMED).set_index("setting")
    assert table["judged"].to_dict() == {x: x in ("paper", "top_3") for x in settings}
    assert table["num_seeds"].to_dict() == {"paper": 2, "top_3": 2, "top_1": 1, "top_2": 0}
    assert table.loc[["top_1", "top_2"], "gain"].isna().all()
    assert not table.loc["top_2", "winner"]
    assert (table["margin"] == 1.0).all()
