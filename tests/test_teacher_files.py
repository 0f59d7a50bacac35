"""Which teacher a setting names, the cards beside weights, and the teachers shipped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import save_file

from dfsc_tune.config import ModelConfig, Network
from dfsc_tune.errors import UserError
from dfsc_tune.models import teacher_files
from dfsc_tune.models.pdn import build_pdn, teacher_channels
from dfsc_tune.models.state_dicts import pdn_sha256, read_pdn
from dfsc_tune.models.teacher import load_teacher, teacher_identity
from dfsc_tune.models.teacher_files import (
    card_path,
    find_teacher,
    known_teachers,
    random_teacher_warning,
    read_card,
    shipped_teacher,
    teacher_path,
)
from dfsc_tune.teachers.fetch import use_teacher

SHIPPED = [network for network in get_args(Network) if shipped_teacher(network).is_file()]


@pytest.fixture(autouse=True)
def _own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))


def model(teacher: str | None, network: str = "tiny") -> ModelConfig:
    return ModelConfig(network=network, image_size=128, teacher=teacher)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "own.safetensors"
    torch.manual_seed(3)
    save_file(build_pdn("tiny", teacher_channels("tiny")).state_dict(), path)
    return path


def test_without_a_setting_the_shipped_teacher_serves() -> None:
    assert "tiny" in SHIPPED
    assert teacher_path(model(None)) == shipped_teacher("tiny")
    assert random_teacher_warning(model(None)) is None
    shipped = load_teacher(model(None))
    assert teacher_identity(shipped) != teacher_identity(load_teacher(model("random")))


def test_random_features_serve_only_when_asked_for_or_nothing_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = random_teacher_warning(model("random"))
    assert asked is not None
    assert "'random'" in asked
    monkeypatch.setattr(teacher_files, "_SHIPPED", tmp_path / "nothing")
    assert teacher_path(model(None)) is None
    missing = random_teacher_warning(model(None))
    assert missing is not None
    assert "no teacher is shipped for network 'tiny'" in missing
    assert teacher_identity(load_teacher(model(None))) == teacher_identity(
        load_teacher(model("random"))
    )


def test_a_file_and_a_registered_name_give_the_same_teacher(weights: Path) -> None:
    by_file = load_teacher(model(str(weights)))
    assert use_teacher(weights, "mine").is_file()
    assert teacher_identity(load_teacher(model("mine"))) == teacher_identity(by_file)
    assert random_teacher_warning(model("mine")) is None
    card = read_card(known_teachers()["mine"])
    assert card is not None
    assert card.teacher_sha256 == teacher_identity(by_file)
    # Again is no mistake; other weights of that name are.
    use_teacher(weights, "mine")
    save_file(build_pdn("tiny", teacher_channels("tiny")).state_dict(), weights)
    with pytest.raises(UserError, match="'mine' is taken"):
        use_teacher(weights, "mine")


@pytest.mark.parametrize("name", ["random", "tiny", "medium", "a b", "x.pth", ".hidden", "a/b"])
def test_names_that_would_not_be_found_again_are_refused(weights: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot be named"):
        use_teacher(weights, name)


def test_unknown_names_and_files_are_refused() -> None:
    with pytest.raises(UserError, match=r"no teacher named 'nobody'; there are .*tiny.*random"):
        load_teacher(model("nobody"))
    with pytest.raises(UserError, match="no teacher weights at"):
        load_teacher(model("nobody.pth"))
    with pytest.raises(UserError, match="no teacher weights at"):
        find_teacher("./nobody")


def test_a_weights_file_of_no_network_is_not_registered(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"0.weight": torch.zeros(2, 3, 4, 4)}, path)
    with pytest.raises(UserError, match="fits no teacher of tiny, small, medium"):
        use_teacher(path)
    assert "other" not in known_teachers()


def test_the_error_names_the_network_that_weights_are_for(weights: Path) -> None:
    with pytest.raises(UserError, match=r"a network other than 'small'.*'tiny'"):
        load_teacher(model(str(weights), "small"))


def test_a_card_of_other_weights_is_refused(tmp_path: Path, weights: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    shutil.copyfile(weights, copy)
    shutil.copyfile(card_path(shipped_teacher("tiny")), card_path(copy))
    with pytest.raises(UserError, match="is not the file that"):
        read_card(copy)
    card_path(copy).write_text("of another program: 1")
    with pytest.raises(UserError, match=r"unknown key.*read as the card of"):
        read_card(copy)


@pytest.mark.parametrize("network", SHIPPED)
def test_shipped_weights_are_those_of_their_card(network: Network) -> None:
    path = shipped_teacher(network)
    card = read_card(path)  # Checks the file's own sha256.
    assert card is not None
    assert card.network == network
    assert card.teacher_sha256 == pdn_sha256(read_pdn(path, network))
    assert card.teacher_sha256 == teacher_identity(load_teacher(model(None, network)))
    assert card.distilled is not None
    assert card.licence
    assert card.images
    assert card.loss_curve is not None
    assert card.loss_curve[-1][0] == card.distilled.num_steps
    assert card.loss_curve[-1][1] < card.loss_curve[0][1]
