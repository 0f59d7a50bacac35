"""The blackbox and the simulated searches on it, checked against Ray Tune's own order of calls."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import qmc
from typer.testing import CliRunner

from dfsc_tune import results
from dfsc_tune.errors import UserError
from dfsc_tune.progress import Progress
from dfsc_tune.spaces.parameters import FloatParameter
from dfsc_tune.spaces.space import find_space, load_space
from tests.studies.__main__ import app
from tests.studies.blackbox import Blackbox, RecordedCurves, held_out_errors, recorded_curves
from tests.studies.side_by_side import BUDGETS, DEFAULT, STRATEGIES, regrets, summary
from tests.studies.simulate import simulate
from tests.support.commands import assert_one_sentence
from tests.support.synthetic_run import run_settings

ROOT = Path(__file__).parents[2]
CURVES = ROOT / "results" / "reference" / "search_curves"
MOMENTA = np.array([0.9, 0.99, 0.999])
STEPS = np.array([10, 20, 30, 40, 50, 60])
PARAMETERS = {
    "margin": FloatParameter(low=0.0, high=2.0),
    "alpha": FloatParameter(low=0.25, high=8.0, scale="log"),
}


def made_up(noise: float = 0.01) -> RecordedCurves:
    """Curves that rise to a value best at a margin of 0.8, with the momentum 0.99."""
    points = qmc.Sobol(2, seed=0).random(32)
    heights = 0.9 - 0.8 * (points[:, 0] - 0.4) ** 2 - 0.1 * points[:, 1]
    rise = 1 - np.exp(-STEPS / 15)
    by_momentum = np.array([-0.02, 0.0, -0.2])
    values = 0.5 + (heights[:, None, None] - 0.5 + by_momentum[None, :, None]) * rise
    values += noise * np.random.default_rng(0).standard_normal((32, 1, 1))
    return RecordedCurves(PARAMETERS, points, MOMENTA, STEPS, values)


@pytest.fixture(scope="module")
def blackbox() -> Blackbox:
    return Blackbox(made_up())


def test_the_blackbox_knows_what_it_was_made_of(blackbox: Blackbox) -> None:
    best = {"margin": 0.8, "alpha": 0.25, "ema_momentum": 0.99}
    assert blackbox.true_value(best) == pytest.approx(0.9, abs=0.015)
    assert blackbox.true_value({**best, "margin": 2.0}) == pytest.approx(0.615, abs=0.03)
    assert blackbox.true_value({**best, "ema_momentum": 0.999}) == pytest.approx(0.7, abs=0.015)
    # Halfway between two momenta in log(1 − momentum) lies halfway between their values.
    halfway = blackbox.true_value({**best, "ema_momentum": 1 - 10**-2.5})
    assert halfway == pytest.approx(0.8, abs=0.015)
    assert blackbox.optimum >= blackbox.true_value(best) - 0.002
    errors = held_out_errors(made_up()).set_index("prediction")["rmse"]
    assert errors["model"] < 0.4 * errors["mean of the other trials"]
    assert errors["model"] < errors["nearest other trial"]


def test_a_trials_luck_is_of_the_recorded_size_and_its_own(blackbox: Blackbox) -> None:
    settings = {"margin": 1.0, "alpha": 2.0, "ema_momentum": 0.99}
    truth = blackbox.true_value(settings)
    first = blackbox.curve(settings, [0.9, 0.99], seed=1)
    assert all((first[x] == y).all() for x, y in blackbox.curve(settings, [0.9, 0.99], 1).items())
    ends = [blackbox.curve(settings, [0.99], seed)[0.99][-1] - truth for seed in range(200)]
    assert 0.008 < np.std(ends) < 0.03


def test_a_recorded_run_becomes_curves(tmp_path: Path) -> None:
    space = load_space("record")
    base = space.for_category("tray").base_config("tray")
    folder = results.create_run(tmp_path, "curves")
    results.write_settings(folder, run_settings(space=space.model_dump(mode="json")))
    tables = results.RunTables(folder)
    for index in range(14):
        config = base.with_values({"margin": index / 10, "quantile": 0.99, "alpha": 1.0})
        tables.start(f"t{index}", config, role="sampler")
        for step in (300, 600):
            values = {x: 0.5 + step / 1e4 + x / 10 + index / 100 for x in (0.9, 0.97, 0.99, 0.999)}
            metrics = {
                x: {"auroc_logical": y, "auroc_structural": y, "auroc_mean": y}
                for x, y in values.items()
            }
            tables.report(f"t{index}", Progress(step, 0.5, metrics, {}, 1.0))
        tables.end(f"t{index}", "complete" if index else "failed")
    tables.write()
    curves = recorded_curves(results.load(folder), "tray")
    assert list(curves.parameters) == ["margin", "quantile", "alpha"]
    assert curves.values.shape == (13, 4, 2)
    assert sorted(curves.points[:, 0]) == pytest.approx([x / 20 for x in range(1, 14)])
    of_first = curves.values[curves.points[:, 0].argmin()]
    assert of_first[:, 1] == pytest.approx([0.66, 0.667, 0.669, 0.6699])
    with pytest.raises(UserError, match="0 trials of box"):
        recorded_curves(results.load(folder), "box")


def test_the_committed_curves_are_a_blackbox_still() -> None:
    run = results.load(CURVES)
    for category in run.settings.categories:
        curves = recorded_curves(run, category)
        assert curves.values.shape[0] >= 12
        assert len(curves.elsewhere) == len(run.settings.categories) - 1


def test_a_table_that_cannot_be_written_is_refused_before_the_searches() -> None:
    result = CliRunner().invoke(
        app, ["search", str(CURVES), "--output", f"{__file__}/regrets.parquet"]
    )
    assert_one_sentence(result, "cannot write to the folder")


@pytest.mark.parametrize("name", DEFAULT)
def test_every_strategy_runs_and_repeats(name: str, blackbox: Blackbox) -> None:
    table = regrets(blackbox, name, [3], num_workers=2)
    assert table["trainings"].tolist() == list(BUDGETS)
    assert (table["regret"] > -0.01).all()
    assert table.equals(regrets(blackbox, name, [3], num_workers=2))


def test_search_beats_chance_where_there_is_something_to_find(blackbox: Blackbox) -> None:
    tables = [regrets(blackbox, name, range(8), 4) for name in ("ours", "random")]
    found = summary(pd.concat(tables).assign(category="x")).set_index(["strategy", "trainings"])
    assert found.loc[("random", 16), "excess_low"] > 0
    assert found.loc[("ours", 16), "excess"] == 0
    assert found.loc[("ours", 32), "regret"] < found.loc[("ours", 4), "regret"]


TUNE = """
import pickle, sys
from pathlib import Path
import ray
from ray import tune
from dfsc_tune.search.adapters import ControllerScheduler, ControllerSearcher
from dfsc_tune.search.controller import Controller
from dfsc_tune.search.ledger import Ledger
from tests.studies.side_by_side import STRATEGIES, tried
from dfsc_tune.config import TrialConfig
from dfsc_tune.search.messages import Report
from dfsc_tune.progress import Progress

blackbox = pickle.loads(Path(sys.argv[1]).read_bytes())

def read(config):
    return tried(TrialConfig.model_validate(config["trial_config"]))

def trial(config):
    momenta = read(config).momenta
    curves = blackbox.curve(read(config).settings, momenta, 5)
    for index, step in enumerate(blackbox.curves.steps):
        value = max(float(curve[index]) for curve in curves.values())
        tune.report(Report(Progress(int(step), value, {momenta[0]: {}}, {}, 0.0)).to_plain())

strategy = STRATEGIES["ours"](blackbox, 5)
folder = Path.cwd()
controller = Controller(folder, Ledger(folder), strategy.searcher, strategy.asha)
ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
done = tune.Tuner(
    trial,
    tune_config=tune.TuneConfig(
        search_alg=ControllerSearcher(controller), scheduler=ControllerScheduler(controller),
        num_samples=24,
        max_concurrent_trials=1, reuse_actors=True,
    ),
    run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
).fit()
trials = [(dict(read(x.config).settings), x.metrics["step"], x.metrics["value"]) for x in done]
Path("trials.pickle").write_bytes(pickle.dumps(trials))
"""


@pytest.mark.slow
def test_a_simulated_search_is_the_one_that_tune_runs(blackbox: Blackbox, tmp_path: Path) -> None:
    """One trial at a time makes the order certain: the same points, stopped at the same steps."""
    (tmp_path / "blackbox.pickle").write_bytes(pickle.dumps(blackbox))
    done = subprocess.run(
        [sys.executable, "-c", TUNE, "blackbox.pickle"],
        cwd=tmp_path,
        env=os.environ | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    real = pickle.loads((tmp_path / "trials.pickle").read_bytes())
    strategy = STRATEGIES["ours"](blackbox, 5)
    ended: list[tuple[dict[str, object], int, float]] = []
    finish = strategy.searcher.finish
    suggested: dict[str, object] = {}
    suggest = strategy.searcher.suggest

    def noting_suggest(name: str) -> object:
        suggested[name] = suggest(name)
        return suggested[name]

    def noting_finish(name: str, step: int, value: float) -> object:
        ended.append((dict(strategy.read(suggested[name]).settings), step, value))
        return finish(name, step, value)

    strategy.searcher.suggest = noting_suggest
    strategy.searcher.finish = noting_finish
    simulate(strategy, blackbox, num_workers=1, num_steps=24 * int(STEPS[-1]), seed=5)
    assert len(real) == 24
    assert {step for _, step, _ in real} > {10, 60}
    assert ended[:24] == real


def test_the_record_space_is_an_ordinary_one() -> None:
    space = load_space(str(find_space("record")))
    assert space.budget.grace_period == space.budget.num_steps
