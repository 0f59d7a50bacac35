"""`python -m tests.fuzz [TIMES]`: damages each kind of file that is read, at random but seeded.

Whatever is in a file, reading it ends in a UserError or in a result, soon, and touches nothing
beside it; a ledger with digests gives no event that was not written. Prints how many damages of
each kind were tried, refused and read, and each that ended otherwise.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.random import Generator

from dfsc_tune import results
from dfsc_tune.config import TrialConfig
from dfsc_tune.cost.throughput import read_throughput
from dfsc_tune.data.declarations import read_defect_kinds, read_defects_config
from dfsc_tune.errors import UserError
from dfsc_tune.launch.cluster_files import read_cluster_file, shipped_cluster_files
from dfsc_tune.launch.pack import pack
from dfsc_tune.models.detector import ModelCard
from dfsc_tune.models.teacher_files import card_path, read_card, shipped_teacher
from dfsc_tune.pages.comparison import compare_runs, comparison_table
from dfsc_tune.results import LEDGER
from dfsc_tune.results.status import status_of
from dfsc_tune.search.events import read_lines
from dfsc_tune.search.ledger import Ledger, interruptions, working_seconds
from dfsc_tune.search.remote_run import _driver
from dfsc_tune.search.resume import request_of
from dfsc_tune.search.run import replayed_controller
from dfsc_tune.settings import dump, load
from dfsc_tune.spaces.space import SearchSpace
from dfsc_tune.storage.copies import fetch_folder
from dfsc_tune.storage.object_store import StoredFile
from tests.support.synthetic_run import make_run

ROOT = Path(__file__).parents[1]
OLD_RUN = ROOT / "tests" / "assets" / "runs" / "0.1.0" / "finished"
_SECONDS = 30
_VALUES = (
    *(b"[]", b"{}", b"null", b"5", b"-1", b'"x"', b"true", b"1e999", b".nan", b"2001-99-99"),
    *(b'"../../victim"', b'""', b"&a [*a]", b"[" * 3000, b'"\\u0000"', b'"\\ud800"', b"9" * 5000),
)
_SCALAR = re.compile(rb"(?<=[:\[,-] )[^\s,\[\]{}]+|(?<=[\[{,])[^\s,\[\]{}]+")

Mutation = Callable[[bytes, Generator], bytes]


@dataclass(frozen=True)
class Kind:
    """A kind of file: how one is made in an empty folder, and what reads it."""

    make: Callable[[Path], Path]
    read: Callable[[Path], object]


@dataclass
class Outcome:
    """What came of damages of one kind of file."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def _span(size: int, rng: Generator) -> slice:
    start = int(rng.integers(size))
    return slice(start, min(size, start + int(rng.integers(1, max(2, size // 4)))))


def _cut(content: bytes, rng: Generator) -> bytes:
    return content[: int(rng.integers(len(content)))]


def _zeroed(content: bytes, rng: Generator) -> bytes:
    span = _span(len(content), rng)
    return content[: span.start] + bytes(span.stop - span.start) + content[span.stop :]


def _repeated(content: bytes, rng: Generator) -> bytes:
    span = _span(len(content), rng)
    return content[: span.stop] + content[span] + content[span.stop :]


def _swapped(content: bytes, rng: Generator) -> bytes:
    a, b, c = sorted(int(x) for x in rng.integers(len(content), size=3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def _altered(content: bytes, rng: Generator) -> bytes:
    found = bytearray(content)
    for place in rng.integers(len(found), size=int(rng.integers(1, 4))):
        found[place] = int(rng.integers(256))
    return bytes(found)


def _of_lines(change: Mutation) -> Mutation:
    """A change of whole lines: each stands for a byte, told apart by its place."""

    def changed(content: bytes, rng: Generator) -> bytes:
        lines = content.splitlines(keepends=True)[:255]
        order = change(bytes(range(1, len(lines) + 1)), rng)
        return b"".join(lines[number - 1] if number else b"\0\n" for number in order)

    return changed


def _retyped(content: bytes, rng: Generator) -> bytes:
    scalars = list(_SCALAR.finditer(content))
    if not scalars:
        return _altered(content, rng)
    place = scalars[int(rng.integers(len(scalars)))]
    value = _VALUES[int(rng.integers(len(_VALUES)))]
    return content[: place.start()] + value + content[place.end() :]


def _retyped_column(content: bytes, rng: Generator) -> bytes:
    table = pq.read_table(pa.BufferReader(content))
    index = int(rng.integers(table.num_columns))
    name, size = table.column_names[index], len(table)
    nothing = pa.nulls(size, table[name].type)
    columns: list[pa.Array | None] = [
        *(pa.array([x] * size) for x in ("../../victim", "", 5, -1, 1e300, [1], {"a": 1}, True)),
        *(nothing, None, pa.array([b"\xff"] * size), pa.array([2**63 - 1] * size)),
    ]
    column = columns[int(rng.integers(len(columns)))]
    table = table.drop_columns([name])
    if column is not None:
        table = table.append_column(name, column)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


_BYTES = (_cut, _zeroed, _repeated, _swapped, _altered)
_TEXT = (*_BYTES, *map(_of_lines, _BYTES[:4]), _retyped, _retyped, _retyped)
_TABLE = (*_BYTES, _retyped_column, _retyped_column, _retyped_column)


def _read_run(path: Path) -> None:
    run = results.load(path.parent)
    for summary in results.summaries(run):
        results.describe(summary)
    status = status_of(run)
    str(status.summary)
    other = make_run(path.parent.with_name("other"), num_trials=8)
    try:
        for comparison in compare_runs([run, results.load(other)]):
            comparison_table(comparison)
    finally:
        shutil.rmtree(other)


def _run(name: str) -> Callable[[Path], Path]:
    return lambda folder: make_run(folder, num_trials=8) / name


def _old_ledger(folder: Path) -> Path:
    shutil.copytree(OLD_RUN, folder, dirs_exist_ok=True)
    return folder / LEDGER


def _sealed_ledger(folder: Path) -> Path:
    path = _old_ledger(folder)
    events = read_lines(path).events
    path.unlink()
    with closing(Ledger(folder)) as ledger:
        for event in events:
            ledger.append(event)
    (folder / "events.txt").write_text(repr(read_lines(path).events))
    return path


def _read_ledger(path: Path) -> None:
    status_of(results.load(path.parent))
    interruptions(path.parent)
    working_seconds(path.parent)
    settings = results.read_settings(path.parent)
    request = request_of(path.parent, Path("data"), "data")
    with closing(Ledger(path.parent)) as ledger:
        replayed_controller(request, settings.base_configs, path.parent, ledger).close()


def _read_sealed_ledger(path: Path) -> None:
    written = (path.parent / "events.txt").read_text()[:-1]
    found = repr(read_lines(path).events)[:-1]
    assert written.startswith(found), "events that were not written"
    _read_ledger(path)


def _copied(source: Path) -> Callable[[Path], Path]:
    return lambda folder: Path(shutil.copy(source, folder / source.name))


def _written(name: str, text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_text(text)
        return folder / name

    return make


def _card() -> str:
    return dump(
        ModelCard(
            origin="x",
            dfsc_tune_version="0.2.0",
            teacher_sha256="0" * 64,
            weights_sha256="0" * 64,
            local_quantiles=(0.1, 0.2),
            global_quantiles=(0.1, 0.2),
            threshold=1.5,
            config=TrialConfig(category="tray"),
            selection_digests=("0" * 64,) * 3,
        )
    )


def _teacher_card(folder: Path) -> Path:
    weights = shipped_teacher("tiny")
    shutil.copy(weights, folder / weights.name)
    return Path(shutil.copy(card_path(weights), folder / card_path(weights).name))


def _read_fetched(path: Path) -> None:
    def fetch(name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("x")

    files = {"a": StoredFile(1, "2026-01-01T00:00:00+00:00")}
    store: Any = SimpleNamespace(files=lambda: files, read=lambda name: None, fetch=fetch)
    fetch_folder(store, path.parent, lambda name: True)


def _pack(path: Path) -> None:
    folder = path.parent / "job"
    folder.mkdir()
    try:
        words = ["search", "--space", str(path), "--results", "/shared"]
        pack(words, folder, "x", wait=False)
    finally:
        shutil.rmtree(folder)


_DEFECTS = [
    {
        "defect_name": f"d{number}",
        "pixel_value": number,
        "saturation_threshold": 0.5,
        "relative_saturation": True,
    }
    for number in range(1, 6)
]
_ENTRY = {"size": 1, "changed": "2026-01-01T00:00:00+00:00", "sha256": "0" * 64}
_SPACE = ROOT / "search_spaces" / "default.yaml"
_RECORD = next((ROOT / "results" / "benchmarks").glob("*.yaml"))
KINDS: dict[str, Kind] = {
    "run.yaml": Kind(_run("run.yaml"), _read_run),
    "trials.parquet": Kind(_run("trials.parquet"), _read_run),
    "reports.parquet": Kind(_run("reports.parquet"), _read_run),
    "scores.parquet": Kind(_run("scores.parquet"), _read_run),
    "ledger.jsonl": Kind(_sealed_ledger, _read_sealed_ledger),
    "ledger.jsonl of 0.1.0": Kind(_old_ledger, _read_ledger),
    "model.yaml": Kind(_written("model.yaml", _card()), lambda x: load(x, ModelCard)),
    "a teacher's card": Kind(_teacher_card, lambda x: read_card(x.with_suffix(".safetensors"))),
    "best/*.yaml": Kind(_copied(OLD_RUN / "best" / "tray.yaml"), lambda x: load(x, TrialConfig)),
    "a search space": Kind(_copied(_SPACE), lambda x: load(x, SearchSpace)),
    "a search space for a job": Kind(_copied(_SPACE), _pack),
    "dataset.yaml": Kind(
        _written("dataset.yaml", "defect_types:\n  bent: logical\n  scratch: structural\n"),
        read_defect_kinds,
    ),
    "defects_config.json": Kind(
        _written("defects_config.json", json.dumps(_DEFECTS)), read_defects_config
    ),
    "a cluster file": Kind(_copied(shipped_cluster_files() / "aws.yaml"), read_cluster_file),
    "a benchmark's record": Kind(_copied(_RECORD), read_throughput),
    ".fetched.json": Kind(
        _written(".fetched.json", json.dumps({"a": _ENTRY, "b/c": _ENTRY})), _read_fetched
    ),
    "driver.json": Kind(
        _written("driver.json", json.dumps({"host": "here", "pid": 1})),
        lambda x: _driver(SimpleNamespace(read=lambda name: x.read_bytes())),  # type: ignore[arg-type]
    ),
}


@contextmanager
def _soon() -> Iterator[None]:
    """Ends what hangs."""

    def end(number: int, frame: object) -> None:
        raise TimeoutError(f"not done after {_SECONDS} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fuzz(name: str, times: int, work: Path, seed: int = 0) -> Outcome:
    """Damages a kind of file so many times, and reads it each time.

    Args:
        name: one of `KINDS`.
        times: how often.
        work: an empty folder.
        seed: decides the damages.
    """
    kind, rng, outcome = KINDS[name], np.random.default_rng(seed), Outcome()
    victim = work / "victim"
    whole = work / "whole" / "runs" / "x"
    victim.mkdir(parents=True)
    whole.mkdir(parents=True)
    path = kind.make(whole)
    content = path.read_bytes()
    mutations = _TABLE if path.suffix == ".parquet" else _TEXT
    damaged = work / "damaged"
    for number in range(times):
        mutation = mutations[number % len(mutations)]
        (damaged / "runs").mkdir(parents=True)
        folder = Path(shutil.copytree(whole, damaged / "runs" / "x"))
        (folder / path.relative_to(whole)).write_bytes(mutation(content, rng))
        (damaged / "victim").mkdir()
        try:
            with _soon(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                kind.read(folder / path.relative_to(whole))
            outcome.counts["read"] += 1
        except UserError:
            outcome.counts["refused"] += 1
        except Exception:
            outcome.failures.append(f"{name}, damage {number}: {traceback.format_exc()}")
        if not (damaged / "victim").is_dir() or not victim.is_dir():
            outcome.failures.append(f"{name}, damage {number}: removed what is not its own")
        shutil.rmtree(damaged)
    return outcome


def main() -> None:
    """Tries all kinds, and ends with status 1 if anything ended otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("times", nargs="?", type=int, default=100)
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    failures: list[str] = []
    print(f"{'file':<28} {'tried':>6} {'refused':>8} {'read':>6} {'otherwise':>10}")
    for name in arguments.kind or KINDS:
        with tempfile.TemporaryDirectory() as work:
            outcome = fuzz(name, arguments.times, Path(work), arguments.seed)
        counts = outcome.counts
        row = f"{counts['refused']:>8} {counts['read']:>6} {len(outcome.failures):>10}"
        print(f"{name:<28} {arguments.times:>6} {row}", flush=True)
        failures += outcome.failures
    print(*failures[:20], sep="\n")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
