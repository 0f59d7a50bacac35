"""`python -m tests.faults --times 50`: many faults over small searches, each compared at its end.

Run it from the repository's top. It prints a line a fault and a line a finished run, and its exit
status is 1 if any run differs from the undisturbed one.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.compare import differences
from tests.faults.faults import FAULTS, disturb
from tests.faults.search import Session, prepare

_REFERENCE = "reference"


def main() -> int:
    """Runs the test; the exit status."""
    arguments = _arguments()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="dfsc_tune_faults_"))
    print(f"in {work}", flush=True)
    if not (work / "results" / _REFERENCE / "best").is_dir():
        _run_undisturbed(work)
    chance = random.Random(arguments.seed)
    happened: Counter[str] = Counter()
    num_different = num_runs = 0
    while happened.total() < arguments.times:
        num_runs += 1
        run = f"run{arguments.seed}_{num_runs}"
        came = True
        for _ in range(min(arguments.faults_per_run, arguments.times - happened.total())):
            if came:
                fault = chance.choice(arguments.only or FAULTS)
                moment = chance.uniform(0.0, arguments.within)
                came = disturb(work, run, fault, moment)
                happened[fault] += came
                late = "" if came else " came too late, or Ray did"
                print(f"{run}: {fault} after {moment:.1f} s{late}", flush=True)
        num_different += not _ends_as_if_undisturbed(work, run)
    counts = ", ".join(f"{count} {fault}" for fault, count in sorted(happened.items()))
    print(f"{happened.total()} faults ({counts}) in {num_runs} runs: {num_different} differ")
    return int(num_different > 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--times", type=int, default=50, help="faults in all")
    parser.add_argument("--faults-per-run", type=int, default=4)
    parser.add_argument("--only", choices=FAULTS, action="append", help="these faults alone")
    parser.add_argument("--seed", type=int, default=0, help="decides faults and moments")
    parser.add_argument(
        "--within", type=float, default=8.0, help="seconds of a session's work for the moments"
    )
    parser.add_argument("--work", type=Path, help="of an earlier call: spares the undisturbed run")
    return parser.parse_args()


def _run_undisturbed(work: Path) -> None:
    prepare(work)
    start = time.monotonic()
    reference = Session(work, _REFERENCE)
    reference.wait_until_it_works()
    working = time.monotonic()
    assert reference.wait() == 0, (work / f"{_REFERENCE}.log").read_text()
    end = time.monotonic()
    print(f"undisturbed: {end - start:.0f} s, {end - working:.0f} s of it at work", flush=True)


def _ends_as_if_undisturbed(work: Path, run: str) -> bool:
    while (session := Session(work, run)).wait() != 0 and session.found_no_ray:
        print(f"{run}: Ray did not start in time; once more", flush=True)
    status = session.process.returncode
    results = work / "results"
    found = differences(results / _REFERENCE, results / run) if status == 0 else [f"exit {status}"]
    print(f"{run}: {'as if undisturbed' if not found else 'DIFFERS'}", flush=True)
    for text in found:
        print(f"  {text}", flush=True)
    return not found


if __name__ == "__main__":
    sys.exit(main())
