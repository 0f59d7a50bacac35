"""Downloads one published file, continuing an interrupted download, and checks it.

The bytes go to a hidden file beside the target, which takes its place only when its size and
sha256 are those that were published: half a download is never used.
"""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dfsc_tune.errors import StorageError, UserError
from dfsc_tune.storage.digest import file_sha256

TIMEOUT_SECONDS = 30.0
_CHUNK = 1 << 16
# A file of unknown size: far above any public teacher; ends what would fill the disk.
_MOST_BYTES = 500_000_000
_PAUSE_SECONDS = 1.0
_RANGE_NOT_SATISFIABLE = 416

Update = Callable[[int, int], None]
"""Told the bytes done, and the bytes in all or 0 where unknown."""


@dataclass(frozen=True)
class PublishedFile:
    """A file on the web, known by its content."""

    url: str
    sha256: str
    num_bytes: int | None = None
    """None where nobody has said."""


def download(
    published: PublishedFile,
    target: Path,
    update: Update,
    *,
    by_hand: str,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Downloads a published file to `target`.

    A connection that breaks is opened again, as long as each one brings something; what came stays
    for the next call if none does.

    Args:
        published: what to get.
        target: in a folder that exists.
        update: told how far it is.
        by_hand: what to do where the address cannot be reached: "download it elsewhere and …".
        timeout_seconds: how long the other side may be silent.

    Raises:
        UserError: the address cannot be reached, or what came is not what was published (and is
            gone).
        StorageError: the disk failed.
    """
    part = partial_path(target)
    reached = part.stat().st_size if part.exists() else 0
    while published.num_bytes is None or reached < published.num_bytes:
        try:
            _receive(published, part, update, by_hand, timeout_seconds)
            break
        except _BrokenOffError as error:
            before, reached = reached, part.stat().st_size if part.exists() else 0
            if reached <= before:
                raise UserError(
                    f"{published.url} cannot be reached ({error}); try again online (what came so "
                    f"far is kept), or {by_hand}"
                ) from error
            time.sleep(_PAUSE_SECONDS)
    if difference := unlike(part, published):
        part.unlink()
        raise UserError(
            f"what {published.url} gave {difference}, so it was discarded; try again, or see "
            "whether the file there was replaced"
        )
    part.replace(target)


def partial_path(target: Path) -> Path:
    """Returns the path of a download of `target` until it is complete."""
    return target.with_name(f".{target.name}.part")


def unlike(file: Path, published: PublishedFile) -> str | None:
    """Says how a file differs from the published one: "has … instead of …"; None if equal."""
    size = file.stat().st_size
    if published.num_bytes not in (None, size):
        return f"has {size:,} bytes instead of {published.num_bytes:,}"
    if (found := file_sha256(file)) != published.sha256:
        return f"has sha256 {found} instead of {published.sha256}"
    return None


class _BrokenOffError(Exception):
    """The connection failed or ended before its time."""


def _receive(
    published: PublishedFile, part: Path, update: Update, by_hand: str, timeout_seconds: float
) -> None:
    """Appends what a partial file lacks, over one connection."""
    offset = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(published.url)
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds) as answer:
            start, total = _extent(answer, offset)
            _append(published, answer, part, start, total, update)
    except urllib.error.HTTPError as error:
        if error.code == _RANGE_NOT_SATISFIABLE:
            # It is longer than what lies there now, so it belongs to something else.
            part.unlink()
        raise UserError(
            f"{published.url} answers {error.code} {error.reason}; try again later, or {by_hand}"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(getattr(error, "reason", None) or error) from error


def _extent(answer: http.client.HTTPResponse, offset: int) -> tuple[int, int]:
    """Reads the position at which an answer begins, and the size of the whole file or 0."""
    given = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if answer.status == http.HTTPStatus.PARTIAL_CONTENT and given and int(given[1]) == offset:
        return offset, int(given[2].replace("*", "0"))
    # A server that knows no ranges sends the whole file again.
    return 0, int(answer.headers.get("Content-Length") or 0)


def _append(
    published: PublishedFile,
    answer: http.client.HTTPResponse,
    part: Path,
    start: int,
    total: int,
    update: Update,
) -> None:
    limit = published.num_bytes or _MOST_BYTES
    done = start
    with part.open("ab" if start else "wb") as file:
        while chunk := answer.read(_CHUNK):
            done += len(chunk)
            if done > limit:
                part.unlink()
                raise UserError(f"{published.url} sends more than {limit:,} bytes: refused")
            try:
                file.write(chunk)
                file.flush()
            except OSError as error:
                raise StorageError(f"cannot write {part} ({error.strerror or error})") from error
            update(done, total)
    if done < total:
        raise _BrokenOffError(f"the connection ended after {done:,} of {total:,} bytes")
