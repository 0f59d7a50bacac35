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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=50, help="faults in all")
    parser.add_argument("--faults-per-run", type=int, default=3)
    parser.add_argument("--only", choices=FAULTS, action="append", help="these faults alone")
    parser.add_argument("--seed", type=int, default=0, help="decides faults and moments")
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="dfsc_tune_faults_"))
    print(f"in {work}", flush=True)
    prepare(work)
    start = time.monotonic()
    reference = Session(work, _REFERENCE)
    assert reference.wait_until_it_works()
    working = time.monotonic()
    assert reference.wait() == 0, (work / f"{_REFERENCE}.log").read_text()
    longest = time.monotonic() - working
    print(f"undisturbed: {time.monotonic() - start:.0f} s, {longest:.0f} s of it at work")
    chance = random.Random(arguments.seed)
    happened: Counter[str] = Counter()
    num_different = num_runs = 0
    while happened.total() < arguments.times:
        num_runs += 1
        run = f"run{num_runs}"
        came = True
        left = longest
        for _ in range(min(arguments.faults_per_run, arguments.times - happened.total())):
            if not came:
                break
            fault = chance.choice(arguments.only or FAULTS)
            moment = chance.uniform(0.0, left)
            left -= moment
            came = disturb(work, run, fault, moment)
            happened[fault] += came
            print(
                f"{run}: {fault} after {moment:.1f} s{'' if came else ' came too late'}", flush=True
            )
        num_different += not _finish(work, run)
    counts = ", ".join(f"{count} {fault}" for fault, count in sorted(happened.items()))
    print(f"{happened.total()} faults ({counts}) in {num_runs} runs: {num_different} differ")
    return int(num_different > 0)


def _finish(work: Path, run: str) -> bool:
    """Lets a run come to its end and compares it; whether it is as the undisturbed one."""
    status = Session(work, run).wait()
    results = work / "results"
    found = differences(results / _REFERENCE, results / run) if status == 0 else [f"exit {status}"]
    print(f"{run}: {'as if undisturbed' if not found else 'DIFFERS'}", flush=True)
    for text in found:
        print(f"  {text}", flush=True)
    return not found


if __name__ == "__main__":
    sys.exit(main())
