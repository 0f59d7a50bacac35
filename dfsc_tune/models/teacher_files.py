"""Teacher files: which one a setting names, and the card that says what it is.

A teacher is a weights file and, where we made or fetched it, a card of the same name beside it.
Some are shipped in the package; others lie in the user's data folder.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, get_args

from pydantic import Field

from dfsc_tune.config import ModelConfig, Network
from dfsc_tune.errors import UserError
from dfsc_tune.models.distill_config import DistillConfig
from dfsc_tune.settings import Settings, load
from dfsc_tune.storage.digest import file_sha256
from dfsc_tune.storage.places import data_folder

RANDOM = "random"
"""The value of `model.teacher` that asks for fixed random features."""

WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt")
_SHIPPED = Path(__file__).parent / "weights"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class TeacherCard(Settings):
    """`NAME.yaml` beside a teacher's weights: where they come from and what may be done with them.

    What does not apply to weights that were fetched or registered is none.
    """

    network: Network
    origin: str
    """One sentence: what the weights are and who made them."""
    licence: str | None = None
    source: str | None = None
    """The address or file that the weights were taken from."""
    file_sha256: str
    """Of the weights file."""
    teacher_sha256: str
    """Of the network's float32 tensors: what every run records of its teacher."""
    dfsc_tune_version: str | None = None
    command: str | None = None
    """What was typed to make it."""
    distilled: DistillConfig | None = None
    """The settings, where it was distilled."""
    images: str | None = None
    """What the photographs were, and their licence."""
    num_images: int | None = None
    seconds: float | None = None
    hardware: str | None = None
    loss_curve: Annotated[
        tuple[Annotated[tuple[int, float], Field(strict=False)], ...] | None, Field(strict=False)
    ] = None
    """Steps done, and the mean squared error per normalised feature since the entry before."""


def teacher_path(model: ModelConfig) -> Path | None:
    """The weights file that `model.teacher` names; None where fixed random features serve.

    Left out, it means the teacher shipped for the network, and random features where none is.
    `random` means random features, a file is itself, a name is one in the user's data folder.

    Raises:
        UserError: there is no such file or name.
    """
    if model.teacher is None:
        shipped = shipped_teacher(model.network)
        return shipped if shipped.is_file() else None
    if model.teacher == RANDOM:
        return None
    return find_teacher(model.teacher)


def random_teacher_warning(model: ModelConfig) -> str | None:
    """What a user should hear before training on random features; None where a real teacher serves.

    Raises:
        UserError: the settings name no teacher that is there.
    """
    if teacher_path(model) is not None:
        return None
    if model.teacher == RANDOM:
        return "model.teacher is 'random': random features find few logical defects"
    return (
        f"no teacher is shipped for network '{model.network}', so fixed random features serve, "
        "which find few logical defects; run `dfsc-tune teacher list` and set model.teacher"
    )


def find_teacher(name: str) -> Path:
    """The weights file of a shipped, fetched or registered teacher, or of a path.

    Raises:
        UserError: there is none.
    """
    if is_path(name):
        path = Path(name)
        if not path.is_file():
            raise UserError(
                f"no teacher weights at {path}; give a .safetensors or .pth file; if it was moved, "
                "say where it is now by --teacher, in a config by model.teacher"
            )
        return path
    known = known_teachers()
    if name not in known:
        raise UserError(
            f"no teacher named '{name}'; there are {', '.join((*known, RANDOM))}: get one with "
            "`dfsc-tune teacher fetch` or `dfsc-tune teacher use FILE`, or give a weights file"
        )
    return known[name]


def known_teachers() -> dict[str, Path]:
    """The weights files of all teachers that have a name, shipped ones first."""
    found: dict[str, Path] = {}
    for folder in (_SHIPPED, user_folder()):
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                if path.suffix in WEIGHTS_SUFFIXES and not path.name.startswith("."):
                    found.setdefault(path.stem, path)
    return found


def shipped_teacher(network: Network) -> Path:
    """Where the package has, or would have, its own teacher for a network."""
    return _SHIPPED / f"{network}.safetensors"


def user_folder() -> Path:
    """Where this user's fetched and registered teachers lie."""
    return data_folder() / "teachers"


def check_name(name: str) -> str:
    """Refuses a name under which a teacher could not be found again."""
    taken = {RANDOM, *(path.stem for path in _SHIPPED.glob("*.safetensors")), *get_args(Network)}
    if not _NAME.fullmatch(name) or is_path(name) or name in taken:
        raise UserError(
            f"a teacher cannot be named '{name}'; use letters, digits, '-' and '_', and none of "
            f"{', '.join(sorted(taken))}"
        )
    return name


def is_path(teacher: str) -> bool:
    """Whether a teacher setting is meant as a file, not as a name."""
    return teacher.endswith(WEIGHTS_SUFFIXES) or Path(teacher).name != teacher


def card_path(weights: Path) -> Path:
    """Where the card of a weights file lies."""
    return weights.with_suffix(".yaml")


def read_card(weights: Path) -> TeacherCard | None:
    """The card beside a weights file; None where there is none.

    Raises:
        UserError: the card is broken, or the weights are not those that it describes.
    """
    path = card_path(weights)
    if not path.is_file():
        return None
    try:
        card = load(path, TeacherCard)
    except UserError as error:
        raise UserError(
            f"{error}; it was read as the card of the teacher {weights.name}: if it is none, copy "
            "the weights to another folder"
        ) from error
    _check_described(weights, card)
    return card


def check_by_card(weights: Path) -> None:
    """Refuses weights that are not those that their card describes, if they have one."""
    try:
        card = load(card_path(weights), TeacherCard)
    except (UserError, OSError):
        # What lies beside a weights file need not be a card of ours.
        return
    _check_described(weights, card)


def _check_described(weights: Path, card: TeacherCard) -> None:
    if card.file_sha256 != file_sha256(weights):
        raise UserError(
            f"{weights} is not the file that {card_path(weights)} describes; fetch or make it again"
        )
