"""The ledger: what is written stays, half a line never was, and only one process holds it."""

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dfsc_tune.errors import StorageError, UserError
from dfsc_tune.results import LEDGER
from dfsc_tune.results.status import is_running
from dfsc_tune.search.events import BROKE, RESUMED, Event, read_lines
from dfsc_tune.search.ledger import Ledger, interruptions, working_seconds

EVENTS = [
    {"event": "began"},
    {"event": "broke", "trial": "0001", "kind": "ü", "seconds": 0.1 + 0.2},
]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path)) as ledger:
        for event in EVENTS:
            ledger.append(event)
        yield ledger


def undated(events: list[Event]) -> list[Event]:
    return [{key: x for key, x in event.items() if key not in ("at", "digest")} for event in events]


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path)) as ledger:
        for event in EVENTS:
            ledger.append(event)
    with closing(Ledger(tmp_path)) as ledger:
        assert undated(ledger.events) == EVENTS
        ledger.append({"event": "resumed"})
    lines = (tmp_path / LEDGER).read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["began", "broke", "resumed"]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_half_a_line_never_was(tmp_path: Path, cut: int) -> None:
    with closing(Ledger(tmp_path)) as ledger:
        for event in EVENTS:
            ledger.append(event)
    path = tmp_path / LEDGER
    os.truncate(path, path.stat().st_size - cut)
    with closing(Ledger(tmp_path)) as ledger:
        assert undated(ledger.events) == EVENTS[:1]
        ledger.append(EVENTS[1])
    with closing(Ledger(tmp_path)) as ledger:
        assert undated(ledger.events) == EVENTS


def test_damage_in_the_middle_is_refused(tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_text('{"event": "began"}\nrubbish\n{"event": "more"}\n')
    for read in (Ledger, working_seconds):
        with pytest.raises(UserError, match="is damaged: line 2"):
            read(tmp_path)


def test_only_one_process_holds_it(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="still going on"):
        Ledger(tmp_path)


def test_whether_a_process_holds_it_is_told_without_taking_it(tmp_path: Path) -> None:
    assert not is_running(tmp_path)
    with closing(Ledger(tmp_path)):
        assert is_running(tmp_path)
    assert not is_running(tmp_path)


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
    assert [json.loads(line)["event"] for line in lines] == ["began", "broke", "after"]


@pytest.mark.parametrize("others", [False, True])
def test_one_that_is_gone_is_not_written_to(ledger: Ledger, tmp_path: Path, others: bool) -> None:
    (tmp_path / LEDGER).rename(tmp_path / "moved")
    if others:
        (tmp_path / LEDGER).touch()
    with pytest.raises(StorageError, match="deleted or moved"):
        ledger.append({"event": "lost"})
    assert len((tmp_path / "moved").read_text().splitlines()) == len(EVENTS)


def test_a_run_worked_while_its_sessions_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert working_seconds(tmp_path) is None
    # It dies after 130, is resumed at 500, ends at 560 and is published ten minutes later.
    moments: dict[int, Event] = {
        100: {"event": "began"},
        110: {"event": "failed", "trial": "0001", "reason": "no"},
        130: {"event": "broke", "trial": "0002", "kind": "lost", "seconds": 1.0},
        500: {"event": "resumed"},
        560: {"event": "failed", "trial": "0002", "reason": "no"},
        1160: {"event": "published", "num_ended": 2},
        1170: {"event": "ended", "why": None},
    }
    with closing(Ledger(tmp_path)) as ledger:
        for now, event in moments.items():
            monkeypatch.setattr(time, "time", lambda now=now: now)
            ledger.append(event)
    with (tmp_path / LEDGER).open("a") as file:
        file.write('{"event": "half a li')
    assert working_seconds(tmp_path) == 90


def test_a_ledger_without_times_tells_none(tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_text('{"event": "began"}\n{"event": "resumed", "at": 1.0}\n')
    assert working_seconds(tmp_path) is None


def test_interruptions_are_added_up_and_told(tmp_path: Path) -> None:
    assert str(interruptions(tmp_path)) == ""
    with closing(Ledger(tmp_path)) as ledger:
        for seconds in (1.5, 31.0):
            ledger.append({"event": BROKE, "trial": "0001", "kind": "lost", "seconds": seconds})
        ledger.append({"event": RESUMED})
    found = interruptions(tmp_path)
    assert (found.num_losses, found.seconds, found.num_resumes) == (2, 32.5, 1)
    assert str(found) == (
        "interruptions: trials lost their process 2 times, 32 s of training; "
        "the run was resumed once"
    )


def written(folder: Path) -> list[bytes]:
    """The lines of a ledger of six events."""
    with closing(Ledger(folder)) as ledger:
        for event in (*EVENTS, *EVENTS[1:], *EVENTS[1:], {"event": "resumed"}, *EVENTS[1:]):
            ledger.append(event)
    return (folder / LEDGER).read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda x: [*x[:2], x[1], *x[2:]], 3),
        (lambda x: [*x[:2], x[3], x[2], *x[4:]], 3),
        (lambda x: [*x[:2], *x[3:]], 3),
        (lambda x: x[1:], 1),
        (lambda x: [x[0], x[1].replace(b"0.30000000000000004", b"0.3"), *x[2:]], 2),
        (lambda x: [x[0], x[1].replace(b"0001", b"../x"), *x[2:]], 2),
        (lambda x: [x[0], x[1].split(b', "digest"')[0] + b"}\n", *x[2:]], 2),
        (lambda x: [*x[:-1], x[-1].replace(b"lost", b"LOST").replace(b"broke", b"BROKE")], 6),
        (lambda x: [x[0], bytes(len(x[1]) - 1) + b"\n", *x[2:]], 2),
        (lambda x: [b"[]\n", *x], 1),
        (lambda x: [*x, b"5\n"], 7),
        (lambda x: [*x, b"[" * 5000 + b"\n"], 7),
        (lambda x: [*x, b"{}\n"], 7),
    ],
)
def test_damage_is_told_with_its_line_and_changes_nothing(
    tmp_path: Path, damage: Callable[[list[bytes]], list[bytes]], line: int
) -> None:
    damaged = b"".join(damage(written(tmp_path)))
    (tmp_path / LEDGER).write_bytes(damaged)
    for read in (Ledger, interruptions, working_seconds):
        with pytest.raises(UserError, match=rf"ledger\.jsonl is damaged: line {line} "):
            read(tmp_path)
    assert len(read_lines(tmp_path / LEDGER).events) == line - 1
    assert (tmp_path / LEDGER).read_bytes() == damaged
    assert not is_running(tmp_path)


def test_a_ledger_of_old_is_gone_on_with_and_covered_from_there_on(tmp_path: Path) -> None:
    path = tmp_path / LEDGER
    path.write_text('{"event": "began"}\n{"event": "resumed", "at": 1.0}\n')
    with closing(Ledger(tmp_path)) as ledger:
        ledger.append(EVENTS[1])
    with closing(Ledger(tmp_path)) as ledger:
        assert undated(ledger.events) == [{"event": "began"}, {"event": "resumed"}, EVENTS[1]]
    path.write_text(path.read_text().replace("1.0", "2.0"))
    with pytest.raises(UserError, match="line 3 is not what was written there, or lines before"):
        Ledger(tmp_path)


def test_what_no_text_can_hold_is_written_and_read(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path)) as ledger:
        ledger.append({"event": "ended", "why": "a\0b\udc80c"})
    with closing(Ledger(tmp_path)) as ledger:
        assert ledger.events[0]["why"] == "a\ufffdb?c"
