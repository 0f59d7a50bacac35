"""One seed, one search: the same trials to the byte, whatever dies while it runs.

The long test is `python -m tests.faults --times 50`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dfsc_tune import results
from dfsc_tune.config import TrialConfig
from dfsc_tune.settings import load
from tests.faults.compare import differences
from tests.faults.faults import disturb
from tests.faults.search import BREAKING_RATE, Session, prepare
from tests.support.trays import CATEGORY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run `reference`."""
    work = tmp_path_factory.mktemp("faults")
    prepare(work)
    reference = Session(work, "reference")
    assert reference.wait() == 0, log(work, "reference")
    return work


def test_a_trial_that_breaks_is_recorded_and_the_search_goes_on(undisturbed: Path) -> None:
    trials = results.load(undisturbed / "results" / "reference").trials
    breaks = trials["learning_rate"] == BREAKING_RATE
    assert breaks.any()
    assert (trials["state"] == "failed").equals(breaks)
    assert trials.loc[breaks, "error"].str.contains("became nan").all()
    assert len(trials) == 8
    assert f"failed trials: {breaks.sum()}" in log(undisturbed, "reference")


def test_free_settings_are_chosen_of_what_each_report_tells(undisturbed: Path) -> None:
    folder = undisturbed / "results" / "reference"
    assert results.load(folder).trials["ema_momentum"].nunique() > 1
    assert not load(folder / "best" / f"{CATEGORY}.yaml", TrialConfig).train.choose_ema_momentum


def test_a_search_that_is_killed_again_and_again_ends_as_if_undisturbed(undisturbed: Path) -> None:
    for fault, moment in (("tear_checkpoint", 2.0), ("kill_driver", 1.0), ("kill_trial", 0.5)):
        assert disturb(undisturbed, "run", fault, moment), log(undisturbed, "run")
    assert Session(undisturbed, "run").wait() == 0, log(undisturbed, "run")
    runs = undisturbed / "results"
    assert differences(runs / "reference", runs / "run") == []
    assert "Traceback" not in log(undisturbed, "run")


def log(work: Path, run: str) -> str:
    return (work / f"{run}.log").read_text()
