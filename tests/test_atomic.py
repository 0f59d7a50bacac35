"""Files written whole: for whom the umask allows, and by many threads at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dfsc_tune.storage.atomic import remove_unfinished, write_text

UMASK = 0o027


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(UMASK)
    yield
    os.umask(before)


def test_a_file_is_for_everyone_the_umask_allows(tmp_path: Path) -> None:
    write_text(tmp_path / "new.txt", "text")
    assert (tmp_path / "new.txt").stat().st_mode & 0o777 == 0o666 & ~UMASK
    assert [path.name for path in tmp_path.iterdir()] == ["new.txt"]


def test_threads_that_write_leave_the_process_its_umask(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: write_text(tmp_path / f"{index}.txt", "text"), range(400)))
    assert os.umask(UMASK) == UMASK
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


def test_only_own_leftovers_are_removed(tmp_path: Path) -> None:
    own = tmp_path / "below" / f".{'0a' * 8}.part"
    others = [tmp_path / ".x.part", tmp_path / "below" / f"{'0a' * 8}.part"]
    own.parent.mkdir()
    for path in (own, *others):
        path.write_text("half")
    folder = tmp_path / f".{'0b' * 8}.part"
    folder.mkdir()
    remove_unfinished(tmp_path)
    assert not own.exists()
    assert folder.is_dir()
    assert all(path.is_file() for path in others)
