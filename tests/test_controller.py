"""The controller of a search, played by hand without Ray: broken off anywhere, retried, stopped."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import re
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray.exceptions import RayActorError, RayTaskError
from rich.console import Console

from dfsc_tune import results
from dfsc_tune.errors import StorageError, UserError
from dfsc_tune.progress import CHECKPOINT, Progress
from dfsc_tune.results import LEDGER, write_settings
from dfsc_tune.search.adapters import (
    ControllerCallback,
    ControllerScheduler,
    ControllerSearcher,
)
from dfsc_tune.search.classify import classify
from dfsc_tune.search.controller import Controller, OpenTrial
from dfsc_tune.search.failures import MAX_RETRIES, Failure, next_attempt
from dfsc_tune.search.ledger import Ledger, interruptions
from dfsc_tune.search.live import LiveView
from dfsc_tune.search.messages import Report, note_to_plain
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.search.run import JOURNAL, finish_search, replayed_controller
from dfsc_tune.settings import loads
from dfsc_tune.spaces.space import SearchSpace
from tests.support.config_checks import count_checks
from tests.support.synthetic_run import run_settings

SPACE = """\
parameters:
  margin: {type: float, low: 0.0, high: 2.0}
  quantile: {type: float, low: 0.9, high: 0.9999, scale: log_complement}
budget: {num_trials: 9, num_steps: 40, report_interval: 10, grace_period: 10, reduction_factor: 2}
"""
CATEGORIES = ("tray", "bag")
LOST = Failure("lost", "its worker was lost")
BUG = Failure("bug", "TypeError: a bug")


@pytest.fixture
def request_(tmp_path: Path) -> SearchRequest:
    space = loads(SPACE, SearchSpace, "space")
    return SearchRequest(CATEGORIES, tmp_path, None, space, tmp_path, "run")


def open_controller(request: SearchRequest, folder: Path, ledger: Ledger) -> Controller:
    bases = {
        name: request.space.for_category(name).base_config(
            name, train={"num_steps": 40, "report_interval": 10}
        )
        for name in request.categories
    }
    folder.mkdir(exist_ok=True)
    return replayed_controller(request, bases, folder, ledger)


def result(trial: OpenTrial, step: int) -> Report:
    """What a trial would report: a curve that its settings alone decide."""
    loss = trial.config.loss
    value = math.exp(-abs(loss.margin - 0.7)) * loss.quantile * (1 - 1 / (step + 5))
    momentum = trial.config.train.ema_momentum
    aurocs = dict.fromkeys(("auroc_logical", "auroc_structural", "auroc_mean"), value)
    progress = Progress(step, value, {momentum: aurocs}, {"total": 1.0}, seconds=step / 10)
    return Report(progress, "node", "cpu")


class Crash(Exception):
    """The driver dies here."""


def play(controller: Controller, *, crash_after: int | None = None) -> None:
    """Carries a controller out to its end, one trial at a time, or to a number of reports."""
    num_reports = 0
    while trial := controller.next_trial():
        name, ends = trial.name, False
        controller.started(name)
        # A trial that goes on says again what its checkpoint holds.
        step = max(controller.tables.trials[name]["step"] - 10, 0)
        while not ends:
            step += 10
            ends = controller.report(name, result(trial, step))
            num_reports += 1
            if num_reports == crash_after:
                raise Crash
    assert controller.starts_no_more


def lines(folder: Path) -> list[str]:
    """What is in the ledger, but for when it was written."""
    found = (folder / LEDGER).read_text().splitlines()
    return [re.sub(r', "(at|digest)": [0-9a-f."]+', "", line) for line in found]


def test_a_search_broken_off_at_any_event_ends_as_if_it_had_not_been(
    request_: SearchRequest, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    with closing(Ledger(whole)) as ledger:
        undisturbed = open_controller(request_, whole, ledger)
        play(undisturbed)
        undisturbed.close()
    expected = lines(whole)
    assert {x["state"] for x in undisturbed.tables.trials.values()} == {"complete", "pruned"}
    for num_events in range(0, len(expected), 5):
        broken = tmp_path / f"broken{num_events}"
        broken.mkdir()
        (broken / LEDGER).write_text("".join(f"{x}\n" for x in expected[:num_events]))
        with closing(Ledger(broken)) as ledger:
            controller = open_controller(request_, broken, ledger)
            assert not controller.is_finished
            play(controller)
            controller.close()
            assert controller.is_finished
        assert lines(broken) == expected
        assert controller.tables.trials == undisturbed.tables.trials
        assert optuna_trials(broken) == optuna_trials(whole)


def optuna_trials(folder: Path) -> list[tuple[object, ...]]:
    storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    studies = [optuna.load_study(study_name=f"run/{x}", storage=storage) for x in CATEGORIES]
    trials = [trial for study in studies for trial in study.get_trials()]
    return [(x.number, x.state, x.params, x.intermediate_values, x.value) for x in trials]


@pytest.fixture
def controller(request_: SearchRequest, tmp_path: Path) -> Controller:
    folder = tmp_path / "run"
    folder.mkdir()
    return open_controller(request_, folder, Ledger(folder))


def test_what_runs_is_not_started_twice_and_capacity_is_kept(controller: Controller) -> None:
    controller.capacity = 2
    first, second = controller.next_trial(), controller.next_trial()
    assert first is not None
    assert second is not None
    assert (first.name, second.name) == ("0001", "0002")
    assert controller.next_trial() is None
    assert not controller.starts_no_more


def test_a_config_is_checked_once_where_it_is_suggested(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfsc_tune.search.failures._FIRST_PAUSE_SECONDS", 0.0)
    checked = count_checks(monkeypatch)
    searcher, scheduler = ControllerSearcher(controller), ControllerScheduler(controller)
    callback = ControllerCallback(controller)
    for number in range(1, 10):
        config = searcher.suggest("of Tune's own")
        controller.broke(config["trial"], LOST)
        assert searcher.suggest("of another try") == config
        told = SimpleNamespace(config=config)
        callback.on_trial_start(0, [], told)
        for step in (10, 20, 30, 40):
            progress = Progress(step, number / 10, {0.99: {}}, {"total": 1.0}, step / 10)
            plain = Report(progress, "node", "cpu").to_plain()
            if scheduler.on_trial_result(None, told, plain) == "STOP":
                break
        assert controller.num_ended == number
        controller.finalized()
        assert len(checked) == number


def test_more_trials_can_be_added_later(request_: SearchRequest, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with closing(Ledger(folder)) as ledger:
        play(open_controller(request_, folder, ledger))
    budget = request_.space.budget.model_copy(update={"num_trials": 12})
    more = replace(request_, space=request_.space.model_copy(update={"budget": budget}))
    with closing(Ledger(folder)) as ledger:
        controller = open_controller(more, folder, ledger)
        assert not controller.is_finished
        play(controller)
    assert controller.num_ended == 24
    points = [str(sorted(x.items())) for x in suggested(folder)]
    assert len(set(points)) == len(points) == 24


def suggested(folder: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in lines(folder)]
    return [{**x["values"], "c": x["category"]} for x in events if x["event"] == "suggested"]


def start(controller: Controller) -> OpenTrial:
    trial = controller.next_trial()
    assert trial is not None
    controller.started(trial.name)
    return trial


def test_a_lost_worker_is_tried_again_after_a_pause_in_its_place(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = start(controller)
    controller.report("0001", result(trial, 10))
    moment = time.monotonic() + 5
    monkeypatch.setattr(time, "monotonic", lambda: moment)
    controller.broke("0001", LOST)
    found = interruptions(controller.tables.folder)
    assert (found.num_losses, found.num_resumes) == (1, 0)
    assert found.seconds == pytest.approx(5, abs=1)
    assert controller.next_trial() is None
    later = time.monotonic() + 2.1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert controller.next_trial() is trial
    # It goes on from its checkpoint: what it says again is not counted again.
    assert not controller.report("0001", result(trial, 10))
    assert not controller.report("0001", result(trial, 20))
    assert controller.tables.trials["0001"]["step"] == 20


def test_a_worker_lost_again_and_again_without_a_report_fails_its_trial(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfsc_tune.search.failures._FIRST_PAUSE_SECONDS", 0.0)
    trial = start(controller)
    for step in (10, 20):
        for _ in range(MAX_RETRIES):
            controller.broke("0001", LOST)
            assert start(controller) is trial
        controller.report("0001", result(trial, step))
    for _ in range(MAX_RETRIES + 1):
        controller.broke("0001", LOST)
        following = start(controller)
    assert following.name == "0002"
    assert controller.tables.trials["0001"]["state"] == "failed"
    assert "lost (4 times" in controller.tables.trials["0001"]["error"]


def test_a_note_of_a_trial_is_shown_and_stays_in_its_row(
    request_: SearchRequest, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    text = "the checkpoint trial.pt is damaged"
    with closing(Ledger(folder)) as ledger:
        controller = open_controller(request_, folder, ledger)
        trial = start(controller)
        told = {**result(trial, 10).to_plain(), **note_to_plain(text)}
        tried = SimpleNamespace(config={"trial": trial.name})
        ControllerScheduler(controller).on_trial_result(None, tried, told)  # type: ignore[arg-type]
        console = Console(file=io.StringIO(), width=200)
        view = LiveView(controller, dict.fromkeys(CATEGORIES, ()), console)
        view.on_trial_result(0, [], tried, told)  # type: ignore[arg-type]
        assert console.file.getvalue() == f"trial 0001: {text}\n"  # type: ignore[attr-defined]
        assert controller.tables.trials["0001"]["error"] == text
        for step in (20, 30, 40):
            controller.report("0001", result(trial, step))
        rows = controller.tables.trials
        assert (rows["0001"]["state"], rows["0001"]["error"]) == ("complete", text)
        view.on_trial_complete(0, [], tried)  # type: ignore[arg-type]
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert "complete at step 40" in shown
        assert shown.count(text) == 1
    with closing(Ledger(folder)) as ledger:
        assert open_controller(request_, folder, ledger).tables.trials == rows


def test_a_bug_fails_its_trial_at_once(controller: Controller) -> None:
    start(controller)
    controller.broke("0001", BUG)
    assert controller.tables.trials["0001"]["state"] == "failed"
    assert controller.tables.trials["0001"]["error"] == "TypeError: a bug"
    assert start(controller).name == "0002"
    assert controller.stopped is None


def test_the_same_error_on_the_first_three_trials_stops_the_search(controller: Controller) -> None:
    for number in (1, 2, 3):
        start(controller)
        assert controller.stopped is None
        controller.broke(f"000{number}", Failure("bug", f"KeyError: 'x' at line {number}7"))
    assert "the first 3 trials failed with the same error" in str(controller.stopped)
    assert "KeyError" in str(controller.stopped)
    assert controller.next_trial() is None
    assert controller.starts_no_more


@pytest.mark.parametrize("first", ["another error", "a good one"])
def test_other_failures_do_not_stop_the_search(controller: Controller, first: str) -> None:
    trial = start(controller)
    if first == "a good one":
        controller.report("0001", result(trial, 40))
    else:
        controller.fail("0001", "ValueError")
    for number in range(2, 8):
        start(controller)
        controller.broke(f"000{number}", BUG)
    assert controller.stopped is None


def test_out_of_memory_is_tried_again_with_twice_the_share(
    request_: SearchRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfsc_tune.search.failures._FIRST_PAUSE_SECONDS", 0.0)
    resources = request_.space.resources.model_copy(update={"gpus_per_trial": 0.25})
    space = request_.space.model_copy(update={"resources": resources})
    folder = tmp_path / "run"
    folder.mkdir()
    controller = open_controller(replace(request_, space=space, gpus=1), folder, Ledger(folder))
    controller.capacity = 2
    shares = [start(controller).gpus]
    for _ in range(2):
        controller.broke("0001", classify(task_error(torch.OutOfMemoryError("CUDA out of memory"))))
        shares.append(start(controller).gpus)
    assert shares == [0.25, 0.5, 1.0]
    # The next trials are as large: they begin with the share that was enough.
    assert start(controller).gpus == 1.0
    controller.broke("0001", Failure("memory", "CUDA out of memory"))
    assert controller.tables.trials["0001"]["state"] == "failed"


def test_a_trial_that_hangs_is_ended(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = start(controller)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1e6)
    # Before the first report nothing is known of how long one takes.
    assert controller.hung() == []
    controller.report("0001", result(trial, 10))
    # One second a report: ten of them, and five minutes to start.
    monkeypatch.setattr(time, "monotonic", lambda: now + 1e6 + 309)
    assert controller.hung() == []
    monkeypatch.setattr(time, "monotonic", lambda: now + 1e6 + 311)
    assert controller.hung() == ["0001"]
    assert "no report for 310 s" in controller.tables.trials["0001"]["error"]
    # Its process is killed, and Tune tells of that: it is not tried again.
    controller.broke("0001", LOST)
    assert start(controller).name == "0002"


def test_a_trial_that_waits_for_a_place_does_not_hang(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.capacity = 2
    trial = start(controller)
    controller.report("0001", result(trial, 40))
    waiting = controller.next_trial()
    assert waiting is not None
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1e6)
    assert controller.hung() == []
    controller.started(waiting.name)
    monkeypatch.setattr(time, "monotonic", lambda: now + 2e6)
    assert controller.hung() == [waiting.name]


def test_a_disk_that_fails_stops_the_search_and_fails_no_trial(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfsc_tune.search.failures._FIRST_PAUSE_SECONDS", 0.0)
    start(controller)
    full = classify(task_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    console = Console(file=io.StringIO(), width=200)
    view = LiveView(controller, dict.fromkeys(CATEGORIES, ()), console)
    for attempt in range(MAX_RETRIES + 1):
        controller.broke("0001", full)
        view.on_trial_error(0, [], SimpleNamespace(config={"trial": "0001"}))
        assert (controller.stopped is None) == (attempt < MAX_RETRIES)
        controller.next_trial()
    assert isinstance(controller.stopped, StorageError)
    assert console.file.getvalue().count("is retried") == MAX_RETRIES
    controller.close()
    assert controller.tables.trials["0001"]["state"] == "interrupted"


def test_books_that_cannot_be_closed_are_told_and_nothing_is_published_from_old_ones(
    request_: SearchRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[object] = []
    monkeypatch.setattr(
        "dfsc_tune.search.run.finalize", lambda *args, **kwargs: published.append(args)
    )
    folder = tmp_path / "run"
    folder.mkdir()
    write_settings(folder, run_settings(CATEGORIES))

    def full() -> None:
        raise StorageError("cannot write trials.parquet (No space left on device)")

    with closing(Ledger(folder)) as ledger:
        controller = open_controller(request_, folder, ledger)
        play(controller)
        monkeypatch.setattr(controller.tables, "write", full)
        with pytest.raises(UserError, match=r"No space left on device.*check the disk"):
            finish_search(request_, controller, {}, folder, Console(quiet=True))
    assert not published


def test_checkpoints_are_kept_of_complete_trials_only(controller: Controller) -> None:
    for number, last_step in ((1, 40), (2, 10)):
        trial = start(controller)
        folder = controller.checkpoint_dir(f"000{number}")
        folder.mkdir(parents=True)
        for name in (CHECKPOINT, "trial.previous.pt"):
            (folder / name).touch()
        controller.report(f"000{number}", result(trial, last_step))
        if last_step < 40:
            controller.fail(f"000{number}", "no")
    assert [x.name for x in controller.checkpoint_dir("0001").iterdir()] == [CHECKPOINT]
    assert not controller.checkpoint_dir("0002").exists()


def test_tables_of_a_search_that_died_are_made_whole_again(
    request_: SearchRequest, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    write_settings(folder, run_settings(CATEGORIES))
    with closing(Ledger(folder)) as ledger:
        dying = open_controller(request_, folder, ledger)
        with pytest.raises(Crash):
            play(dying, crash_after=6)
    with closing(Ledger(folder)) as ledger:
        controller = open_controller(request_, folder, ledger)
        controller.close()
    run = results.load(folder)
    assert run.trials["state"].tolist().count("interrupted") == 1
    assert len(run.reports) == sum(run.trials["step"] // 10)
    assert not run.reports.duplicated(["trial", "step"]).any()
    assert "RUNNING" not in {state.name for _, state, *_ in optuna_trials(folder)}


def task_error(cause: Exception) -> RayTaskError:
    return RayTaskError("train", "a traceback", cause, proctitle="x", pid=1, ip="127.0.0.1")


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: task_error(TypeError("a bug")), "bug"),
        (lambda: task_error(ValueError("bad value")), "bug"),
        (lambda: task_error(torch.OutOfMemoryError("CUDA out of memory. Tried")), "memory"),
        (lambda: task_error(MemoryError()), "memory"),
        (lambda: task_error(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when")), "memory"),
        (lambda: task_error(RuntimeError("a shape is wrong")), "bug"),
        (lambda: task_error(OSError(errno.EIO, "I/O error")), "storage"),
        (lambda: task_error(StorageError("cannot write")), "storage"),
        (lambda: task_error(RayActorError(error_msg="an object's owner died")), "lost"),
        (lambda: RayActorError(error_msg="killed"), "lost"),
        (lambda: RayActorError(preempted=True), "preempted"),
        (lambda: RayActorError(error_msg="No module", actor_init_failed=True), "bug"),
    ],
)
def test_failures_are_told_apart(make: Callable[[], Exception], kind: str) -> None:
    assert classify(make()).kind == kind


def test_pauses_grow_and_preemptions_are_never_too_many() -> None:
    pauses = [next_attempt(LOST, n, 0).pause_seconds for n in range(MAX_RETRIES)]
    assert pauses == sorted(pauses)
    assert pauses[-1] > 10 * pauses[0]
    assert next_attempt(LOST, MAX_RETRIES, 0) is None
    assert next_attempt(Failure("preempted", ""), 99, 0) is not None
    assert next_attempt(BUG, 0, 0) is None


@pytest.mark.parametrize("worse", ["paper", "margin_0"])
def test_what_the_winner_is_compared_with_is_never_stopped_early(
    worse: str, request_: SearchRequest, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with closing(Ledger(folder)) as ledger:
        controller = open_controller(replace(request_, categories=("tray",)), folder, ledger)
        controller.capacity = 2
        started = (controller.next_trial(), controller.next_trial())
        trials = {trial.role: trial for trial in started if trial}
        assert set(trials) == {"paper", "margin_0"}
        last = trials.pop(worse)
        (first,) = trials.values()
        for step in (10, 20, 30):
            for trial, value in ((first, 0.9), (last, 0.1)):
                report = result(trial, step)
                progress = replace(report.progress, value=value)
                assert not controller.report(trial.name, replace(report, progress=progress))
