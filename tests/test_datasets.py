"""Bringing a public data set, from a server on the loopback."""

from __future__ import annotations

import hashlib
import io
import socket
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from dfsc_tune.data import datasets
from dfsc_tune.data.datasets import PUBLIC_DATASETS, PublicDataset, SplitCounts, fetch_dataset
from dfsc_tune.errors import UserError
from dfsc_tune.storage import download
from dfsc_tune.storage.download import PublishedFile, partial_path
from tests.support.commands import invoke
from tests.support.file_server import FileServer, serving
from tests.support.trays import make_tray

NAME = "two-trays"
FILE = "two_trays.tar.xz"
CATEGORIES = ("first", "second")

Add = Callable[[tarfile.TarFile], None]


def archive_of(folder: Path, add: Add | None = None) -> bytes:
    """Both categories and a licence, as a tar archive compressed by xz."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz") as tar:
        for category in CATEGORIES:
            tar.add(folder / category, category)
        if add:
            add(tar)
        tar.addfile(tarfile.TarInfo("license.txt"))
    return content.getvalue()


def offered(server: FileServer, content: bytes, **counts: SplitCounts) -> PublicDataset:
    server.files[f"/{FILE}"] = content
    return PublicDataset(
        title="Two trays",
        archive=PublishedFile(
            server.url(f"/{FILE}"), hashlib.sha256(content).hexdigest(), len(content)
        ),
        page="https://trays.example/download",
        licence="CC BY-NC-SA 4.0",
        licence_url="https://licence.example",
        terms="share alike",
        counts={category: SplitCounts(6, 3, 12) for category in CATEGORIES} | counts,
    )


@pytest.fixture(scope="module")
def trays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trays")
    for category in CATEGORIES:
        make_tray(folder, category)
    return folder


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(download, "_PAUSE_SECONDS", 0.0)
    with serving({}) as server:
        yield server


@pytest.fixture
def dataset(server: FileServer, trays: Path, monkeypatch: pytest.MonkeyPatch) -> PublicDataset:
    dataset = offered(server, archive_of(trays))
    monkeypatch.setitem(PUBLIC_DATASETS, NAME, dataset)
    return dataset


def brought(dataset: PublicDataset, folder: Path, **options: Path) -> None:
    fetch_dataset(dataset, folder, lambda done, total: None, timeout_seconds=5, **options)


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def data_download(*arguments: str | Path) -> Result:
    return invoke("data", "download", *arguments)


def test_a_data_set_is_brought_once_and_checked(
    server: FileServer, dataset: PublicDataset, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    result = data_download(NAME, folder, "--accept-licence")
    assert result.exit_code == 0, result.output
    assert "CC BY-NC-SA 4.0" in result.stderr
    assert result.stdout.count("loco layout") == 2
    assert contents(folder) == ["first", "license.txt", "second"]
    again = data_download(NAME, folder, "--accept-licence")
    assert again.stdout == result.stdout
    assert server.ranges_asked == [None]


def test_the_licence_is_accepted_first(
    server: FileServer, dataset: PublicDataset, tmp_path: Path
) -> None:
    result = data_download(NAME, tmp_path / "data")
    assert result.exit_code == 2
    assert "give --accept-licence" in result.stderr
    assert not server.ranges_asked


def test_a_broken_connection_is_taken_up_where_it_broke(
    server: FileServer, dataset: PublicDataset, tmp_path: Path
) -> None:
    server.cut_after, server.num_cuts = 3000, 2
    brought(dataset, tmp_path)
    assert server.ranges_asked == [None, "bytes=3000-", "bytes=6000-"]
    assert contents(tmp_path) == ["first", "license.txt", "second"]


def test_a_later_call_goes_on_with_what_came(
    server: FileServer, dataset: PublicDataset, tmp_path: Path
) -> None:
    server.cut_after, server.num_cuts = 3000, 1
    content = server.files.pop(f"/{FILE}")
    partial_path(tmp_path / FILE).write_bytes(content[:5000])
    with pytest.raises(UserError, match="answers 404"):
        brought(dataset, tmp_path)
    server.files[f"/{FILE}"] = content
    brought(dataset, tmp_path)
    assert server.ranges_asked == ["bytes=5000-", "bytes=5000-", "bytes=8000-"]


def test_a_server_without_ranges_sends_all_again(
    server: FileServer, dataset: PublicDataset, tmp_path: Path
) -> None:
    server.knows_ranges = False
    partial_path(tmp_path / FILE).write_bytes(b"something else")
    brought(dataset, tmp_path)
    assert contents(tmp_path) == ["first", "license.txt", "second"]


def test_another_file_is_refused_and_not_gone_on_with(
    server: FileServer, dataset: PublicDataset, tmp_path: Path
) -> None:
    content = server.files[f"/{FILE}"]
    server.files[f"/{FILE}"] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(UserError, match=r"has sha256 .* so it was discarded"):
        brought(dataset, tmp_path)
    assert contents(tmp_path) == []


def test_a_silent_server_is_left_with_the_way_by_hand(
    server: FileServer, dataset: PublicDataset, tmp_path: Path
) -> None:
    server.cut_after = 0
    with pytest.raises(UserError, match=r"trays\.example.*--archive FILE"):
        brought(dataset, tmp_path)


def test_offline_is_said_with_the_way_by_hand(
    dataset: PublicDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/{FILE}"
    offline = PublishedFile(url, dataset.archive.sha256, dataset.archive.num_bytes)
    monkeypatch.setitem(
        PUBLIC_DATASETS, NAME, PublicDataset(**{**vars(dataset), "archive": offline})
    )
    result = data_download(NAME, tmp_path, "--accept-licence")
    assert result.exit_code == 2
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "cannot be reached" in error
    assert "from https://trays.example/download and give it by --archive FILE" in error


def test_an_archive_downloaded_by_hand_is_checked_and_kept(
    server: FileServer, dataset: PublicDataset, tmp_path: Path
) -> None:
    archive = tmp_path / "by_hand.tar.xz"
    archive.write_bytes(server.files[f"/{FILE}"])
    brought(dataset, tmp_path / "data", archive=archive)
    assert contents(tmp_path / "data") == ["first", "license.txt", "second"]
    assert archive.exists()
    assert not server.ranges_asked
    archive.write_bytes(b"something else")
    with pytest.raises(UserError, match="not Two trays as published"):
        brought(dataset, tmp_path / "other", archive=archive)


def test_an_archive_in_the_folder_is_checked_and_kept(
    server: FileServer, dataset: PublicDataset, tmp_path: Path
) -> None:
    (tmp_path / FILE).write_bytes(b"something else")
    with pytest.raises(UserError, match="not Two trays as published"):
        brought(dataset, tmp_path)
    assert (tmp_path / FILE).read_bytes() == b"something else"
    (tmp_path / FILE).write_bytes(server.files[f"/{FILE}"])
    brought(dataset, tmp_path)
    assert contents(tmp_path) == ["first", "license.txt", "second", FILE]
    assert not server.ranges_asked


def test_what_is_not_as_published_is_a_problem(
    server: FileServer, dataset: PublicDataset, trays: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    other = offered(server, archive_of(trays), second=SplitCounts(6, 3, 13))
    monkeypatch.setitem(PUBLIC_DATASETS, NAME, other)
    result = data_download(NAME, tmp_path, "--accept-licence")
    assert result.exit_code == 1
    assert "PROBLEM: second has 12 test images, and Two trays has 13" in result.stdout


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> Add:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        tar.addfile(info)

    return add


def link_and_through(tar: tarfile.TarFile) -> None:
    member("first/way", tarfile.SYMTYPE, "../../..")(tar)
    member("first/way/evil.png")(tar)


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (member("../evil.png"), "leads out of the folder"),
        (member("first/../../../evil.png"), "leads out of the folder"),
        (member("/tmp/evil.png"), "leads out of the folder"),
        (member("..\\evil.png"), "leads out of the folder"),
        (member("first/link", tarfile.SYMTYPE, "/etc/passwd"), "neither file nor folder"),
        (member("first/link", tarfile.LNKTYPE, "first/train"), "neither file nor folder"),
        (member("first/pipe", tarfile.FIFOTYPE), "neither file nor folder"),
        (member("first/device", tarfile.CHRTYPE), "neither file nor folder"),
        (link_and_through, "neither file nor folder"),
    ],
)
def test_a_malicious_archive_is_refused_and_leaves_nothing(
    server: FileServer, trays: Path, tmp_path: Path, add: Add, message: str
) -> None:
    dataset = offered(server, archive_of(trays, add))
    folder = tmp_path / "parent" / "data"
    with pytest.raises(UserError, match=message):
        brought(dataset, folder)
    assert contents(folder) == [FILE]
    assert contents(tmp_path / "parent") == ["data"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no archive at all", "no whole tar archive"), (None, "lacks categories of Two trays")],
)
def test_an_archive_of_something_else_is_refused(
    server: FileServer, trays: Path, tmp_path: Path, content: bytes | None, message: str
) -> None:
    if content is None:
        empty = io.BytesIO()
        tarfile.open(fileobj=empty, mode="w:xz").close()
        content = empty.getvalue()
    with pytest.raises(UserError, match=message):
        brought(offered(server, content), tmp_path)


def test_a_disk_without_room_is_said_before_the_download(
    server: FileServer, dataset: PublicDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = datasets.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(datasets.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match="make room, or choose another folder"):
        brought(dataset, tmp_path)
    assert not server.ranges_asked


def test_mvtec_loco_is_known_by_its_content() -> None:
    loco = PUBLIC_DATASETS["mvtec-loco"]
    assert sum(counts.train for counts in loco.counts.values()) == 1778
    assert sum(counts.validation for counts in loco.counts.values()) == 305
    assert sum(counts.test for counts in loco.counts.values()) == 1568
