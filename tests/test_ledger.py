"""The ledger: what is written stays, half a line never was, and only one process holds it."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dfsc_tune.errors import StorageError, UserError
from dfsc_tune.search.ledger import LEDGER, Ledger

EVENTS = [{"event": "began"}, {"event": "reported", "value": 0.1 + 0.2, "text": "ü"}]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path)) as ledger:
        for event in EVENTS:
            ledger.append(event)
        yield ledger


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path)) as ledger:
        for event in EVENTS:
            ledger.append(event)
    with closing(Ledger(tmp_path)) as ledger:
        assert ledger.events == EVENTS
        ledger.append({"event": "more"})
    lines = (tmp_path / LEDGER).read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["began", "reported", "more"]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_half_a_line_never_was(tmp_path: Path, cut: int) -> None:
    with closing(Ledger(tmp_path)) as ledger:
        for event in EVENTS:
            ledger.append(event)
    path = tmp_path / LEDGER
    os.truncate(path, path.stat().st_size - cut)
    with closing(Ledger(tmp_path)) as ledger:
        assert ledger.events == EVENTS[:1]
        ledger.append(EVENTS[1])
    with closing(Ledger(tmp_path)) as ledger:
        assert ledger.events == EVENTS


def test_damage_in_the_middle_is_refused(tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_text('{"event": "began"}\nrubbish\n{"event": "more"}\n')
    with pytest.raises(UserError, match="is damaged"):
        Ledger(tmp_path)


def test_only_one_process_holds_it(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="still going on"):
        Ledger(tmp_path)


def test_a_full_disk_leaves_it_as_it_was(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def write_a_little(file: int, line: bytes) -> int:
        if len(line) < 15:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, line[:10])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write_a_little)
        with pytest.raises(StorageError, match="No space left"):
            ledger.append({"event": "a long one that is written in pieces"})
    ledger.append({"event": "after"})
    lines = (tmp_path / LEDGER).read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["began", "reported", "after"]
