"""`python -m tests.scale decisions|ray|reuse`: what a large search costs beside its trials.

Run it from the repository's top. `decisions` runs what decides without Ray, in simulated time: each
trial reports 20 times along a recorded learning curve, unless `--stopping` lets ASHA end it. `ray`
runs trials that sleep and report 20 times, each in a process of its own (some 120 MB of memory).
`reuse` runs real trials one after the other in one process.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from contextlib import nullcontext
from pathlib import Path

_MARKS = {10, 100, 1000, 10000}
_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled"}


def main() -> None:
    """Measures what was asked for."""
    arguments = _arguments()
    # Beside the results of real searches, for what writing costs depends on the disk.
    with tempfile.TemporaryDirectory(dir="results", prefix="scale_") as folder:
        {"decisions": _decisions, "ray": _ray, "reuse": _reuse}[arguments.way](
            Path(folder), arguments
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    ways = parser.add_subparsers(required=True, dest="way")
    decisions = ways.add_parser("decisions")
    decisions.add_argument("--trials", type=int, default=1000)
    decisions.add_argument("--workers", type=int, default=8, help="trials at once")
    decisions.add_argument("--sampler", default="tpe")
    decisions.add_argument("--stopping", action="store_true", help="let ASHA end trials")
    ray = ways.add_parser("ray")
    ray.add_argument("--trials", type=int, default=256)
    ray.add_argument("--workers", type=int, default=64, help="trials at once")
    ray.add_argument("--seconds", type=float, default=60.0, help="that a trial takes")
    reuse = ways.add_parser("reuse")
    reuse.add_argument("--trials", type=int, default=20)
    return parser.parse_args()


def _decisions(results: Path, arguments: argparse.Namespace) -> None:
    from tests.scale.decisions import measure
    from tests.scale.search import never_stopping, recorded_trials

    with nullcontext() if arguments.stopping else never_stopping():
        measure(
            results,
            recorded_trials(),
            arguments.trials,
            sampler=arguments.sampler,
            num_workers=arguments.workers,
            marks={*_MARKS, arguments.trials},
        )


def _ray(results: Path, arguments: argparse.Namespace) -> None:
    # Ray reads these when it is imported.
    os.environ.update(_ON_LOOPBACK)
    from tests.scale.through_ray import measure

    print(
        measure(results, arguments.trials, num_workers=arguments.workers, seconds=arguments.seconds)
    )


def _reuse(results: Path, arguments: argparse.Namespace) -> None:
    os.environ.update(_ON_LOOPBACK)
    from tests.scale.reuse import measure

    seconds = sorted(measure(results, arguments.trials))
    low, median, high = seconds[0], seconds[len(seconds) // 2], seconds[-1]
    print(
        "from a trial's last report to the first step of the next: "
        f"{median:.3f} ({low:.3f} to {high:.3f}) s (n = {len(seconds)})"
    )


if __name__ == "__main__":
    main()
