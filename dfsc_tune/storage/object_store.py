"""Folders of an object store (s3://, gs://, az://), through pyarrow: list, read, write, delete.

Who may read and write is settled by each provider's usual chain (environment, its own files, the
machine's role); an address that carries a key is refused, so that none can end in a run's files.
"""

from __future__ import annotations

import datetime
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pyarrow as pa
from pyarrow import fs

from dfsc_tune.errors import StorageError, UserError, first_line
from dfsc_tune.storage.atomic import atomic_path

SCHEMES = ("s3", "gs", "az", "abfs", "abfss")
_SECRETS = {"access_key", "secret_key", "session_token", "account_key", "sas_token", "sig"}
_CHUNK = 1 << 24
# A store that does not answer is better said than waited for; trials are tried again anyway.
_PATIENCE_SECONDS = 30
_LOCAL = fs.LocalFileSystem()


@dataclass(frozen=True)
class StoredFile:
    """A file in a store."""

    size: int
    changed: str
    """The time of its last change, as the store gives it."""

    @property
    def age_seconds(self) -> float:
        """Seconds since then, by this machine's clock."""
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
            StorageError: the store does not answer or refuses access.
        """
        system = _open(self.uri)
        selector = fs.FileSelector(under, recursive=True, allow_not_found=True)
        with self._explained("read"):
            found = system.get_file_info(selector)
        return {
            info.path: _stored(info)
            for info in found
            if info.type == fs.FileType.File and not info.path.endswith("/")
        }

    def find(self, name: str) -> StoredFile | None:
        """A file of it; None if it is not there."""
        system = _open(self.uri)
        with self._explained("read"):
            info = system.get_file_info(name)
        return _stored(info) if info.type == fs.FileType.File else None

    def read(self, name: str) -> bytes | None:
        """Returns the content of a file; None if there is no such file."""
        system = _open(self.uri)
        try:
            with self._explained("read"), system.open_input_stream(name) as stream:
                content: bytes = stream.read()
        except FileNotFoundError:
            return None
        return content

    def write(self, name: str, content: bytes) -> None:
        """Makes a file there, or replaces it."""
        system = _open(self.uri)
        with self._explained("write"), system.open_output_stream(name) as stream:
            stream.write(content)

    def fetch(self, name: str, path: Path) -> None:
        """Copies a file to this machine, whole or not at all.

        Raises:
            FileNotFoundError: it is not there.
            StorageError: the store does not answer.
        """
        system = _open(self.uri)
        with atomic_path(path) as part, self._explained("read"):
            _copy(system, name, _LOCAL, str(part))

    def put(self, path: Path, name: str) -> None:
        """Copies a file of this machine there.

        Raises:
            FileNotFoundError: there is no such file.
            StorageError: the store does not answer.
        """
        system = _open(self.uri)
        with self._explained("write"):
            _copy(_LOCAL, str(path), system, name)

    def delete(self, name: str) -> None:
        """Deletes a file, if it is there."""
        system = _open(self.uri)
        with self._explained("write"):
            # Not each provider's failure says that the file was not there.
            if system.get_file_info(name).type == fs.FileType.File:
                system.delete_file(name)

    @contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"cannot {verb} {self.uri} ({_reason(error)})") from error


def is_remote(text: object) -> bool:
    """True if a place is the address of a store, not a path of this machine."""
    return isinstance(text, str) and "://" in text


def _stored(info: Any) -> StoredFile:
    return StoredFile(info.size, info.mtime.isoformat())


def _copy(source: Any, source_path: str, target: Any, target_path: str) -> None:
    fs.copy_files(
        source_path,
        target_path,
        source_filesystem=source,
        destination_filesystem=target,
        chunk_size=_CHUNK,
    )


@functools.lru_cache(maxsize=64)
def _open(uri: str) -> Any:
    """The folder of an address as a file system of pyarrow."""
    try:
        system, path = fs.FileSystem.from_uri(_for_pyarrow(uri))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"cannot open {uri} ({_reason(error)})") from error
    return fs.SubTreeFileSystem(path.rstrip("/"), system)


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
    """Returns an error in one line, without the provider's request ids."""
    return first_line(error).split(" (Request ID")[0].split("; Details")[0]
