"""`dfsc-tune teacher` and --teacher, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import Result

from dfsc_tune.models.pdn import build_pdn, teacher_channels
from tests.support.commands import invoke


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_data_dir", lambda name: str(tmp_path / name))


def teacher(*arguments: str | Path) -> Result:
    return invoke("teacher", *arguments)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "own.safetensors"
    torch.manual_seed(0)
    save_file(build_pdn("tiny", teacher_channels("tiny")).state_dict(), path)
    return path


def test_a_registered_teacher_is_listed_and_shown(weights: Path) -> None:
    result = teacher("use", weights, "--name", "mine")
    assert result.exit_code == 0, result.output
    assert Path(result.stdout.strip()).is_file()
    assert "--teacher mine" in result.stderr
    listed = {row["name"]: row for row in json.loads(teacher("list", "--json").stdout)}
    assert listed["mine"]["network"] == "tiny"
    assert listed["mine"]["there"]
    assert listed["tiny"]["there"]
    assert not listed["anomalib-small"]["there"]
    assert "dfsc-tune teacher fetch anomalib-small" in teacher("list").stdout
    card = json.loads(teacher("info", "mine", "--json").stdout)
    assert card["origin"] == "registered by its user from own.safetensors"
    by_file = json.loads(teacher("info", weights, "--json").stdout)
    assert by_file["teacher_sha256"] == card["teacher_sha256"]
    assert f"teacher_sha256: {card['teacher_sha256']}" in teacher("info", "mine").stdout


def test_a_damaged_teacher_does_not_hide_the_others(weights: Path) -> None:
    damaged = Path(teacher("use", weights, "--name", "mine").stdout.strip())
    damaged.with_name("note.pth").write_text("no weights")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    result = teacher("list", "--json")
    assert result.exit_code == 0, result.output
    names = {row["name"] for row in json.loads(result.stdout)}
    assert "tiny" in names
    assert not {"mine", "note"} & names
    assert result.stderr.count("warning: ") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("info", "nobody"), "no teacher named 'nobody'"),
        (("fetch", "nobody"), "no public teacher 'nobody'"),
        (("use", "nowhere.pth"), "no teacher weights at"),
        (("use", "own.safetensors", "--name", "random"), "cannot be named 'random'"),
        (("distill", "--images", ".", "--layers", "four"), "--layers takes numbers"),
        (("distill", "--images", ".", "--backbone", "vgg"), "no backbone 'vgg'"),
        (("distill", "--images", "."), "no images in"),
    ],
)
def test_mistakes_are_one_sentence(weights: Path, arguments: tuple[str, ...], message: str) -> None:
    result = teacher(*arguments)
    assert result.exit_code == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
