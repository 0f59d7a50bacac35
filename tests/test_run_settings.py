"""`run.yaml` is checked when it is read: damage, or a later version, is told in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from dfsc_tune import results
from dfsc_tune.cli.printing import as_arguments
from dfsc_tune.errors import UserError
from dfsc_tune.results import SETTINGS, write_settings
from tests.support.commands import assert_one_sentence, invoke
from tests.support.synthetic_run import CATEGORY, make_run, run_settings, run_tree

Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda tree: tree.pop("created"), "created: Field required"),
        (lambda tree: tree.update(seed="0"), "seed: must be a valid integer (got '0')"),
        (lambda tree: tree.update(categories=CATEGORY), "categories: "),
        (lambda tree: tree.update(device="tpu"), "device: must be 'auto' or 'cpu' (got 'tpu')"),
        (lambda tree: tree.update(continued_by="search"), "continued_by: must be 'resume', "),
        (lambda tree: tree.update(go_on_by="dfsc-tune 'confirm"), "No closing quotation"),
        (lambda tree: tree.update(go_on_by=1), "go_on_by: unknown key"),
        (
            lambda tree: tree["datasets"][CATEGORY].update(train=None),
            f"datasets.{CATEGORY}.train: must be a valid integer",
        ),
        (
            lambda tree: tree["base_configs"][CATEGORY].update(loss={"margin": 3.0}),
            f"base_configs.{CATEGORY}.loss.margin: must be less than or equal to 2 (got 3.0)",
        ),
        (
            lambda tree: tree["space"]["budget"].update(num_trials=0),
            "space.budget.num_trials: must be greater than or equal to 1 (got 0)",
        ),
        (lambda tree: tree["datasets"].clear(), f"datasets: lacks the category {CATEGORY}"),
        (lambda tree: tree["base_configs"].clear(), f"base_configs: lacks the category {CATEGORY}"),
    ],
)
def test_damage_is_told_with_its_file_and_place(tmp_path: Path, change: Change, place: str) -> None:
    tree = deepcopy(run_tree())
    change(tree)
    (tmp_path / SETTINGS).write_text(yaml.safe_dump(tree))
    result = invoke("best", tmp_path)
    assert_one_sentence(
        result, f"{tmp_path / SETTINGS}: ", place, "; restore it, or start a new run"
    )


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda tree: tree.update(version=99), "version: must be less than or equal to 2 (got 99)"),
        (
            lambda tree: tree["base_configs"][CATEGORY].update(train={"new_setting": 1}),
            f"base_configs.{CATEGORY}.train.new_setting: unknown key",
        ),
    ],
)
@pytest.mark.parametrize("resumed", [False, True])
def test_a_file_of_a_later_version_names_that_version(
    tmp_path: Path, change: Change, place: str, resumed: bool
) -> None:
    tree = deepcopy(run_tree())
    change(tree)
    writer = {"versions": {"dfsc-tune": "9.8.0"}}
    if resumed:
        tree["resumed"] = [writer]
    else:
        tree |= writer
    (tmp_path / SETTINGS).write_text(yaml.safe_dump(tree))
    assert_one_sentence(invoke("best", tmp_path), place, "dfsc-tune 9.8.0 wrote the file and this")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    settings = run_settings(data="10E5", continued_by="confirm", continued_with=["y", "--top", "3"])
    write_settings(tmp_path, settings)
    assert results.read_settings(tmp_path) == settings
    assert results.load(tmp_path).settings.objective.name == "holdout"


def test_the_command_that_goes_on_is_made_of_its_name_and_arguments(tmp_path: Path) -> None:
    arguments = as_arguments(
        "table3", seeds=3, category=["a b", "c"], trials_per_gpu=None, baselines=True, space="cpu"
    )
    write_settings(tmp_path, run_settings(continued_by="reproduce", continued_with=arguments))
    command = (
        "dfsc-tune reproduce table3 --seeds 3 --category 'a b' --category c --baselines --space cpu"
    )
    assert results.resume_command(tmp_path) == command
    for refused in ("resume", "confirm"):
        assert_one_sentence(invoke(refused, tmp_path, "--data", tmp_path), f"`{command}`")
    (tmp_path / SETTINGS).write_text("half: [")
    assert results.resume_command(tmp_path) == f"dfsc-tune resume {tmp_path}"


def test_only_a_confirmation_decides_what_is_best_by_itself(tmp_path: Path) -> None:
    run = make_run(tmp_path / "x", continued_by="reproduce", continued_with=["table3"])
    assert f"best of run {run.name} is trial" in invoke("best", run).stdout
    write_settings(run, run_settings(continued_by="confirm", continued_with=["y"]))
    assert_one_sentence(invoke("best", run), "nothing is decided", "`dfsc-tune confirm y`")


def test_a_single_training_has_no_space(tmp_path: Path) -> None:
    write_settings(tmp_path, run_settings(space=None, base_configs={}))
    settings = results.read_settings(tmp_path)
    with pytest.raises(UserError, match="was not made by a search"):
        results.space_of_run(settings, tmp_path)
