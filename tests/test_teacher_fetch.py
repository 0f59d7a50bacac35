"""Fetching public teachers, from a server on the loopback."""

from __future__ import annotations

import hashlib
import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch

from dfsc_tune import fetch
from dfsc_tune.config import ModelConfig
from dfsc_tune.errors import UserError
from dfsc_tune.fetch import PUBLIC_TEACHERS, PublicTeacher, fetch_teacher
from dfsc_tune.models import teacher_files
from dfsc_tune.models.pdn import build_pdn, teacher_channels
from dfsc_tune.models.teacher import load_teacher, teacher_identity
from dfsc_tune.models.teacher_files import known_teachers, read_card

NAME = "public-tiny"


class _Server(HTTPServer):
    files: dict[str, bytes]
    num_answers = 0
    cut_after: int | None = None
    """How many bytes to send before the line goes dead."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.num_answers += 1
        if self.path not in self.server.files:
            self.send_error(404)
            return
        content = self.server.files[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: self.server.cut_after])

    def log_message(self, format: str, *arguments: object) -> None:
        pass


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
def server() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        content = weights()
        server.files = {"/teacher.pth": content, "/teachers.zip": archive(content)}
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def public(server: _Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PublicTeacher:
    for module in (teacher_files, fetch):
        monkeypatch.setattr(module, "user_folder", lambda: tmp_path / "user")
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    content = server.files["/teacher.pth"]
    teacher = PublicTeacher(
        network="tiny",
        url=f"http://127.0.0.1:{server.server_port}/teacher.pth",
        sha256=hashlib.sha256(content).hexdigest(),
        origin="a test",
        licence="none",
        num_bytes=len(content),
    )
    monkeypatch.setitem(PUBLIC_TEACHERS, NAME, teacher)
    return teacher


def offer(monkeypatch: pytest.MonkeyPatch, teacher: PublicTeacher, **changes: object) -> None:
    monkeypatch.setitem(PUBLIC_TEACHERS, NAME, replace(teacher, **changes))


def fetched() -> Path:
    return fetch_teacher(NAME, lambda done, total: None, timeout_seconds=5)


def nothing_is_left(tmp_path: Path) -> bool:
    return NAME not in known_teachers() and not list((tmp_path / "user").glob("*"))


def test_a_fetched_teacher_serves_by_its_name_and_is_fetched_once(
    server: _Server, public: PublicTeacher
) -> None:
    seen: list[tuple[int, int]] = []
    path = fetch_teacher(NAME, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (public.num_bytes, public.num_bytes)
    card = read_card(path)
    assert card is not None
    assert (card.source, card.licence, card.network) == (public.url, "none", "tiny")
    teacher = load_teacher(ModelConfig(network="tiny", image_size=128, teacher=NAME))
    assert teacher_identity(teacher) == card.teacher_sha256
    assert fetched() == path
    assert server.num_answers == 1


def test_a_member_of_an_archive_is_fetched(
    server: _Server, public: PublicTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(
        monkeypatch,
        public,
        url=public.url.replace("teacher.pth", "teachers.zip"),
        sha256=hashlib.sha256(server.files["/teachers.zip"]).hexdigest(),
        num_bytes=None,
        member="teacher.pth",
    )
    assert fetched().read_bytes() == server.files["/teacher.pth"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, "with sha256 .* instead of 000"),
        ({"num_bytes": 7}, "bytes instead of 7"),
        ({"network": "small"}, "another network than 'small'"),
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
    server: _Server, public: PublicTeacher, tmp_path: Path
) -> None:
    server.cut_after = 1000
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
    offer(monkeypatch, public, url=public.url + ".gone")
    with pytest.raises(UserError, match="answers 404"):
        fetched()
    assert nothing_is_left(tmp_path)


def test_an_unknown_name_lists_the_public_ones() -> None:
    with pytest.raises(UserError, match=r"no public teacher 'x'; choose from anomalib-small"):
        fetch_teacher("x", lambda done, total: None)
