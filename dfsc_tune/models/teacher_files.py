"""Finds the teacher file that a setting names, and reads the card that describes it.

A teacher is a weights file and, if this tool made or fetched it, a card of the same name beside it.
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
from dfsc_tune.storage.places import data_folder, found_data_folder

RANDOM = "random"
"""The value of `model.teacher` that asks for fixed random features."""

WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt")
_SHIPPED = Path(__file__).parent / "weights"
_KEPT = "teachers"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class TeacherCard(Settings):
    """`NAME.yaml` beside a teacher's weights: their origin and their licence.

    Fields that do not apply to fetched or registered weights are None.
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
    """Of the network's float32 tensors; every run records it."""
    dfsc_tune_version: str | None = None
    command: str | None = None
    """The command that made it."""
    distilled: DistillConfig | None = None
    """The settings of its distillation."""
    images: str | None = None
    """The photographs and their licence."""
    num_images: int | None = None
    seconds: float | None = None
    hardware: str | None = None
    loss_curve: Annotated[
        tuple[Annotated[tuple[int, float], Field(strict=False)], ...] | None, Field(strict=False)
    ] = None
    """Steps done, and the mean squared error per normalised feature since the previous entry."""


def teacher_path(model: ModelConfig) -> Path | None:
    """Returns the weights file that `model.teacher` names; None for fixed random features.

    The setting may be a file, the name of a teacher in the user's data folder, or `random`. Left
    out, it means the teacher shipped for the network, or random features if none is shipped.

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
    """Returns the warning to give before a training on random features; None for a real teacher.

    Raises:
        UserError: the settings name a teacher that does not exist.
    """
    if teacher_path(model) is not None:
        return None
    if model.teacher == RANDOM:
        return "model.teacher is 'random': random features find few logical defects"
    return (
        f"no teacher is shipped for network '{model.network}', so fixed random features are used, "
        "which find few logical defects; run `dfsc-tune teacher list` and set model.teacher"
    )


def find_teacher(name: str) -> Path:
    """Returns the weights file of a shipped, fetched or registered teacher, or of a path.

    Raises:
        UserError: there is no such teacher.
    """
    if is_path(name):
        path = Path(name)
        if not path.is_file():
            raise UserError(
                f"no teacher weights at {path}; give a .safetensors or .pth file; if it was moved, "
                "give its new path by --teacher or, in a config, by model.teacher"
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
    """Returns the weights files of all named teachers, shipped ones first."""
    found: dict[str, Path] = {}
    kept = found_data_folder()
    for folder in (_SHIPPED, kept / _KEPT if kept else None):
        if folder is not None and folder.is_dir():
            for path in sorted(folder.iterdir()):
                if path.suffix in WEIGHTS_SUFFIXES and not path.name.startswith("."):
                    found.setdefault(path.stem, path)
    return found


def shipped_teacher(network: Network) -> Path:
    """Returns the path of the package's own teacher for a network, whether it is shipped or not."""
    return _SHIPPED / f"{network}.safetensors"


def user_folder() -> Path:
    """Returns the folder of this user's fetched and registered teachers, made if need be."""
    return data_folder() / _KEPT


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
    """Returns whether a teacher setting is meant as a file, not as a name."""
    return teacher.endswith(WEIGHTS_SUFFIXES) or Path(teacher).name != teacher


def card_path(weights: Path) -> Path:
    """Returns the path of a weights file's card."""
    return weights.with_suffix(".yaml")


def read_card(weights: Path) -> TeacherCard | None:
    """Reads the card beside a weights file; None if there is none.

    Raises:
        UserError: the card is damaged, or describes other weights.
    """
    path = card_path(weights)
    if not path.is_file():
        return None
    try:
        card = load(path, TeacherCard)
    except UserError as error:
        raise UserError(
            f"{error}; it was read as the card of the teacher {weights.name}; if it is not one, "
            "copy the weights to another folder"
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
