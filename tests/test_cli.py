"""The command line without Ray: help, errors in one sentence, exit statuses, data commands."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfsc_tune.cli.asked import asked_categories
from dfsc_tune.cli.printing import say_next, talk
from dfsc_tune.results import resume_command
from tests.support.commands import assert_one_sentence, invoke
from tests.support.trays import CATEGORY, make_tray


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_what_others_say_is_not_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    text = "OSError: [/mnt/a] [red]cannot[/red] be read :warning:"
    talk().print(text)
    assert capsys.readouterr().err == f"{text}\n"


def test_help_is_instant() -> None:
    command = [sys.executable, "-c", "from dfsc_tune.cli import app; app()", "--help"]
    seconds = []
    for _ in range(3):
        # Of the processor, not of the clock: other tests run beside it.
        start = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True)
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(end.ru_utime - start.ru_utime + end.ru_stime - start.ru_stime)
    assert min(seconds) < 0.5


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from dfsc_tune.cli import app;"
        "CliRunner().invoke(app, ['search', '--help']);"
        "print([x for x in ('torch', 'ray', 'optuna', 'pandas', 'scipy') if x in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["--category", "nope"], ["no built-in category 'nope'", "screw_bag"]),
        (["--category", "nope", "--data", "data"], ["nope", CATEGORY]),
        (["--category", CATEGORY, "--data", "missing"], ["missing"]),
        (["--category", CATEGORY, "--data", f"data/{CATEGORY}"], ["--category"]),
        (["--category", CATEGORY, "--data", "data", "--space", "nope"], ["no search space 'nope'"]),
        (["--category", CATEGORY, "--data", "data", "--gpus", "8"], ["8 GPUs", "--device cpu"]),
        (["--category", CATEGORY, "--data", "data", "--address", "127.0.0.1:9"], ["127.0.0.1:9"]),
        (["--category", CATEGORY, "--data", "data", "--gpus-per-trial", "1.5"], ["whole number"]),
        (["--category", CATEGORY, "--data", "data", "--objective", "luck"], ["objective.name"]),
        (["--category", CATEGORY, "--data", "data", "--metric", "f1"], ["objective.metric"]),
        (["--category", CATEGORY, "--data", "data", "--device", "tpu"], ["--device"]),
        (["--category", CATEGORY, "--data", "data", "--teacher", "t.pth"], ["no teacher weights"]),
        (["--category", CATEGORY, "--data", "data", "--results", "file/results"], ["cannot write"]),
        (["--category", CATEGORY, "--data", "data", "--name", "a/b"], ["--name", "'a/b'"]),
    ],
)
def test_search_refuses_bad_input_and_leaves_nothing(
    arguments: list[str], texts: list[str]
) -> None:
    make_tray(Path("data"))
    Path("file").write_text("in the way")
    assert_one_sentence(invoke("search", *arguments), *texts)
    assert not list(Path("results").glob("*"))


def test_search_refuses_broken_images() -> None:
    make_tray(Path("data"))
    broken = Path("data") / CATEGORY / "train" / "good" / "001.png"
    broken.write_bytes(broken.read_bytes()[:500])
    result = invoke("search", "--category", CATEGORY, "--data", "data")
    assert_one_sentence(result, "001.png", "dfsc-tune data check")
    assert not list(Path("results").glob("*"))


def test_a_category_called_all_can_be_searched_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("all", "nut"):
        Path("data", name, "train", "good").mkdir(parents=True)
    assert asked_categories(["all"], "data") == ["all"]
    assert "name each of the others" in capsys.readouterr().err
    assert asked_categories(["nut", "all", "nut"], "data") == ["nut", "all"]
    assert asked_categories([], "data") == ["all", "nut"]
    Path("data", "all").rename("data/bolt")
    assert asked_categories(["all"], "data") == ["bolt", "nut"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "--category", CATEGORY, "--data", "loop"],
        ["plan", "--category", CATEGORY, "--data", "loop"],
        ["data", "check", "loop"],
        ["predict", "loop", "loop"],
        ["evaluate", "loop", "--data", "loop"],
        ["evaluate", "--maps", "loop", "--category", CATEGORY, "--data", "data"],
        ["train", "--config", "loop"],
        ["teacher", "use", "loop"],
    ],
)
def test_a_link_that_leads_back_is_one_sentence(arguments: list[str]) -> None:
    Path("loop").symlink_to("loop")
    make_tray(Path("data"), num_train=2, num_test=2)
    assert_one_sentence(invoke(*arguments))


def test_a_holdout_without_labels_says_what_is_needed() -> None:
    make_tray(Path("data"))
    for kind in ("logical", "structural"):
        shutil.rmtree(Path("data") / CATEGORY / "test" / f"{kind}_anomalies")
    asked = ("search", "--category", CATEGORY, "--data", "data", "--objective", "holdout")
    result = invoke(*asked)
    assert_one_sentence(result, "no labelled anomalies", "test/<defect type>")


def test_names_with_brackets_and_spaces_are_said_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    talk().print("reading box [red]")
    say_next("report", Path("results") / "box [red]")
    assert capsys.readouterr().err == (
        "reading box [red]\nnext: dfsc-tune report 'results/box [red]'\n"
    )
    say_next("search", "--category=a\nnext: rm")
    assert capsys.readouterr().err == "next: dfsc-tune search '--category=a\\nnext: rm'\n"
    assert resume_command(Path("results") / "box [red]") == "dfsc-tune resume 'box [red]'"


def test_best_and_runs_without_runs() -> None:
    assert_one_sentence(invoke("best", "nope"), "no run 'nope'", "none")
    result = invoke("runs")
    assert result.exit_code == 0
    assert "no runs" in result.stdout
    Path("file").write_text("")
    assert_one_sentence(invoke("runs", "--results", "file"), "file is a file, and not a folder")


@pytest.mark.parametrize("option", ["--top", "--seeds"])
def test_a_confirmation_without_bounds_is_refused(option: str) -> None:
    result = invoke("confirm", "x", option, "99999999999")
    assert result.exit_code == 2
    assert "1000" in result.stderr


def test_train_names_the_line_of_a_bad_config() -> None:
    Path("config.yaml").write_text("category: tray\nloss:\n  margin: 5\n")
    assert_one_sentence(invoke("train", "--config", "config.yaml"), "config.yaml:3: loss.margin")


def test_predict_and_evaluate_want_a_model_folder() -> None:
    Path("empty").mkdir()
    for command in (["predict", "empty", "empty"], ["evaluate", "empty"]):
        assert_one_sentence(invoke(*command), "model.yaml")


def test_data_make_and_check_agree() -> None:
    made = invoke(
        "data", "make", "built", "--category", "juice_bottle", "--height", "64", "--train", "3",
        "--validation", "2", "--test-good", "2", "--logical", "3", "--structural", "3",
        "--workers", "1",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    checked = invoke("data", "check", "built", "--json")
    assert checked.exit_code == 0, checked.output
    (found,) = json.loads(checked.stdout)
    counts = {}
    for row in found["counts"]:
        key = (row["split"], row["kind"])
        counts[key] = counts.get(key, 0) + row["images"]
    assert counts == {
        ("train", "good"): 3,
        ("validation", "good"): 2,
        ("test", "good"): 2,
        ("test", "logical"): 3,
        ("test", "structural"): 3,
    }
    again = invoke("data", "make", "built", "--category", "juice_bottle", "--height", "64")
    assert_one_sentence(again, "juice_bottle")


def test_data_check_names_problems_and_fails() -> None:
    make_tray(Path("data"))
    folder = Path("data") / CATEGORY
    (folder / "test" / "good" / "003.png").write_bytes(b"rubbish")
    shutil.copy(folder / "train" / "good" / "000.png", folder / "test" / "good" / "009.png")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(folder / "train" / "good" / "tiny.png")
    result = invoke("data", "check", "data")
    assert result.exit_code == 1
    assert result.stdout.count("PROBLEM") == 2
    assert "9×9" in result.stdout


def test_data_check_says_how_a_category_can_be_searched() -> None:
    make_tray(Path("data"))
    told = invoke("data", "check", "data")
    assert told.exit_code == 0
    assert (
        "can be searched with --objective holdout (if left out), synthetic, oracle" in told.stdout
    )
    # Three good images, one of which is held out: too few for a search without labels.
    for split in ("test", "validation"):
        shutil.rmtree(Path("data") / CATEGORY / split)
    for index in (3, 4, 5):
        (Path("data") / CATEGORY / "train" / "good" / f"00{index}.png").unlink()
    told = invoke("data", "check", "data")
    assert told.exit_code == 1
    assert "can be searched" not in told.stdout
    assert "not with --objective oracle: category 'tray'" in told.stdout
    (sentence,) = (x for x in told.stdout.splitlines() if "PROBLEM" in x)
    search = invoke("search", "--category", CATEGORY, "--data", "data", "--space", "smoke")
    assert_one_sentence(search, sentence.split("refused: ")[1])
    (found,) = json.loads(invoke("data", "check", "data", "--json").stdout)
    assert set(found["refused_objectives"]) == {"auto", "holdout", "synthetic", "oracle"}


def test_real_photographs_are_read(photographs: Path) -> None:
    (found,) = json.loads(invoke("data", "check", photographs, "--json").stdout)
    assert (found["name"], found["layout"]) == ("cookies", "mvtec_ad")
    assert not found["problems"]


def test_an_unwritable_cache_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert_one_sentence(invoke("search", "--category", "juice_bottle"), "file")


@pytest.mark.parametrize(
    ("error", "texts"),
    [
        (PermissionError(13, "Permission denied", "data/box"), ["data/box", "Permission denied"]),
        (MemoryError("Unable to allocate 726. GiB"), ["726. GiB", "image_size"]),
    ],
)
def test_what_the_machine_refuses_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, error: Exception, texts: list[str]
) -> None:
    def refuse(folder: Path) -> None:
        raise error

    monkeypatch.setattr("dfsc_tune.data.check.check_data", refuse)
    assert_one_sentence(invoke("data", "check", "data"), *texts)


def test_commands_stay_quiet_when_their_reader_has_gone() -> None:
    make_tray(Path("data"), num_train=2, num_test=2)
    code = "from dfsc_tune.cli import app; app()"
    command = f"{sys.executable} -c '{code}' data check data | true"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=dict(os.environ), check=True
    )
    assert "Traceback" not in done.stderr
