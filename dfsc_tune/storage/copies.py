"""Copies on this machine of folders of an object store: brought up to date, checked by sha256."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dfsc_tune.errors import StorageError, UserError
from dfsc_tune.storage.atomic import write_text
from dfsc_tune.storage.digest import SUMS, file_sha256
from dfsc_tune.storage.names import PathBelow, checked_name, path_below
from dfsc_tune.storage.object_store import Store, StoredFile
from dfsc_tune.storage.places import cache_folder
from dfsc_tune.storage.removal import remove_below

_NUM_THREADS = 8
_TRIES = 3
_FETCHED = ".fetched.json"
"""In a copy: of each file what `_Fetched` has."""


@dataclass(frozen=True)
class _Fetched:
    """A file of a copy: its size and time in the store, and its sha256 as it came."""

    size: int
    changed: str
    sha256: str


_ENTRIES = TypeAdapter(dict[PathBelow, _Fetched])


def local_copy(store: Store, purpose: str) -> Path:
    """The folder for this machine's copy of a store's folder.

    Args:
        store: the folder.
        purpose: the kind of copy; each has its own place.
    """
    for name in filter(None, (store.parent.name, store.name)):
        try:
            checked_name(name)
        except ValueError as error:
            raise UserError(f"{store} leads out of the folder that it names: refused") from error
    digest = hashlib.sha256(store.uri.encode()).hexdigest()[:12]
    base = cache_folder() / purpose
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
    _write_fetched(folder, _read_fetched(folder))
    return folder


def fetch_folder(
    store: Store,
    folder: Path,
    wanted: Callable[[str], bool],
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Brings a copy up to what the store has; returns the number of files fetched.

    Files that are here, as the store has them and as they came, stay; each is read again to
    see that, by its sha256. Wanted files that the store has no more are deleted. Where the store
    has a `SHA256SUMS`, as `sha256sum` writes it, files must agree with it.

    Args:
        store: where from.
        folder: where to; nothing else should write into it. One process at a time does.
        wanted: which files, by their path.
        progress: told the files done and the files in all.

    Raises:
        StorageError: the store does not answer.
        UserError: a file is not what `SHA256SUMS` says, or its name leads out of the folder.
    """
    with _locked(folder):
        entries = _read_fetched(folder)
        there = {name: file for name, file in store.files().items() if wanted(name)}
        for name in there:
            path_below(folder, name)
        sums = _read_sums(store) if there else {}
        for name in [name for name in entries if wanted(name) and name not in there]:
            remove_below(folder, name)
            del entries[name]

        def bring(name: str) -> bool:
            is_here = name in entries and _is_here(folder / name, entries[name], there[name])
            entry = entries[name] if is_here else _fetch(store, name, there[name], folder)
            if sums.get(name, entry.sha256) != entry.sha256:
                raise UserError(
                    f"{store / name} is not what {store}/{SUMS} says it is: put the right file, "
                    "or the right sum, there"
                )
            entries[name] = entry
            return not is_here

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


def _is_here(path: Path, known: _Fetched, file: StoredFile) -> bool:
    same = (known.size, known.changed) == (file.size, file.changed)
    return same and path.is_file() and file_sha256(path) == known.sha256


def _fetch(store: Store, name: str, file: StoredFile, folder: Path) -> _Fetched:
    """Fetches a file; returns what is to be remembered of it."""
    path = path_below(folder, name)
    for _ in range(_TRIES):
        store.fetch(name, path)
        if (size := path.stat().st_size) == file.size:
            return _Fetched(size, file.changed, file_sha256(path))
        # Of a run that goes on, a file may have been put anew since it was listed.
        file = store.find(name) or file
    raise StorageError(f"{store / name} gave {size} bytes instead of {file.size}")


def _read_sums(store: Store) -> dict[str, str]:
    lines = (store.read(SUMS) or b"").decode(errors="replace").splitlines()
    sums = {}
    for number, line in enumerate(lines, start=1):
        digest, _, name = line.strip().partition(" ")
        if digest and not name:
            raise UserError(
                f"line {number} of {store}/{SUMS} is no checksum with a name: write the file as "
                "`sha256sum` does, or delete it"
            )
        sums[name.lstrip(" *").removeprefix("./")] = digest
    return sums


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lets one process of this machine at a time fetch into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read_fetched(folder: Path) -> dict[str, _Fetched]:
    try:
        return _ENTRIES.validate_json((folder / _FETCHED).read_bytes())
    except (OSError, ValidationError):
        # All is fetched again.
        return {}


def _write_fetched(folder: Path, entries: Mapping[str, _Fetched]) -> None:
    write_text(folder / _FETCHED, json.dumps({name: asdict(x) for name, x in entries.items()}))
