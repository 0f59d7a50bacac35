"""`dfsc-tune watch`: follows a running search from another terminal or machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from dfsc_tune.cli.options import ResultsOption, RunArgument
from dfsc_tune.cli.printing import say_next
from dfsc_tune.cli.streams import end_with_reader

if TYPE_CHECKING:
    from dfsc_tune.results.status import RunStatus


def watch(
    run: RunArgument,
    results: ResultsOption = Path("results"),
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.2)] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Write TensorBoard event files into this folder.")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(help="Log to this MLflow server or store, a URI.")
    ] = None,
) -> None:
    """Follow a run by its files until it ends; Ctrl-C ends the watching, not the run."""
    end_with_reader()
    looks = _looks(run, results, interval, once, tensorboard, mlflow)
    console = Console(soft_wrap=True)
    if once or not console.is_terminal:
        shown = ""
        for progress in looks:
            if (text := _shown(progress)) != shown:
                shown = text
                typer.echo(text)
        if once and progress.news:
            typer.echo(progress.news)
    else:
        with Live(console=console, auto_refresh=False) as live:
            for progress in looks:
                live.update(_table(progress), refresh=True)
    if progress.ended:
        say_next("report", run, "--results", results)


def _looks(
    run: str,
    results: Path,
    interval: float,
    once: bool,
    tensorboard: Path | None,
    mlflow: str | None,
) -> Iterator[RunStatus]:
    """The run's progress at each look, the loggers told of it before."""
    from dfsc_tune.pages.loggers import mlflow_follower, tensorboard_follower
    from dfsc_tune.results import find_run, load
    from dfsc_tune.results.status import status_of

    loaded = load(find_run(results, run))
    followers = []
    if tensorboard is not None:
        followers.append(tensorboard_follower(tensorboard, loaded))
    if mlflow is not None:
        followers.append(mlflow_follower(mlflow, loaded))
    while True:
        for follow in followers:
            follow(loaded)
        progress = status_of(loaded)
        yield progress
        if once or progress.ended:
            return
        time.sleep(interval)
        loaded = load(find_run(results, run))


def _shown(progress: RunStatus) -> str:
    """The state as text: a line for the counts, and one for each category's best."""
    from dfsc_tune.pages.terminal import cells_of

    best = [line for line in progress.lines if line.label == "best"]
    lines = [f"{line.category}: {' '.join(cells_of(line))}" for line in best]
    return "\n".join([progress.summary, *(f"  {line}" for line in lines)])


def _table(progress: RunStatus) -> Group:
    from dfsc_tune.pages.terminal import trial_table

    table = trial_table(progress.lines)
    return Group(Text(progress.summary), Text(progress.news, style="dim"), table)
