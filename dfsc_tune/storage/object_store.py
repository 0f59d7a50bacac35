"""Folders of an object store (s3://, gs://, az://), through pyarrow: list, fetch, put, delete.

Who may read and write is settled by each provider's usual chain (environment, its own files, the
machine's role); an address that carries a key is refused, so that none can end in a run's files.
"""

from __future__ import annotations

import datetime
import fcntl
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import platformdirs
import pyarrow as pa
from pyarrow import fs

from dfsc_tune.errors import StorageError, UserError, first_line
from dfsc_tune.storage.digest import file_sha256

SCHEMES = ("s3", "gs", "az", "abfs", "abfss")
_SECRETS = {"access_key", "secret_key", "session_token", "account_key", "sas_token", "sig"}
_NUM_THREADS = 8
_FETCHED = ".fetched.json"
_TRIES = 3
# A store that does not answer is better said than waited for; trials are tried again anyway.
_PATIENCE_SECONDS = 30


@dataclass(frozen=True)
class StoredFile:
    """A file in a store."""

    size: int
    changed: str
    """When it was put there, as the store says it."""

    @property
    def age_seconds(self) -> float:
        """How long it has been there, by this machine's clock."""
        then = datetime.datetime.fromisoformat(self.changed)
        return (datetime.datetime.now(datetime.UTC) - then).total_seconds()


@dataclass(frozen=True)
class Store:
    """A folder of an object store; a file appears in it whole or not at all."""

    uri: str

    def __post_init__(self) -> None:
        """Refuses what is no address of a store, or holds a secret."""
        parts = urlsplit(self.uri)
        if parts.scheme not in SCHEMES:
            raise UserError(
                f"cannot read '{self.uri}': give a folder, or an address that begins with s3://, "
                "gs:// or az://"
            )
        named = {name for name, _ in parse_qsl(parts.query)}
        user = parts.username if parts.scheme in ("s3", "gs") else parts.password
        if user or named & _SECRETS:
            raise UserError(
                f"the address {parts.scheme}://… holds a key or secret; leave it out and use the "
                "provider's environment variables, profile or role"
            )
        if not parts.netloc:
            raise UserError(f"the address '{self.uri}' names no bucket")

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> Store:
        parts = urlsplit(self.uri)
        return Store(urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}")))

    @property
    def name(self) -> str:
        """The last part of its path."""
        return urlsplit(self.uri).path.rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> Store:
        """The folder that it lies in."""
        parts = urlsplit(self.uri)
        above = parts.path.rstrip("/").rpartition("/")[0]
        return Store(urlunsplit(parts._replace(path=above)))

    def files(self, under: str = "") -> dict[str, StoredFile]:
        """All files below, by their path from here; none if there is no such folder.

        Args:
            under: a folder of it, to which the list is kept.

        Raises:
            StorageError: the store does not answer or lets us not in.
        """
        system, root = _open(self.uri)
        folder = f"{root}/{under}" if under else root
        selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
        with self._explained("read"):
            found = system.get_file_info(selector)
        return {
            info.path[len(root) + 1 :]: StoredFile(info.size, info.mtime.isoformat())
            for info in found
            if info.type == fs.FileType.File and not info.path.endswith("/")
        }

    def find(self, name: str) -> StoredFile | None:
        """A file of it; None if it is not there."""
        system, root = _open(self.uri)
        with self._explained("read"):
            info = system.get_file_info(f"{root}/{name}")
        return (
            StoredFile(info.size, info.mtime.isoformat()) if info.type == fs.FileType.File else None
        )

    def read(self, name: str) -> bytes | None:
        """What a file holds; None if it is not there."""
        system, root = _open(self.uri)
        try:
            with self._explained("read"), system.open_input_stream(f"{root}/{name}") as stream:
                content: bytes = stream.read()
        except FileNotFoundError:
            return None
        return content

    def fetch(self, name: str, path: Path) -> str:
        """Copies a file here, whole or not at all; its sha256.

        Raises:
            FileNotFoundError: it is not there.
            StorageError: the store does not answer.
        """
        system, root = _open(self.uri)
        digest = hashlib.sha256()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with (
                self._explained("read"),
                system.open_input_stream(f"{root}/{name}") as stream,
                part.open("wb") as target,
            ):
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
                    target.write(chunk)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return digest.hexdigest()

    def put(self, path: Path, name: str) -> None:
        """Copies a file there; a reader sees it whole or not at all."""
        with path.open("rb") as source:
            self.write(name, iter(lambda: source.read(1 << 20), b""))

    def write(self, name: str, chunks: Iterable[bytes]) -> None:
        """Makes a file there of these bytes, or replaces it."""
        system, root = _open(self.uri)
        with self._explained("write"), system.open_output_stream(f"{root}/{name}") as stream:
            for chunk in chunks:
                stream.write(chunk)

    def delete(self, name: str) -> None:
        """Deletes a file, if it is there."""
        system, root = _open(self.uri)
        with self._explained("write"):
            if system.get_file_info(f"{root}/{name}").type == fs.FileType.File:
                system.delete_file(f"{root}/{name}")

    @contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"cannot {verb} {self.uri} ({_reason(error)})") from error


def is_remote(text: object) -> bool:
    """Whether a setting is the address of a store rather than a path of this machine."""
    return isinstance(text, str) and "://" in text


def local_copy(store: Store, purpose: str) -> Path:
    """Where this machine keeps its copy of a store's folder.

    Args:
        store: the folder.
        purpose: the kind of copy; each has its own place.
    """
    digest = hashlib.sha256(store.uri.encode()).hexdigest()[:12]
    base = Path(platformdirs.user_cache_dir("dfsc_tune")) / purpose
    return base / f"{store.parent.name or 'store'}-{digest}" / store.name


def copy_place(folder: Path, source: object) -> Path:
    """The folder for a copy of something, made if need be.

    Raises:
        UserError: it exists and holds something else.
    """
    if folder.exists() and not (folder / _FETCHED).is_file():
        raise UserError(
            f"{folder} exists already and is no copy of {source}; choose another folder with --to"
        )
    folder.mkdir(parents=True, exist_ok=True)
    _write_fetched(folder, _read_fetched(folder))
    return folder


def fetch_folder(
    store: Store,
    folder: Path,
    wanted: Callable[[str], bool],
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Brings a folder of this machine up to what the store has; how many files had to be fetched.

    Files that are here, as the store has them and as they came, stay; each is read again to
    see that, by its sha256. Wanted files that the store has no more are deleted. Where the store
    has a `SHA256SUMS`, as `sha256sum` writes it, files must agree with it.

    Args:
        store: where from.
        folder: where to; nothing else should write into it.
        wanted: which files, by their path.
        progress: told the files done and the files in all.

    Raises:
        StorageError: the store does not answer.
        UserError: a file is not what `SHA256SUMS` says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        return _fetch_folder(store, folder, wanted, progress)


def _fetch_folder(
    store: Store,
    folder: Path,
    wanted: Callable[[str], bool],
    progress: Callable[[int, int], None] | None,
) -> int:
    known = _read_fetched(folder)
    there = {name: file for name, file in store.files().items() if wanted(name)}
    sums = _read_sums(store) if there else {}

    def is_here(name: str) -> bool:
        entry, file = known.get(name), there[name]
        path = folder / name
        return (
            entry is not None
            and (entry["size"], entry["changed"]) == (file.size, file.changed)
            and path.is_file()
            and file_sha256(path) == entry["sha256"]
        )

    def bring(name: str) -> bool:
        fetched = not is_here(name)
        entry = _bring(store, name, there[name], folder) if fetched else known[name]
        if sums.get(name, entry["sha256"]) != entry["sha256"]:
            raise UserError(
                f"{store / name} is not what {store}/{_SUMS} says it is: put the right file, or "
                "the right sum, there"
            )
        entries[name] = entry
        return fetched

    entries = dict(known)
    for name in known:
        if wanted(name) and name not in there:
            (folder / name).unlink(missing_ok=True)
            del entries[name]
    num_fetched = 0
    try:
        with ThreadPoolExecutor(_NUM_THREADS) as threads:
            for done, fetched in enumerate(threads.map(bring, there), start=1):
                num_fetched += fetched
                if progress:
                    progress(done, len(there))
    finally:
        # Also when broken off: what came is not fetched again.
        _write_fetched(folder, entries)
    return num_fetched


def _bring(store: Store, name: str, listed: StoredFile, folder: Path) -> dict[str, Any]:
    """Fetches a file; what is to be remembered of it."""
    path, file = _inside(folder, name), listed
    for _ in range(_TRIES):
        digest = store.fetch(name, path)
        if (size := path.stat().st_size) == file.size:
            return {"size": file.size, "changed": file.changed, "sha256": digest}
        # Of a run that goes on, a file may have been put anew since it was listed.
        file = store.find(name) or file
    raise StorageError(f"{store / name} gave {size} bytes instead of {file.size}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lets one process of this machine at a time fetch into a folder."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


_SUMS = "SHA256SUMS"


def _read_sums(store: Store) -> dict[str, str]:
    lines = (store.read(_SUMS) or b"").decode(errors="replace").splitlines()
    sums = {}
    for number, line in enumerate(lines, start=1):
        digest, _, name = line.strip().partition(" ")
        if digest and not name:
            raise UserError(
                f"line {number} of {store}/{_SUMS} is no checksum with a name: write the file as "
                "`sha256sum` does, or delete it"
            )
        sums[name.lstrip(" *").removeprefix("./")] = digest
    return sums


def _inside(folder: Path, name: str) -> Path:
    """The path of a file in a folder; refuses names that lead out of it."""
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise UserError(f"the store holds a file named '{name}', which leads out of its folder")
    return folder / name


def _read_fetched(folder: Path) -> dict[str, Any]:
    try:
        known: dict[str, Any] = json.loads((folder / _FETCHED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known


def _write_fetched(folder: Path, entries: Mapping[str, Any]) -> None:
    part = folder / f"{_FETCHED}.{os.getpid()}.part"
    part.write_text(json.dumps(entries), encoding="utf-8")
    part.replace(folder / _FETCHED)


@functools.lru_cache(maxsize=64)
def _open(uri: str) -> tuple[Any, str]:
    """pyarrow's file system of an address, and the path in it."""
    try:
        system, path = fs.FileSystem.from_uri(_for_pyarrow(uri))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"cannot open {uri} ({_reason(error)})") from error
    return system, path.rstrip("/")


def _for_pyarrow(uri: str) -> str:
    """The address for pyarrow, with what the providers' own tools take from the environment."""
    parts = urlsplit(uri)
    query = dict(parse_qsl(parts.query))
    if parts.scheme == "s3":
        names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        endpoint = next((os.environ[name] for name in names if os.environ.get(name)), None)
        if endpoint:
            query.setdefault("endpoint_override", endpoint)
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if region or endpoint:
            query.setdefault("region", region or "us-east-1")
        query.setdefault("allow_delayed_open", "true")
    elif parts.scheme == "gs":
        query.setdefault("retry_limit_seconds", str(_PATIENCE_SECONDS))
    elif parts.scheme == "az":
        account = os.environ.get("AZURE_STORAGE_ACCOUNT")
        if not account:
            raise UserError(
                f"{uri} needs AZURE_STORAGE_ACCOUNT in the environment; or give "
                "abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH"
            )
        host = f"{parts.netloc}@{account}.dfs.core.windows.net"
        parts = parts._replace(scheme="abfss", netloc=host)
    return urlunsplit(parts._replace(query=urlencode(query)))


def _reason(error: Exception) -> str:
    """What went wrong in one line, without the provider's request ids."""
    return first_line(error).split(" (Request ID")[0].split("; Details")[0]
