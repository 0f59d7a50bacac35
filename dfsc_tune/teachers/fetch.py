"""Fetches public teachers, and registers a user's own, under names that `model.teacher` takes.

A download is put in place only after its sha256 is checked and a network has loaded it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from dfsc_tune.config import Network
from dfsc_tune.errors import UserError
from dfsc_tune.models.state_dicts import network_of, pdn_sha256, read_pdn
from dfsc_tune.models.teacher_files import (
    TeacherCard,
    card_path,
    check_name,
    find_teacher,
    known_teachers,
    read_card,
    user_folder,
)
from dfsc_tune.settings import dump
from dfsc_tune.storage.atomic import atomic_path, write_text
from dfsc_tune.storage.digest import file_sha256
from dfsc_tune.storage.download import TIMEOUT_SECONDS, PublishedFile, Update, download


@dataclass(frozen=True)
class PublicTeacher:
    """Weights that others have published."""

    network: Network
    file: PublishedFile
    origin: str
    licence: str
    member: str | None = None
    """The wanted file, if the address is that of a zip archive."""


_ANOMALIB = PublishedFile(
    url="https://github.com/open-edge-platform/anomalib/releases/download/"
    "efficientad_pretrained_weights/efficientad_pretrained_weights.zip",
    sha256="c09aeaa2b33f244b3261a5efdaeae8f8284a949470a4c5a526c61275fe62684a",
)
_ANOMALIB_ORIGIN = "anomalib's EfficientAD teacher, distilled from WideResNet-101-2 on ImageNet"

PUBLIC_TEACHERS: dict[str, PublicTeacher] = {
    "anomalib-small": PublicTeacher(
        network="small",
        file=_ANOMALIB,
        origin=_ANOMALIB_ORIGIN,
        licence="Apache-2.0 (anomalib)",
        member="pretrained_teacher_small.pth",
    ),
    "anomalib-medium": PublicTeacher(
        network="medium",
        file=_ANOMALIB,
        origin=_ANOMALIB_ORIGIN,
        licence="Apache-2.0 (anomalib)",
        member="pretrained_teacher_medium.pth",
    ),
    "nelson1425-small": PublicTeacher(
        network="small",
        file=PublishedFile(
            url="https://github.com/nelson1425/EfficientAD/raw/main/models/teacher_small.pth",
            sha256="b98a6a139087a0d743783ee59f367f0284af6003eb1a5fed0ce92bd9c0acd337",
            num_bytes=10_779_715,
        ),
        origin="nelson1425/EfficientAD's teacher, distilled from WideResNet-101-2 on ImageNet",
        licence="Apache-2.0 (nelson1425/EfficientAD)",
    ),
}


def fetch_teacher(name: str, update: Update, timeout_seconds: float = TIMEOUT_SECONDS) -> Path:
    """Returns the file of a public teacher, downloading and checking it unless it is there whole.

    Args:
        name: one of `PUBLIC_TEACHERS`.
        update: called with the progress of the download.
        timeout_seconds: how long the server may be silent.

    Raises:
        UserError: there is no such teacher, it cannot be reached, or the download differs from the
            published file.
    """
    if name not in PUBLIC_TEACHERS:
        raise UserError(
            f"no public teacher '{name}'; choose from {', '.join(PUBLIC_TEACHERS)}, or register a "
            "file with `dfsc-tune teacher use FILE`"
        )
    public = PUBLIC_TEACHERS[name]
    path = user_folder() / f"{name}.pth"
    if _is_whole(path):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        weights = Path(folder) / path.name
        download(
            public.file,
            weights,
            update,
            by_hand="download it elsewhere and register it with `dfsc-tune teacher use FILE`",
            timeout_seconds=timeout_seconds,
        )
        if public.member is not None:
            _extract(weights, public.member)
        _install(weights, path, _card(weights, public))
    return path


def use_teacher(file: Path, name: str | None = None) -> Path:
    """Registers a weights file: copies it into the user's data folder under a name.

    Args:
        file: a .safetensors or .pth file, with or without its card beside it.
        name: its name for `model.teacher`; by default, the file's own name.

    Raises:
        UserError: the file is not a teacher, or the name is not allowed or taken by other weights.
    """
    given = find_teacher(os.path.realpath(file))
    suffix = ".safetensors" if given.suffix == ".safetensors" else ".pth"
    path = user_folder() / (check_name(name or given.stem) + suffix)
    taken = known_teachers().get(path.stem)
    if taken is not None and file_sha256(taken) != file_sha256(given):
        raise UserError(
            f"the name '{path.stem}' is taken by {taken}; choose another with --name, or delete "
            "that file"
        )
    if taken is None:
        _install(given, path, read_card(given) or _card(given))
    return taken or path


def _is_whole(weights: Path) -> bool:
    """Returns whether a weights file is there and is the one that its card describes."""
    try:
        return weights.is_file() and read_card(weights) is not None
    except UserError:
        return False


def _extract(archive: Path, member: str) -> None:
    """Replaces an archive by one of its members."""
    with zipfile.ZipFile(archive) as opened:
        name = next(x for x in opened.namelist() if Path(x).name == member)
        content = opened.read(name)
    archive.write_bytes(content)


def _card(weights: Path, public: PublicTeacher | None = None) -> TeacherCard:
    """Makes the card of other people's weights; raises UserError if they are not a teacher."""
    network = public.network if public else network_of(weights)
    return TeacherCard(
        network=network,
        origin=public.origin if public else f"registered by its user from {weights.name}",
        licence=public.licence if public else None,
        source=public.file.url if public else None,
        file_sha256=file_sha256(weights),
        teacher_sha256=pdn_sha256(read_pdn(weights, network)),
    )


def _install(weights: Path, path: Path, card: TeacherCard) -> None:
    """Puts checked weights and their card in place; the card last, as it confirms the weights."""
    read_pdn(weights, card.network)
    with atomic_path(path) as temporary:
        shutil.copyfile(weights, temporary)
    write_text(card_path(path), dump(card))
