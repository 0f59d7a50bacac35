"""The lines of a ledger: what each may say, and the digest that ties it to those before it.

A line ends with a digest of all before it in the file, so that a line that was altered, doubled,
moved or lost shows. Version 0.1.0 wrote none: the first that has one covers the lines before, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from dfsc_tune.errors import UserError
from dfsc_tune.results import ENDED
from dfsc_tune.spaces.space import Role
from dfsc_tune.storage.documents import check_no_pipe, parse_json
from dfsc_tune.storage.names import FileName

BEGAN, RESUMED = "began", "resumed"
# The name in ledgers of every version so far.
FINALIZED = "published"
# And `ENDED`, which those who only read a run know too.
BROKE = "broke"
"""A trial's process was lost and the trial is tried again: its `kind` says why (see `failures`),
`seconds` how long it had run since it was last heard of."""
NOTED = "noted"
"""Something that a user should know of a trial, its `note`; nothing is decided by it."""

Event = dict[str, Any]
TrialName = Annotated[str, Field(pattern=r"^[0-9]{4,}$")]
_Count = Annotated[int, Field(ge=0)]
_Values = dict[str, bool | int | float | str]
_Loss = Annotated[tuple[str, float], Field(strict=False)]
_SEALED = re.compile(rb', "digest": "([0-9a-f]{16})"}$')


class _Event(BaseModel):
    model_config = ConfigDict(strict=True)

    at: float | None = None
    """Time of its writing: seconds since 1970."""


class _Began(_Event):
    event: Literal["began"]
    settings: str | None = None


class _Resumed(_Event):
    event: Literal["resumed"]


class _Suggested(_Event):
    event: Literal["suggested"]
    trial: TrialName
    category: FileName
    values: _Values
    role: Role
    params: _Values


class _Reported(_Event):
    event: Literal["reported"]
    trial: TrialName
    step: Annotated[int, Field(ge=1)]
    value: float
    metrics: Annotated[list[dict[str, float | None]], Field(min_length=1)]
    losses: list[_Loss]
    seconds: float
    hostname: str | None
    device: str | None

    @field_validator("metrics")
    @classmethod
    def _of_momenta(cls, metrics: list[dict[str, float | None]]) -> Any:
        if any(entry.get("ema_momentum") is None for entry in metrics):
            raise ValueError("lacks an ema_momentum")
        return metrics


class _Failed(_Event):
    event: Literal["failed"]
    trial: TrialName
    reason: str


class _Broke(_Event):
    event: Literal["broke"]
    trial: TrialName
    kind: str
    seconds: float


class _Noted(_Event):
    event: Literal["noted"]
    trial: TrialName
    note: str


class _Finalized(_Event):
    event: Literal["published"]
    num_ended: _Count


class _Ended(_Event):
    event: Literal["ended"]
    why: str | None


_EVENT: TypeAdapter[Any] = TypeAdapter(
    Annotated[
        _Began
        | _Resumed
        | _Suggested
        | _Reported
        | _Failed
        | _Broke
        | _Noted
        | _Finalized
        | _Ended,
        Field(discriminator="event"),
    ]
)
assert ENDED == "ended"


class DamagedLedgerError(UserError):
    """A ledger that is not as it was written."""

    def __init__(self, path: object, line: int, problem: str) -> None:
        before = line - 1
        whole = "the line before it is" if before == 1 else f"the {before} lines before it are"
        keep = f", go on from what is whole by `dfsc-tune resume --keep-lines {before}`"
        super().__init__(
            f"the ledger {path} is damaged: line {line} {problem}; "
            + (f"{whole} whole: restore the file{keep}," if before else "restore the file")
            + " or start a new run"
        )


@dataclass
class Lines:
    """The events of a ledger, up to the first damaged line."""

    events: list[Event] = field(default_factory=list)
    num_bytes: int = 0
    """Of the lines of these events."""
    digest: str = ""
    """Of the last of them."""
    is_sealed: bool = False
    """True if that line has it."""
    damage: DamagedLedgerError | None = None


def sealed(event: Event, before: str) -> tuple[bytes, str]:
    """The line of an event, with its end, and its digest.

    Args:
        event: what it says.
        before: the digest of the line before; "" for the first.
    """
    # What no text can hold may be in the words of an error.
    body = json.dumps(event, ensure_ascii=False).encode(errors="replace")
    body = body.replace(rb"\u0000", rb"\ufffd")
    digest = _digest(body, before)
    return body[:-1] + f', "digest": "{digest}"}}\n'.encode(), digest


def read_lines(path: Path) -> Lines:
    """The whole events of a ledger; what follows its last line's end was never written.

    Raises:
        UserError: it cannot be read at all.
    """
    check_no_pipe(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the ledger {path}: {error.strerror}") from error
    return parse_lines(content, path)


def parse_lines(content: bytes, path: object) -> Lines:
    """Like `read_lines`, of what a file holds."""
    found = Lines()
    for line in _complete(content):
        try:
            _take(found, line)
        except ValueError as error:
            found.damage = DamagedLedgerError(path, len(found.events) + 1, str(error))
            break
    return found


def _complete(content: bytes) -> Iterator[bytes]:
    """The lines that have an end: who dies while writing leaves one without."""
    start = 0
    while (end := content.find(b"\n", start)) >= 0:
        yield content[start:end]
        start = end + 1


def _take(found: Lines, line: bytes) -> None:
    """Adds a line; ValueError says what is wrong with it."""
    seal = _SEALED.search(line)
    body = line[: seal.start()] + b"}" if seal else line
    digest = _digest(body, found.digest)
    if seal and seal[1].decode() != digest:
        raise ValueError("is not what was written there, or lines before it are not")
    if found.is_sealed and not seal:
        raise ValueError("has no digest, as the line before has")
    try:
        event = parse_json(body, "it")
    except UserError as error:
        raise ValueError("is no JSON") from error
    try:
        _EVENT.validate_python(event)
    except ValidationError as error:
        raise ValueError(f"is no event of a search ({_reason(error)})") from error
    found.events.append(event)
    found.num_bytes += len(line) + 1
    found.digest, found.is_sealed = digest, seal is not None


def _reason(error: ValidationError) -> str:
    first = error.errors()[0]
    # The first step is the event's name, which the value shows.
    place = ".".join(str(step) for step in first["loc"][1:])
    return f"{place}: {first['msg']}" if place else first["msg"]


def _digest(body: bytes, before: str) -> str:
    return sha256(before.encode() + body).hexdigest()[:16]
