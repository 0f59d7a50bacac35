"""`dfsc-tune best` and `dfsc-tune runs`: what searches have found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dfsc_tune.cli.options import JsonOption, ResultsOption, RunArgument
from dfsc_tune.cli.printing import print_json, say_next
from dfsc_tune.cli.streams import escaped
from dfsc_tune.errors import UserError

if TYPE_CHECKING:
    from dfsc_tune.results import Run


def best(
    run: RunArgument,
    results: ResultsOption = Path("results"),
    json: JsonOption = False,
) -> None:
    """Show a run's best settings per category, with honest numbers and their uncertainty."""
    from dfsc_tune.results import best_trials, find_run, load, read_settings, resume_command
    from dfsc_tune.results.confirmed import CONFIRMED

    folder = find_run(results, run)
    if (folder / CONFIRMED).is_file():
        _print_confirmed(folder, json)
        return
    if read_settings(folder).continued_by == "confirm":
        raise UserError(
            f"nothing is decided in the run {folder} yet; continue it with "
            f"`{resume_command(folder)}`"
        )
    found = print_summaries(folder, json)
    trials = load(folder).trials
    so_far = best_trials(trials[~trials["category"].isin(found)]).to_dict("records")
    if not found and not so_far:
        raise UserError(f"no trial of the run {folder} has reached the full budget yet")
    for row in so_far:
        typer.echo(
            f"{row['category']}: trial {row['trial']} is best so far: the search saw "
            f"{row['value']:.3f}; numbers on the report part come when it ends",
            err=json,
        )


def runs(results: ResultsOption = Path("results"), json: JsonOption = False) -> None:
    """List the runs of a results folder."""
    from dfsc_tune.results import list_runs, load, resume_command

    rows = []
    for name in list_runs(results):
        try:
            rows.append(_summary(load(results / name)))
        except UserError as error:
            # One damaged run must not hide the others.
            typer.echo(f"warning: {escaped(str(error))}", err=True)
    if json:
        print_json(rows)
    elif not rows:
        typer.echo(f"no runs in {results}; start one: dfsc-tune search --category screw_bag")
    else:
        for row in rows:
            states = ", ".join(f"{count} {state}" for state, count in row["trials"].items())
            typer.echo(
                f"{row['run']:<40} {row['created']}  {', '.join(row['categories'])}  "
                f"{row['objective']}  {states or 'no trials'}"
            )
            if row["abandoned"]:
                typer.echo(
                    "  no process on this machine works on it; go on: "
                    f"{resume_command(results / row['run'])}"
                )


def print_summaries(folder: Path, as_json: bool) -> list[str]:
    """Prints what a run found; the categories that it found something for."""
    from dfsc_tune.results import describe, load, shown_value, summaries

    run = load(folder)
    found = summaries(run)
    if as_json:
        print_json(found)
        typer.echo(f"tables and settings: {folder}", err=True)
        return [summary.category for summary in found]
    for summary in found:
        settings = "  ".join(f"{key}={shown_value(x)}" for key, x in summary.settings.items())
        typer.echo(f"\n{summary.category}: best of run {folder.name} is trial {summary.trial}")
        typer.echo(f"  {settings}")
        for line in describe(summary):
            typer.echo(f"  {line}")
        print_places(folder, summary.category)
    if found:
        typer.echo(f"\ntables and settings: {folder}")
        say_next("report", folder, before="look at it")
        if run.settings.space is not None and run.settings.continued_by == "resume":
            say_next("confirm", folder, before="see whether it holds")
        say_predict(folder, found[0].category)
    return [summary.category for summary in found]


def print_places(folder: Path, category: str) -> None:
    """Prints where a run has put what it found for a category."""
    typer.echo(f"  config: {folder / 'best' / category}.yaml")
    typer.echo(f"  model:  {folder / 'models' / category}")


def say_predict(folder: Path, category: str) -> None:
    """Says on stderr how the model that a run found is used."""
    say_next("predict", folder / "models" / category, "IMAGE.png", "--heatmaps", "heatmaps")


def _print_confirmed(folder: Path, as_json: bool) -> None:
    """Prints what a confirmation decided: a best trial of it alone would say less."""
    from dfsc_tune.results import read_settings, resume_command
    from dfsc_tune.results.confirmed import CONFIRMED
    from dfsc_tune.storage.parquet import read_parquet

    again = f"it is made again by `{resume_command(folder)}`"
    table = read_parquet(folder / CONFIRMED, again).to_pandas()
    if as_json:
        print_json(table.to_dict("records"))
        return
    for category in read_settings(folder).categories:
        if category not in set(table["category"]):
            typer.echo(f"\n{category}: not decided; `{resume_command(folder)}` says why")
            continue
        path = folder / "best" / f"{category}.yaml"
        head = (x for x in path.read_text(encoding="utf-8").splitlines() if x.startswith("#"))
        # As the lines below: all but the first are indented.
        typer.echo("\n" + "\n  ".join(line.removeprefix("# ") for line in head))
        print_places(folder, category)


def _summary(run: Run) -> dict[str, Any]:
    from dfsc_tune.results.status import is_abandoned

    counts = run.trials["state"].value_counts().to_dict()
    return {
        "run": run.folder.name,
        "created": run.settings.created,
        "categories": run.settings.categories,
        "objective": run.objective,
        "trials": {str(state): int(count) for state, count in counts.items()},
        "abandoned": is_abandoned(run),
    }
