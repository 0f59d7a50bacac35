"""Resuming a run: what is refused in one sentence, and what a finished run says. No Ray runs."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from numpy.random import default_rng
from safetensors.torch import load_file, save_file

from dfsc_tune import results
from dfsc_tune.cli.printing import talk
from dfsc_tune.cli.search import _print_outcome
from dfsc_tune.config import Network
from dfsc_tune.errors import UserError
from dfsc_tune.models.teacher_files import read_card, shipped_teacher
from dfsc_tune.results import LEDGER, create_run, write_settings
from dfsc_tune.search.ledger import Ledger
from dfsc_tune.search.messages import Report
from dfsc_tune.search.provenance import with_teachers
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.search.resume import request_of, resume_search
from dfsc_tune.search.run import Outcome, _base_config, replayed_controller
from dfsc_tune.search.run import run_settings as settings_of
from dfsc_tune.settings import loads
from dfsc_tune.spaces.space import SearchSpace
from dfsc_tune.training.prepare import prepare_category
from dfsc_tune.training.trial import run_trial
from tests.support.commands import assert_one_sentence, invoke
from tests.support.synthetic_run import dataset, make_run, run_settings
from tests.support.trays import CATEGORY, draw_tray, make_tray

SPACE = """\
fixed: {model: {network: tiny, image_size: 128, teacher: teacher.safetensors}}
parameters: {margin: {type: float, low: 0.0, high: 2.0}}
budget: {num_trials: 3, num_steps: 8, report_interval: 4, grace_period: 4}
"""
RUN = Path("results") / "x"


@pytest.fixture(autouse=True)
def _begun_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that died with its first trial under way."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    data = make_tray(tmp_path / "data")
    shutil.copy(shipped_teacher("tiny"), "teacher.safetensors")
    space = loads(SPACE, SearchSpace, "space")
    request = SearchRequest((CATEGORY,), data, str(data), space, Path("results"), "x")
    bases = {CATEGORY: _base_config(request, CATEGORY)}
    RUN.mkdir(parents=True)
    read = {CATEGORY: prepare_category(bases[CATEGORY], data)}
    settings = settings_of(request, bases, read)
    write_settings(RUN, settings)
    with closing(Ledger(RUN)) as ledger:
        ledger.append({"event": "began", "settings": settings.digest})
        assert replayed_controller(request, bases, RUN, ledger).next_trial() is not None


def edit_settings(change: Callable[[dict[str, Any]], None]) -> None:
    tree = yaml.safe_load((RUN / "run.yaml").read_text())
    change(tree)
    (RUN / "run.yaml").write_text(yaml.safe_dump(tree))


def test_other_data_are_refused() -> None:
    draw_tray(Path("data") / CATEGORY / "train" / "good" / "000.png", default_rng(9), "good")
    assert_one_sentence(invoke("resume", "x"), f"the data of {CATEGORY} changed", "start a new run")


def test_data_that_were_moved_are_told_of_and_then_known() -> None:
    finish(published=False)
    Path("data").rename("moved")
    for command in ("resume", "confirm"):
        assert_one_sentence(invoke(command, "x"), "does not exist", "give its new path by --data")
    make_tray(Path("other"), num_train=5)
    refused = invoke("resume", "x", "--data", "other")
    assert_one_sentence(refused, f"the data of {CATEGORY} changed", "start a new run")
    assert_one_sentence(invoke("confirm", "x", "--data", "other"), f"the data of {CATEGORY} chang")
    resumed = invoke("resume", "x", "--data", "moved")
    assert "3 of 3 trials have ended" in resumed.stderr
    assert results.read_settings(RUN).data == str(Path("moved").resolve())
    # Lost since, so that data are needed again.
    (RUN / "trials.parquet").unlink()
    assert "3 of 3 trials have ended" in invoke("resume", "x").stderr


def test_a_teacher_that_was_moved_is_told_of_and_then_known() -> None:
    finish(published=False)
    begun = results.read_settings(RUN)
    Path("teacher.safetensors").rename("moved.safetensors")
    other = load_file("moved.safetensors")
    save_file({name: 2 * tensor for name, tensor in other.items()}, "other.safetensors")
    for command in ("resume", "confirm"):
        lost = invoke(command, "x")
        assert_one_sentence(lost, "no teacher weights at", "give its new path by --teacher")
        refused = invoke(command, "x", "--teacher", "other.safetensors")
        assert_one_sentence(refused, "other.safetensors holds other weights", "start a new run")
    assert results.read_settings(RUN) == begun
    resumed = invoke("resume", "x", "--teacher", "moved.safetensors")
    assert "3 of 3 trials have ended" in resumed.stderr
    settings = results.read_settings(RUN)
    assert settings.teachers == {CATEGORY: str(Path("moved.safetensors").resolve())}
    assert settings.base_configs == begun.base_configs
    # Lost since, so that the teacher is needed again.
    (RUN / "trials.parquet").unlink()
    assert "3 of 3 trials have ended" in invoke("resume", "x").stderr


def test_each_teacher_is_that_of_the_categories_searched_with_its_weights() -> None:
    networks: dict[str, Network] = {"a": "tiny", "b": "small", "c": "tiny"}
    cards = {name: read_card(shipped_teacher(network)) for name, network in networks.items()}
    datasets = {
        name: dataset(teacher_sha256=card.teacher_sha256) for name, card in cards.items() if card
    }
    settings = run_settings(tuple(networks), datasets=datasets)
    found = with_teachers(settings, ["tiny", "small"], RUN)
    assert found.teachers == {x: str(shipped_teacher(y).resolve()) for x, y in networks.items()}
    assert set(with_teachers(settings, ["small"], RUN).teachers) == {"b"}


def test_another_teacher_is_refused() -> None:
    edit_settings(lambda tree: tree["datasets"][CATEGORY].update(teacher_sha256="0" * 64))
    for command in ("resume", "confirm"):
        assert_one_sentence(invoke(command, "x"), f"the teacher of {CATEGORY} changed")


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree["space"]["parameters"]["margin"].update(high=1.5),
        lambda tree: tree["base_configs"][CATEGORY]["train"].update(num_steps=16),
        lambda tree: tree.update(seed=1),
    ],
)
def test_other_settings_are_refused(change: Callable[[dict[str, Any]], None]) -> None:
    edit_settings(change)
    assert_one_sentence(invoke("resume", "x"), "not those that the run began with")


def test_this_machine_can_be_asked_for_whatever_the_environment_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    assert request_of(RUN, Path("data"), "data").cluster == "somewhere:6379"
    assert request_of(RUN, Path("data"), "data", address="local").cluster is None


def test_fewer_trials_are_refused() -> None:
    assert_one_sentence(invoke("resume", "x", "--trials", "2"), "fewer than the run's 3")


def test_a_run_that_goes_on_is_refused() -> None:
    with closing(Ledger(RUN)):
        assert_one_sentence(invoke("resume", "x"), "still going on")


def test_a_ledger_that_lacks_lines_is_refused() -> None:
    finish(published=False)
    lines = (RUN / LEDGER).read_text().splitlines(keepends=True)
    (RUN / LEDGER).write_text("".join(lines[:3] + lines[4:]))
    assert_one_sentence(invoke("resume", "x"), "line 4 is not what was written", "--keep-lines 3")


def test_what_no_search_made_is_refused() -> None:
    (RUN / LEDGER).unlink()
    assert_one_sentence(invoke("resume", "x"), "was not made by a search that can be resumed")
    assert_one_sentence(invoke("resume", "y"), "no run 'y'", "runs there: x")
    edit_settings(lambda tree: tree.pop("space"))
    assert_one_sentence(invoke("confirm", "x"), "was not made by a search")


def test_a_run_goes_on_by_the_command_that_began_it() -> None:
    edit_settings(lambda tree: tree.update(continued_by="confirm", continued_with=["earlier"]))
    told = "dfsc-tune confirm earlier"
    assert_one_sentence(invoke("resume", "x"), "`resume` would leave the run in", told)
    assert_one_sentence(invoke("confirm", "x"), "was not made by a search, but by", told)


def test_starting_it_again_says_how_to_resume_and_changes_nothing() -> None:
    before = (RUN / "run.yaml").read_bytes()
    again = invoke("search", "--category", CATEGORY, "--data", "data", "--name", "x")
    assert_one_sentence(again, "exists already", "`dfsc-tune resume x`")
    assert (RUN / "run.yaml").read_bytes() == before


def test_a_name_is_free_again_if_its_run_died_before_it_began() -> None:
    shutil.rmtree(RUN)
    RUN.mkdir()
    (RUN / ".0123456789abcdef.part").write_text("half")
    (RUN / LEDGER).touch()
    # It gets as far as to the data, which are not there, and leaves nothing.
    again = invoke("search", "--category", CATEGORY, "--data", "missing", "--name", "x")
    assert_one_sentence(again, "missing")
    assert not RUN.exists()


@pytest.mark.parametrize("file", ["backup.part", ".gitkeep", LEDGER])
def test_a_folder_that_holds_anything_else_is_no_new_run_and_stays(file: str) -> None:
    shutil.rmtree(RUN)
    RUN.mkdir()
    (RUN / file).write_text("" if file == ".gitkeep" else "the user's")
    again = invoke("search", "--category", CATEGORY, "--data", "missing", "--name", "x")
    assert_one_sentence(again, "is not a run; choose another --name")
    assert [path.name for path in RUN.iterdir()] == [file]


@pytest.mark.parametrize("name", ["..", ".", "a/b", "x" * 256])
def test_a_name_that_leads_elsewhere_is_refused_before_anything_is_made(name: str) -> None:
    before = sorted(Path().rglob("*"))
    for command in ("search --category tray", "train --config c.yaml", "reproduce table3"):
        assert_one_sentence(invoke(*command.split(), "--data", "missing", "--name", name), "--name")
    with pytest.raises(UserError, match="cannot be a run's name"):
        create_run(Path("results"), name)
    assert sorted(Path().rglob("*")) == before


def test_a_category_that_nothing_was_found_for_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "made", categories=("cup",))
    settings = run_settings(("cup", "box"))
    write_settings(tmp_path / "made", settings)
    outcome = Outcome(tmp_path / "made", num_expected=80, num_ended=80, num_failed=41)
    with pytest.raises(UserError, match="no trial of box reached the full budget"):
        _print_outcome(outcome, talk(), json=False)
    assert "cup: best of run made" in capsys.readouterr().out


def finish(*, published: bool, trials: tuple[int, ...] = (1, 2, 3)) -> None:
    """Writes on in the ledger until all trials have ended, these of them badly."""
    with closing(Ledger(RUN)) as ledger:
        for number in trials:
            name, values = f"000{number}", {"margin": number / 10}
            suggestion = {"values": values, "role": "sampler", "params": values}
            if number > 1:
                ledger.append(
                    {"event": "suggested", "trial": name, "category": CATEGORY, **suggestion}
                )
            ledger.append({"event": "failed", "trial": name, "reason": "no"})
        if published:
            ledger.append({"event": "published", "num_ended": 3})


def test_a_run_that_another_command_goes_on_with_hands_over_no_single_trial() -> None:
    edit_settings(lambda tree: tree.update(continued_by="confirm", continued_with=["y"]))
    data_name = results.read_settings(RUN).data
    request = request_of(RUN, Path("data"), data_name)
    bases = {CATEGORY: _base_config(request, CATEGORY)}
    read = prepare_category(bases[CATEGORY], Path("data"))
    with closing(Ledger(RUN)) as ledger:
        controller = replayed_controller(request, bases, RUN, ledger)
        trial = controller.next_trial()
        assert trial is not None
        run_trial(
            trial.config,
            read.trial,
            lambda progress: controller.report("0001", Report(progress)),
            controller.checkpoint_dir("0001"),
        )
    finish(published=False, trials=(2, 3))
    resume_search(RUN, Path("data"), talk(), data_name=data_name, by="confirm")
    run = results.load(RUN)
    assert run.trials["state"].tolist() == ["complete", "failed", "failed"]
    assert set(run.scores["trial"]) == {"0001"}
    assert not (RUN / "best").exists()
    assert not (RUN / "models").exists()
    assert_one_sentence(invoke("best", "x"), "nothing is decided", "`dfsc-tune confirm y`")


def test_a_run_that_died_before_it_was_published_is_published() -> None:
    finish(published=False)
    (RUN / "trials.parquet").unlink()
    result = invoke("resume", "x")
    assert "3 of 3 trials have ended" in result.stderr
    assert results.load(RUN).trials["state"].tolist() == ["failed"] * 3
    published, ended = (json.loads(x) for x in (RUN / LEDGER).read_text().splitlines()[-2:])
    assert (published["event"], ended["event"], ended["why"]) == ("published", "ended", None)
    assert "ended without a result for" in invoke("watch", "x").stdout


@pytest.mark.parametrize("table", ["trials.parquet", "reports.parquet"])
@pytest.mark.parametrize("content", [None, b"PAR1 and then rubbish"])
def test_a_lost_table_is_made_again(table: str, content: bytes | None) -> None:
    finish(published=True)
    (RUN / table).unlink()
    if content is not None:
        (RUN / table).write_bytes(content)
        assert_one_sentence(invoke("best", "x"), f"{table} is damaged", "`dfsc-tune resume x`")
    invoke("resume", "x")
    assert results.load(RUN).trials["state"].tolist() == ["failed"] * 3
    assert (RUN / table).is_file()


def test_a_finished_run_says_so_and_changes_nothing() -> None:
    finish(published=True)
    before = (RUN / "run.yaml").read_bytes(), (RUN / LEDGER).read_bytes()
    result = invoke("resume", "x")
    assert "is finished: 3 trials" in result.stderr
    assert_one_sentence(result, f"no trial of {CATEGORY} reached the full budget")
    assert ((RUN / "run.yaml").read_bytes(), (RUN / LEDGER).read_bytes()) == before


def ledger_lines() -> list[str]:
    return (RUN / LEDGER).read_text().splitlines(keepends=True)


def without_digests() -> list[str]:
    """The lines as version 0.1.0 would have written them."""
    return [re.sub(r', "digest": "[0-9a-f]+"', "", line) for line in ledger_lines()]


def test_a_trial_named_as_a_path_deletes_nothing() -> None:
    finish(published=False)
    victim = Path("victim")
    victim.mkdir()
    for name in ("../../victim", "../../../victim", str(victim.resolve())):
        lines = [line.replace('"0002"', json.dumps(name)) for line in without_digests()]
        (RUN / LEDGER).write_text("".join(lines))
        refused = invoke("resume", "x")
        assert_one_sentence(refused, "is damaged: line 4 is no event of a search (trial: ")
        assert victim.is_dir()


def test_checkpoints_that_lead_elsewhere_are_refused() -> None:
    Path("elsewhere/0001").mkdir(parents=True)
    (RUN / "checkpoints").symlink_to(Path("elsewhere").resolve())
    assert_one_sentence(invoke("resume", "x"), "leads out of the folder", "symbolic link")
    assert Path("elsewhere/0001").is_dir()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda x: [*x[:3], x[1].replace("0001", "0003"), *x[3:]], "trial 0003 is suggested wh"),
        (lambda x: [*x[:2], x[4], *x[2:]], "trial 0002 has not begun"),
        (lambda x: [*x[:3], x[2], *x[3:]], "trial 0001 has not begun or has ended"),
        (lambda x: [x[0], x[1].replace(f'"{CATEGORY}"', '"bag"'), *x[2:]], "'bag' is not searche"),
        (lambda x: [*x[:3], x[3].replace("0.2", "99.0"), *x[4:]], "margin"),
    ],
)
def test_a_ledger_without_digests_is_refused_where_it_makes_no_sense(
    damage: Callable[[list[str]], list[str]], told: str
) -> None:
    finish(published=False)
    (RUN / LEDGER).write_text("".join(damage(without_digests())))
    assert_one_sentence(invoke("resume", "x"), f"{LEDGER} is damaged: line", "follow", told)


def test_an_emptied_or_shortened_ledger_is_told_by_what_trials_left() -> None:
    finish(published=False)
    invoke("resume", "x")
    lines = ledger_lines()
    for kept, told in ((0, "it is empty, and trials.parquet is there"), (3, "trial 0002")):
        (RUN / LEDGER).write_text("".join(lines[:kept]))
        assert_one_sentence(invoke("resume", "x"), f"{LEDGER} is damaged", told)
        assert ledger_lines() == lines[:kept]
    (RUN / "trials.parquet").unlink()
    checkpoint = RUN / "checkpoints" / "0003"
    checkpoint.mkdir(parents=True)
    assert_one_sentence(invoke("resume", "x"), "a checkpoint of trial 0003", "--keep-lines 3")
    assert checkpoint.is_dir()


def test_a_run_goes_on_from_whole_lines_and_nothing_is_deleted() -> None:
    finish(published=False)
    (RUN / "checkpoints" / "0002").mkdir(parents=True)
    whole = ledger_lines()
    damaged = "".join([*whole[:3], "rubbish\n", *whole[4:]])
    (RUN / LEDGER).write_text(damaged)
    assert_one_sentence(invoke("resume", "x"), "line 4 ", "the 3 lines before it are whole")
    assert_one_sentence(invoke("resume", "x", "--keep-lines", "9"), "has 3 whole lines, not 9")
    # It gets as far as to the data, which are not there.
    Path("data").rename("moved")
    kept = invoke("resume", "x", "--keep-lines", "3", "--data", "moved/none")
    assert "kept 3 lines" in kept.stderr
    assert ledger_lines() == whole[:3]
    aside = RUN / "damaged-1"
    assert (aside / LEDGER).read_text() == damaged
    assert (aside / "checkpoints" / "0002").is_dir()
    assert not (RUN / "checkpoints" / "0002").exists()
    with closing(Ledger(RUN)) as ledger:
        assert [event["event"] for event in ledger.events] == ["began", "suggested", "failed"]


@pytest.mark.parametrize("name", ["study.journal", "trials.parquet", LEDGER])
def test_a_folder_where_a_file_belongs_is_one_sentence(name: str) -> None:
    finish(published=False)
    (RUN / name).unlink(missing_ok=True)
    (RUN / name).mkdir()
    assert_one_sentence(invoke("resume", "x"), str(RUN / name))
    assert (RUN / name).is_dir()


def test_checkpoints_that_lead_elsewhere_are_refused_before_anything_is_moved() -> None:
    finish(published=False)
    (RUN / "trials.parquet").write_text("table")
    Path("elsewhere/0002").mkdir(parents=True)
    (RUN / "checkpoints").symlink_to(Path("elsewhere").resolve())
    refused = invoke("resume", "x", "--keep-lines", "3")
    assert_one_sentence(refused, "leads out of the folder", "symbolic link")
    assert (RUN / "trials.parquet").read_text() == "table"
    assert not list(RUN.glob("damaged-*"))


def test_a_pipe_in_place_of_the_ledger_keeps_nobody_waiting() -> None:
    (RUN / LEDGER).unlink()
    os.mkfifo(RUN / LEDGER)
    make_run(Path("results") / "y")
    listed = invoke("runs")
    assert listed.exit_code == 0
    assert f"{RUN / LEDGER}: it is a named pipe" in listed.stderr
    assert listed.stdout.startswith("y ")
    for command in (("watch", "x", "--once"), ("resume", "x")):
        assert_one_sentence(invoke(*command), f"{RUN / LEDGER}: it is a named pipe")
