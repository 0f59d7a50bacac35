"""What differs for a search whose run is kept in an object store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from dfsc_tune.errors import StorageError, UserError
from dfsc_tune.results import CHECKPOINTS, resume_command
from dfsc_tune.results.remote import check_absent
from dfsc_tune.search.mirror import FetchedCheckpoints, Mirror, StoredCheckpoints
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.storage.object_store import Store


def stored_run(request: SearchRequest) -> Store | None:
    """Where the run is kept, if in a store."""
    return Store(request.store) / request.name if request.store else None


def check_name(request: SearchRequest) -> None:
    """Refuses the name of a run that the store has already, or that no address can hold."""
    if (run := stored_run(request)) is not None:
        if quote(request.name, safe="") != request.name:
            raise UserError(
                f"--name {request.name} cannot be part of an address in {request.store}; use "
                "letters, digits, '.', '-' and '_'"
            )
        check_absent(run)


@contextmanager
def kept_in_store(
    request: SearchRequest, folder: Path
) -> Iterator[Callable[[str, str], None] | None]:
    """Keeps the run's folder in its store for the time of the block.

    Yields:
        What is to be told each trial that ends, and its state; None without a store.

    Raises:
        StorageError: at the beginning or the end, the store cannot be written to.
    """
    run = stored_run(request)
    if run is None:
        yield None
        return
    mirror = Mirror(folder, run)
    mirror.start()
    try:
        yield mirror.trial_ended
    finally:
        try:
            mirror.close()
        except StorageError as error:
            raise StorageError(
                f"{error}; the whole run is in {folder}: `{resume_command(folder)}` on this "
                "machine puts it there"
            ) from error


def trial_checkpoints(request: SearchRequest, folder: Path) -> Path | StoredCheckpoints:
    """Where trials keep their checkpoints, on whatever node they run."""
    run = stored_run(request)
    return StoredCheckpoints(str(run / CHECKPOINTS)) if run else (folder / CHECKPOINTS).resolve()


def readable_checkpoints(request: SearchRequest, folders: Mapping[str, Path]) -> Mapping[str, Path]:
    """The folders of checkpoints, by trial, with what is in them."""
    run = stored_run(request)
    if run is None:
        return folders
    return FetchedCheckpoints(folders, StoredCheckpoints(str(run / CHECKPOINTS)))
