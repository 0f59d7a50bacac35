"""Fetches public teachers, and registers a user's own, under names that `model.teacher` takes.

A download goes to a temporary file, is checked by its sha256 and tried as a network, and only then
takes its place: half a download is never used.
"""

from __future__ import annotations

import http.client
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dfsc_tune.checkpoint import atomic_path, write_text
from dfsc_tune.config import Network, dump
from dfsc_tune.errors import UserError
from dfsc_tune.models.state_dicts import network_of, pdn_sha256, read_pdn
from dfsc_tune.models.teacher_files import (
    TeacherCard,
    card_path,
    check_name,
    file_sha256,
    find_teacher,
    known_teachers,
    read_card,
    user_folder,
)

_CHUNK = 1 << 16
_TIMEOUT_SECONDS = 30
# Far above any public teacher; ends a download that would fill the disk.
_MAX_BYTES = 500_000_000


@dataclass(frozen=True)
class PublicTeacher:
    """Weights that others have published."""

    network: Network
    url: str
    sha256: str
    """Of what lies at the address."""
    origin: str
    licence: str
    num_bytes: int | None = None
    """Of what lies at the address, where known."""
    member: str | None = None
    """The file wanted, where the address is a zip archive's."""


_ANOMALIB = (
    "https://github.com/open-edge-platform/anomalib/releases/download/"
    "efficientad_pretrained_weights/efficientad_pretrained_weights.zip"
)
_ANOMALIB_SHA256 = "c09aeaa2b33f244b3261a5efdaeae8f8284a949470a4c5a526c61275fe62684a"
_ANOMALIB_ORIGIN = "anomalib's EfficientAD teacher, distilled from WideResNet-101-2 on ImageNet"

PUBLIC_TEACHERS: dict[str, PublicTeacher] = {
    "anomalib-small": PublicTeacher(
        network="small",
        url=_ANOMALIB,
        sha256=_ANOMALIB_SHA256,
        origin=_ANOMALIB_ORIGIN,
        licence="Apache-2.0 (anomalib)",
        member="pretrained_teacher_small.pth",
    ),
    "anomalib-medium": PublicTeacher(
        network="medium",
        url=_ANOMALIB,
        sha256=_ANOMALIB_SHA256,
        origin=_ANOMALIB_ORIGIN,
        licence="Apache-2.0 (anomalib)",
        member="pretrained_teacher_medium.pth",
    ),
    "nelson1425-small": PublicTeacher(
        network="small",
        url="https://github.com/nelson1425/EfficientAD/raw/main/models/teacher_small.pth",
        sha256="b98a6a139087a0d743783ee59f367f0284af6003eb1a5fed0ce92bd9c0acd337",
        origin="nelson1425/EfficientAD's teacher, distilled from WideResNet-101-2 on ImageNet",
        licence="Apache-2.0 (nelson1425/EfficientAD)",
        num_bytes=10_779_715,
    ),
}


def fetch_teacher(
    name: str, progress: Callable[[int, int], None], timeout_seconds: float = _TIMEOUT_SECONDS
) -> Path:
    """The file of a public teacher, downloaded and checked unless it is there already.

    Args:
        name: one of `PUBLIC_TEACHERS`.
        progress: told the bytes done, and the bytes in all or 0 where unknown.
        timeout_seconds: how long the other side may be silent.

    Raises:
        UserError: there is no such teacher, it cannot be reached, or what came is not what was
            published.
    """
    if name not in PUBLIC_TEACHERS:
        raise UserError(
            f"no public teacher '{name}'; choose from {', '.join(PUBLIC_TEACHERS)}, or register a "
            "file with `dfsc-tune teacher use FILE`"
        )
    public = PUBLIC_TEACHERS[name]
    path = user_folder() / f"{name}.pth"
    if path.is_file() and read_card(path) is not None:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        weights = Path(folder) / path.name
        _download(public, weights, progress, timeout_seconds)
        _check(public, weights)
        if public.member is not None:
            _extract(weights, public.member)
        _install(weights, path, _card(weights, public))
    return path


def use_teacher(file: Path, name: str | None = None) -> Path:
    """Registers a weights file: copies it into the user's data folder under a name.

    Args:
        file: a .safetensors or .pth file, with its card beside it or not.
        name: how `model.teacher` shall call it; the file's own name if left out.

    Raises:
        UserError: the file is no teacher, or the name is not allowed or taken by other weights.
    """
    given = find_teacher(str(file.resolve()))
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


def _download(
    public: PublicTeacher, file: Path, progress: Callable[[int, int], None], timeout_seconds: float
) -> None:
    try:
        with (
            urllib.request.urlopen(public.url, timeout=timeout_seconds) as answer,
            file.open("wb") as target,
        ):
            total = int(answer.headers.get("Content-Length") or 0)
            done = 0
            while chunk := answer.read(_CHUNK):
                done += target.write(chunk)
                progress(done, total)
                if done > _MAX_BYTES:
                    raise UserError(f"{public.url} sends more than {_MAX_BYTES:,} bytes: refused")
    except urllib.error.HTTPError as error:
        raise UserError(
            f"{public.url} answers {error.code} {error.reason}; get the file elsewhere and "
            "register it with `dfsc-tune teacher use FILE`"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"{public.url} cannot be reached ({reason}); try again online, or download it "
            "elsewhere and register it with `dfsc-tune teacher use FILE`"
        ) from error


def _check(public: PublicTeacher, file: Path) -> None:
    """Refuses a file that is not, byte for byte, what was published."""
    size = file.stat().st_size
    if public.num_bytes not in (None, size):
        raise UserError(
            f"{public.url} gave {size:,} bytes instead of {public.num_bytes:,}, so it was "
            "discarded; try again"
        )
    if (found := file_sha256(file)) != public.sha256:
        raise UserError(
            f"{public.url} gave a file with sha256 {found} instead of {public.sha256}, so it was "
            "discarded; try again, or see whether the file there was replaced"
        )


def _extract(archive: Path, member: str) -> None:
    """Puts a member in its archive's place."""
    with zipfile.ZipFile(archive) as opened:
        name = next(x for x in opened.namelist() if Path(x).name == member)
        content = opened.read(name)
    archive.write_bytes(content)


def _card(weights: Path, public: PublicTeacher | None = None) -> TeacherCard:
    """The card of weights that others made; UserError if they are no teacher."""
    network = public.network if public else network_of(weights)
    return TeacherCard(
        network=network,
        origin=public.origin if public else f"registered by its user from {weights.name}",
        licence=public.licence if public else None,
        source=public.url if public else None,
        file_sha256=file_sha256(weights),
        teacher_sha256=pdn_sha256(read_pdn(weights, network)),
    )


def _install(weights: Path, path: Path, card: TeacherCard) -> None:
    """Puts checked weights and their card in place; the card last, as it says that all is there."""
    read_pdn(weights, card.network)
    with atomic_path(path) as temporary:
        shutil.copyfile(weights, temporary)
    write_text(card_path(path), dump(card))
