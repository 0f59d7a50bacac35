"""Fetching public teachers, from a server on the loopback."""

from __future__ import annotations

import hashlib
import io
import socket
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dfsc_tune.config import ModelConfig
from dfsc_tune.errors import UserError
from dfsc_tune.models.pdn import build_pdn, teacher_channels
from dfsc_tune.models.teacher import load_teacher, teacher_identity
from dfsc_tune.models.teacher_files import known_teachers, read_card
from dfsc_tune.storage import download
from dfsc_tune.storage.download import PublishedFile
from dfsc_tune.teachers.fetch import PUBLIC_TEACHERS, PublicTeacher, fetch_teacher
from tests.support.file_server import FileServer, serving

NAME = "public-tiny"


def weights() -> bytes:
    torch.manual_seed(5)
    file = io.BytesIO()
    torch.save(build_pdn("tiny", teacher_channels("tiny")).state_dict(), file)
    return file.getvalue()


def archive(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("folder/other.pth", b"something else")
        opened.writestr("folder/teacher.pth", content)
    return file.getvalue()


@pytest.fixture
def server() -> Iterator[FileServer]:
    content = weights()
    with serving({"/teacher.pth": content, "/teachers.zip": archive(content)}) as server:
        yield server


@pytest.fixture
def public(server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PublicTeacher:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(download, "_PAUSE_SECONDS", 0.0)
    content = server.files["/teacher.pth"]
    teacher = PublicTeacher(
        network="tiny",
        file=PublishedFile(
            url=server.url("/teacher.pth"),
            sha256=hashlib.sha256(content).hexdigest(),
            num_bytes=len(content),
        ),
        origin="a test",
        licence="none",
    )
    monkeypatch.setitem(PUBLIC_TEACHERS, NAME, teacher)
    return teacher


def offer(monkeypatch: pytest.MonkeyPatch, teacher: PublicTeacher, **changes: object) -> None:
    of_file = {key: changes.pop(key) for key in ("url", "sha256", "num_bytes") if key in changes}
    file = replace(teacher.file, **of_file)
    monkeypatch.setitem(PUBLIC_TEACHERS, NAME, replace(teacher, file=file, **changes))


def fetched() -> Path:
    return fetch_teacher(NAME, lambda done, total: None, timeout_seconds=5)


def nothing_is_left(tmp_path: Path) -> bool:
    return NAME not in known_teachers() and not list(
        (tmp_path / "user" / "dfsc_tune" / "teachers").glob("*")
    )


def test_a_fetched_teacher_serves_by_its_name_and_is_fetched_once(
    server: FileServer, public: PublicTeacher
) -> None:
    seen: list[tuple[int, int]] = []
    path = fetch_teacher(NAME, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (public.file.num_bytes, public.file.num_bytes)
    card = read_card(path)
    assert card is not None
    assert (card.source, card.licence, card.network) == (public.file.url, "none", "tiny")
    teacher = load_teacher(ModelConfig(network="tiny", image_size=128, teacher=NAME))
    assert teacher_identity(teacher) == card.teacher_sha256
    assert fetched() == path
    assert len(server.ranges_asked) == 1
    # Damaged, it is no longer the file that its card describes.
    path.write_bytes(path.read_bytes()[:-1])
    assert fetched().read_bytes() == server.files["/teacher.pth"]


def test_a_member_of_an_archive_is_fetched(
    server: FileServer, public: PublicTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(
        monkeypatch,
        public,
        url=public.file.url.replace("teacher.pth", "teachers.zip"),
        sha256=hashlib.sha256(server.files["/teachers.zip"]).hexdigest(),
        num_bytes=None,
        member="teacher.pth",
    )
    assert fetched().read_bytes() == server.files["/teacher.pth"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, "has sha256 .* instead of 000"),
        ({"num_bytes": 7}, "more than 7 bytes"),
        ({"num_bytes": 10**9}, "bytes instead of 1,000,000,000"),
        ({"network": "small"}, "a network other than 'small'"),
    ],
)
def test_what_was_not_published_is_never_used(
    public: PublicTeacher,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    changes: dict[str, object],
    message: str,
) -> None:
    offer(monkeypatch, public, **changes)
    with pytest.raises(UserError, match=message):
        fetched()
    assert nothing_is_left(tmp_path)


def test_half_a_download_is_never_used(
    server: FileServer, public: PublicTeacher, tmp_path: Path
) -> None:
    server.cut_after, server.knows_ranges = 1000, False
    with pytest.raises(UserError, match=r"discarded|cannot be reached"):
        fetched()
    assert nothing_is_left(tmp_path)
    server.cut_after = None
    assert fetched().is_file()


def test_offline_is_said_with_a_way_out(
    public: PublicTeacher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    offer(monkeypatch, public, url=f"http://127.0.0.1:{port}/teacher.pth")
    with pytest.raises(UserError, match=r"cannot be reached .*dfsc-tune teacher use FILE"):
        fetched()
    assert nothing_is_left(tmp_path)


def test_an_address_that_is_gone_is_said(
    public: PublicTeacher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(monkeypatch, public, url=public.file.url + ".gone")
    with pytest.raises(UserError, match="answers 404"):
        fetched()
    assert nothing_is_left(tmp_path)


def test_an_unknown_name_lists_the_public_ones() -> None:
    with pytest.raises(UserError, match=r"no public teacher 'x'; choose from anomalib-small"):
        fetch_teacher("x", lambda done, total: None)
