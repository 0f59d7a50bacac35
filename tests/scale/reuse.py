"""From one real trial to the next in the same process: to the first training step of the next."""

from __future__ import annotations

import functools
import itertools
import json
import time
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console

from dfsc_tune.results import LEDGER
from dfsc_tune.search import run, tune
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.search.trainable import tune_trial
from dfsc_tune.settings import loads
from dfsc_tune.spaces.space import SearchSpace
from dfsc_tune.training.train import Training
from tests.support.trays import CATEGORY, make_tray

_SPACE = """\
fixed:
  model: {network: tiny, image_size: 128, teacher: random}
parameters:
  margin: {type: float, low: 0.0, high: 2.0}
sampler: random
budget: {num_trials: NUM, num_steps: 4, report_interval: 2, grace_period: 4}
resources: {gpus_per_trial: 1}
"""
_MOMENTS = "first_steps"


def measure(results: Path, num_trials: int) -> list[float]:
    """Seconds from each trial's last report in the driver to the first step of the one after it.

    Args:
        results: the folder for the run and its data.
        num_trials: which run one after the other, on a CPU.
    """
    make_tray(results / "data")
    (results / _MOMENTS).mkdir()
    space = loads(_SPACE.replace("NUM", str(num_trials)), SearchSpace, "space")
    request = SearchRequest(
        (CATEGORY,), results / "data", None, space, results, "reuse", gpus=1, device="cpu"
    )
    noting = functools.partial(noting_trial, moments=(results / _MOMENTS).resolve())
    with (
        mock.patch.object(tune, "tune_trial", noting),
        mock.patch.object(run, "finalize"),
    ):
        run.run_search(request, Console(quiet=True))
    lines = (results / "reuse" / LEDGER).read_text().splitlines()
    # Of each trial the last report stays.
    ended = {x["trial"]: x["at"] for x in map(json.loads, lines) if x["event"] == "reported"}
    began = {x.name: float(x.read_text()) for x in (results / _MOMENTS).iterdir()}
    names = sorted(ended)
    return [began[after] - ended[name] for name, after in itertools.pairwise(names)]


def noting_trial(config: dict[str, Any], *, moments: Path, **others: Any) -> None:
    """A trial that writes down when it takes its first step."""
    run = Training.run

    def noting_run(training: Training, until_step: int) -> dict[str, float]:
        if training.step == 0:
            (moments / config["trial"]).write_text(str(time.time()))
        return run(training, until_step)

    with mock.patch.object(Training, "run", noting_run):
        tune_trial(config, **others)
