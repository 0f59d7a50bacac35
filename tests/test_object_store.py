"""Object stores: addresses, data fetched once, runs mirrored and taken over."""

from __future__ import annotations

import datetime
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from dfsc_tune.data.remote import fetch_data, remote_categories
from dfsc_tune.data.sources import category_names, find_data
from dfsc_tune.errors import StorageError, UserError
from dfsc_tune.search import remote_run
from dfsc_tune.search.remote_run import Mirror, check_name, take_over
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.spaces.space import load_space
from dfsc_tune.storage.copies import fetch_folder
from dfsc_tune.storage.object_store import Store, StoredFile
from tests.support.commands import assert_one_sentence, invoke
from tests.support.object_store import ENVIRONMENT as CREDENTIALS
from tests.support.object_store import s3_server
from tests.support.trays import CATEGORY, make_tray

BUCKET = "things"


BEGAN = '{"event": "began"}\n'
RESUMED = '{"event": "resumed"}\n'
ENDED = '{"event": "ended", "why": null}\n'


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    with s3_server(BUCKET) as environment:
        yield environment


@pytest.fixture
def store(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """A folder of its own in the bucket."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Store(f"s3://{BUCKET}/{tmp_path.name}")


def put_folder(folder: Path, store: Store) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(path, path.relative_to(folder).as_posix())


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("ftp://host/data", "begins with s3://"),
        ("s3://key:secret@bucket/data", "holds a key"),
        ("s3://bucket/data?secret_key=x", "holds a key"),
        ("s3:///data", "names no bucket"),
    ],
)
def test_bad_addresses_are_refused_without_repeating_secrets(address: str, text: str) -> None:
    result = invoke("search", "--category", "a", "--data", address)
    assert_one_sentence(result, text)
    assert "secret@" not in result.stderr


@pytest.mark.parametrize("name", ["a b", "a#b", "50%", "a?b"])
def test_a_name_that_no_address_can_hold_is_refused(name: str) -> None:
    # Else 's3://bucket/runs/a#b' would be the folder 'a'.
    space = load_space("smoke")
    request = SearchRequest((), Path(), None, space, Path(), name, store="s3://bucket/runs")
    with pytest.raises(UserError, match="cannot be part of an address"):
        check_name(request)


def test_an_azure_address_names_its_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT", raising=False)
    with pytest.raises(UserError, match="AZURE_STORAGE_ACCOUNT"):
        Store("az://container/data").files()


def test_a_store_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StorageError, match="cannot read s3://bucket/data"):
        Store("s3://bucket/data").files()


def test_files_come_back_as_they_went(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    store.put(tmp_path / "a", "deep/down/a")
    assert {name: file.size for name, file in store.files().items()} == {"deep/down/a": 5}
    assert (store / "deep").read("down/a") == b"hello"
    store.fetch("deep/down/a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"hello"
    store.delete("deep/down/a")
    store.delete("never there")
    assert store.read("deep/down/a") is None
    assert not store.files()
    with pytest.raises(FileNotFoundError):
        store.fetch("deep/down/a", tmp_path / "b")


def test_data_are_fetched_once_and_again_where_they_changed(store: Store, tmp_path: Path) -> None:
    data = make_tray(tmp_path / "data")
    make_tray(data, "box")
    (data / "dataset.yaml").write_text("defect_types: {}\n")
    put_folder(data, store)
    assert remote_categories(store) == ("box", CATEGORY)
    shown: list[str] = []

    @contextmanager
    def bar(text: str) -> Iterator[Callable[[int, int], None]]:
        shown.append(text)
        yield lambda done, total: None

    assert category_names(str(store)) == list(remote_categories(store))
    folder = find_data(str(store), [CATEGORY], bar)
    assert shown == [f"fetching {store}"]
    images = sorted((folder / CATEGORY).rglob("*.png"))
    assert len(images) == 21
    assert (folder / "dataset.yaml").exists()
    assert not (folder / "box").exists()

    def fetched() -> int:
        return fetch_folder(store, folder, lambda name: name.startswith(CATEGORY))

    assert fetched() == 0
    # A copy that was damaged here, one that changed there, and one that is gone there.
    images[0].write_bytes(b"damaged")
    names = [path.relative_to(folder).as_posix() for path in images[:3]]
    store.write(names[1], b"another")
    store.delete(names[2])
    assert fetched() == 2
    assert images[0].read_bytes() == (data / names[0]).read_bytes()
    assert images[1].read_bytes() == b"another"
    assert not images[2].exists()
    with pytest.raises(UserError, match=f"no category 'cup'.*choose from box, {CATEGORY}"):
        fetch_data(store, ["cup"])


def test_data_must_agree_with_their_sums(store: Store, tmp_path: Path) -> None:
    store.write("a/train/good/0.png", b"one")
    store.write("SHA256SUMS", f"{'0' * 64}  ./a/train/good/0.png\n".encode())
    with pytest.raises(UserError, match="SHA256SUMS says"):
        fetch_data(store, ["a"])
    store.write("SHA256SUMS", b"\n0.png\n")
    with pytest.raises(UserError, match=r"line 2 of .*/SHA256SUMS is no checksum"):
        fetch_data(store, ["a"])


def break_fetching(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """Lets a file of this name not come."""
    fetch = Store.fetch

    def fetch_or_break(self: Store, name: str, path: Path) -> None:
        if name == broken:
            raise StorageError("the line is down")
        fetch(self, name, path)

    monkeypatch.setattr(Store, "fetch", fetch_or_break)


def test_what_came_before_a_fetch_broke_off_is_not_fetched_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        store.write(name, name.encode())
    with monkeypatch.context() as patch:
        break_fetching(patch, "b")
        with pytest.raises(StorageError, match="down"):
            fetch_folder(store, tmp_path / "x", lambda name: True)
    assert fetch_folder(store, tmp_path / "x", lambda name: True) == 1


def test_a_file_that_is_put_anew_while_it_is_fetched_is_fetched_as_it_is_now(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("ledger.jsonl", BEGAN.encode())
    files = Store.files

    def listed_late(self: Store, under: str = "") -> dict[str, StoredFile]:
        found = files(self, under)
        store.write("ledger.jsonl", (BEGAN + RESUMED).encode())
        return found

    monkeypatch.setattr(Store, "files", listed_late)
    assert fetch_folder(store, tmp_path / "x", lambda name: True) == 1
    assert (tmp_path / "x" / "ledger.jsonl").read_bytes() == (BEGAN + RESUMED).encode()


def begin_run(folder: Path, ledger: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text("name: x\n")
    (folder / "ledger.jsonl").write_text(ledger)


def test_a_trial_that_ended_is_in_the_store_before_its_checkpoint_is_dropped(
    store: Store, tmp_path: Path
) -> None:
    begin_run(tmp_path / "x", BEGAN)
    mirror = Mirror(tmp_path / "x", store / "x")
    mirror.start()
    (tmp_path / "trial.pt").write_bytes(b"weights")
    for trial in ("0001", "0002"):
        mirror.checkpoints.put(trial, tmp_path)
    (tmp_path / "x" / "ledger.jsonl").write_text(BEGAN + RESUMED)
    mirror.trial_ended("0001", "pruned")
    mirror.trial_ended("0002", "complete")
    assert (store / "x").read("ledger.jsonl") == (BEGAN + RESUMED).encode()
    assert set((store / "x").files("checkpoints")) == {"checkpoints/0002/trial.pt"}
    assert (store / "x").find("driver.json")
    mirror.close()
    assert (store / "x").find("driver.json") is None


def test_the_longer_ledger_of_this_machine_is_kept_and_another_ones_is_taken(
    store: Store, tmp_path: Path
) -> None:
    begin_run(tmp_path / "x", BEGAN)
    put_folder(tmp_path / "x", store / "x")
    folder = take_over(store / "x", print)
    assert (folder / "ledger.jsonl").read_text() == BEGAN
    (folder / "ledger.jsonl").write_text(BEGAN + RESUMED)
    assert (take_over(store / "x", print) / "ledger.jsonl").read_text() == BEGAN + RESUMED
    (store / "x").write("ledger.jsonl", (BEGAN + ENDED).encode())
    notes: list[str] = []
    assert (take_over(store / "x", notes.append) / "ledger.jsonl").read_text() == BEGAN + ENDED
    # What this machine alone had is kept.
    aside = folder.with_name("x.other-1")
    assert notes == [
        f"the copy of the run on this machine differs from the store's; it is kept in {aside}"
    ]
    assert (aside / "ledger.jsonl").read_text() == BEGAN + RESUMED
    (store / "x").write("ledger.jsonl", b"[]\n")
    with pytest.raises(UserError, match=r"x/ledger\.jsonl is damaged: line 1 "):
        take_over(store / "x", print)
    assert (folder / "ledger.jsonl").read_text() == BEGAN + ENDED
    with pytest.raises(UserError, match=r"no run 'y'.*runs there: x"):
        take_over(store / "y", print)


def test_half_a_copy_is_not_taken_for_the_run(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_run(tmp_path / "x", BEGAN)
    (tmp_path / "x" / "scores.parquet").write_bytes(b"scores")
    put_folder(tmp_path / "x", store / "x")
    with monkeypatch.context() as patch:
        break_fetching(patch, "scores.parquet")
        with pytest.raises(StorageError, match="down"):
            take_over(store / "x", print)
    assert (take_over(store / "x", print) / "scores.parquet").read_bytes() == b"scores"


def test_a_run_that_goes_on_is_not_taken_over(store: Store, tmp_path: Path) -> None:
    begin_run(tmp_path / "x", BEGAN)
    mirror = Mirror(tmp_path / "x", store / "x")
    mirror.start()
    with pytest.raises(UserError, match=f"still going on in process {os.getpid()}"):
        take_over(store / "x", print)
    mirror.close()


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_clock_that_is_ahead_makes_no_driver_look_dead(
    goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_run, "_STALE_SECONDS", 0.2)
    monkeypatch.setattr(remote_run, "_POLL_SECONDS", 0.05)
    ahead = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)
    looks = itertools.count()

    def find(name: str) -> StoredFile:
        beat = ahead + datetime.timedelta(seconds=next(looks) // 2 if goes_on else 0)
        return StoredFile(1, beat.isoformat())

    run = SimpleNamespace(find=find, read=lambda name: b'{"host": "elsewhere", "pid": 1}')
    notes: list[str] = []
    if goes_on:
        with pytest.raises(UserError, match="still going on in process 1 on elsewhere"):
            remote_run._wait_for_driver(run, notes.append)
    else:
        remote_run._wait_for_driver(run, notes.append)
    assert len(notes) == 1
