"""`dfsc-tune plan`: what a search will cost, and afterwards how far that was off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dfsc_tune.cli.asked import asked_categories, asked_space, asked_trials_per_gpu, space_name
from dfsc_tune.cli.options import (
    CategoriesOption,
    DataOption,
    GpusOption,
    GpusPerTrialOption,
    JsonOption,
    ObjectiveOption,
    ResultsOption,
    SpaceOption,
    TrialsOption,
    TrialsPerGpuOption,
)
from dfsc_tune.cli.printing import print_json, progress_bar, talk
from dfsc_tune.errors import UserError

if TYPE_CHECKING:
    from dfsc_tune.cost.plan import Estimate, Plan, Price

# More categories than built in would fill the screen.
_MOST_NAMED = 5


def plan(
    run: Annotated[
        str | None, typer.Argument(help="A finished run, to see how far its plan was off.")
    ] = None,
    category: CategoriesOption = None,
    data: DataOption = None,
    space: SpaceOption = None,
    gpus: GpusOption = None,
    gpus_per_trial: GpusPerTrialOption = None,
    trials_per_gpu: TrialsPerGpuOption = None,
    trials: TrialsOption = None,
    objective: ObjectiveOption = None,
    benchmark: Annotated[
        Path | None,
        typer.Option(help="A record of `dfsc-tune bench`; the newest that fits if left out."),
    ] = None,
    price_per_gpu_hour: Annotated[float | None, typer.Option(min=0.0)] = None,
    price_per_instance_hour: Annotated[float | None, typer.Option(min=0.0)] = None,
    gpus_per_instance: Annotated[
        int | None, typer.Option(help="Of the instance that is paid.", min=1)
    ] = None,
    results: ResultsOption = Path("results"),
    json: JsonOption = False,
) -> None:
    """Say what a search will take: trials, steps, hours and money; or how far that was off."""
    price = _price(price_per_gpu_hour, price_per_instance_hour, gpus_per_instance)
    if run is not None:
        asked = (category, data, space, gpus_per_trial, trials_per_gpu, trials, objective)
        if any(option is not None for option in asked):
            raise UserError("give a run, whose settings are known, or what to search; not both")
        _print_run(run, results, gpus, benchmark, price, json)
        return
    if not category:
        raise UserError("give --category to plan a search, or a run to see how it went")
    from dfsc_tune.cost.plan import estimate, gpus_of, plan_search
    from dfsc_tune.data.sources import list_data

    console = talk()
    categories = asked_categories(category, data)
    sharing = asked_trials_per_gpu(trials_per_gpu, gpus_per_trial)
    num_gpus = gpus_of(benchmark) if gpus is None else gpus
    wanted = asked_space(
        space_name(space, num_gpus, None, "auto", console),
        num_trials=trials,
        objective=objective,
        gpus_per_trial=gpus_per_trial,
    )
    read = list_data(data, categories, partial(progress_bar, console=console))
    planned, throughput = plan_search(wanted, read, num_gpus, sharing, results, benchmark)
    found = estimate(planned, throughput, price)
    if json:
        print_json(found)
    else:
        print_estimate(found, planned)


def _print_run(
    name: str,
    results: Path,
    gpus: int | None,
    benchmark: Path | None,
    price: Price | None,
    json: bool,
) -> None:
    from dfsc_tune.cost.hindsight import differences, plan_of_run
    from dfsc_tune.cost.plan import choose_throughput, estimate
    from dfsc_tune.results import find_run, load

    run = load(find_run(results, name))
    planned = plan_of_run(run, gpus)
    cpus_per_trial = planned.space.resources.cpus_per_trial
    throughput = choose_throughput(
        planned.model, planned.on_gpu, cpus_per_trial, results, benchmark
    )
    expected = estimate(planned, throughput, price)
    found = differences(expected, run)
    if json:
        rows: list[dict[str, Any]] = [{**asdict(row), "off": row.off} for row in found]
        print_json({"run": str(run.folder), "differences": rows, "estimate": expected})
        return
    typer.echo(f"{run.folder}: what was expected, what it took, how far off")
    for row in found:
        estimated, actual = _number(row.estimated), _number(row.actual)
        typer.echo(f"  {row.quantity:<35}{estimated:<14}{actual:<14}{row.off:+.0%}")
    num_trials = sum(expected.num_trials.values())
    if found[0].actual < num_trials:
        typer.echo(
            f"only {found[0].actual:.0f} of its {num_trials} trials have ended, so it is "
            "compared with more than it did"
        )
    if any("wall time" in row.quantity for row in found):
        typer.echo(
            "wall time: from each session's start to its last suggestion or report, by the ledger"
        )
    _print_basis(expected)


def print_estimate(found: Estimate, planned: Plan) -> None:
    """Prints an estimate, and what it rests on."""
    trials = _trials(found.num_trials)
    count, kind = (planned.gpus, "GPU") if planned.on_gpu else (planned.num_cpus, "CPU core")
    where = f"{count} {kind}{'s' if count != 1 else ''}"
    device_hours = _range(found.device_hours, found.factor)
    reports = sorted({_number(x) for x in found.seconds_per_report.values()})
    lines = {
        "trials": f"{sum(found.num_trials.values())} ({trials})",
        "at once": f"{found.at_once} on {where}, {found.at_once_a_device} a device",
        "steps": f"{_number(found.steps)}; {found.most_steps:,} if none were stopped early",
        "a step": f"{1e3 * found.seconds_per_step:.4g} ms; a report {', '.join(reports)} s",
        f"{found.device}-hours": f"{device_hours} until the last trial ends; "
        f"{_number(found.used_device_hours)} in use",
        "wall time": f"{_range(found.wall_hours, found.factor)} hours"
        if found.wall_hours >= 1
        else f"{_range(60 * found.wall_hours, found.factor)} minutes",
    }
    if found.cost is not None:
        cost = _range(found.cost, found.factor)
        lines["cost"] = f"{cost} in the price's currency, for the wall time"
    for name, text in lines.items():
        typer.echo(f"{name:<16}{text}")
    _print_basis(found)


def _print_basis(found: Estimate) -> None:
    """Prints the sources of the numbers, and what they leave out."""
    throughput = found.throughput
    of = f"{throughput.device}, PDN {throughput.network} at {throughput.image_size} pixels"
    measured = f", measured {throughput.created}" if throughput.created else ""
    typer.echo(f"throughput: {throughput.source}: {of}{measured}")
    typer.echo(
        "steps: the mean of simulated searches; one search may take a quarter more or fewer, and a "
        "sampler that learns takes more"
    )
    typer.echo("left out: reading the data, starting Ray, checkpoints, scoring the best models")
    for note in found.notes:
        typer.echo(f"note: {note}")


def _price(
    per_gpu: float | None, per_instance: float | None, gpus_per_instance: int | None
) -> Price | None:
    from dfsc_tune.cost.plan import Price

    if per_gpu is not None and per_instance is not None:
        raise UserError("give --price-per-gpu-hour or --price-per-instance-hour, not both")
    if per_gpu is not None:
        return Price(per_gpu)
    if gpus_per_instance is not None and per_instance is None:
        raise UserError("--gpus-per-instance needs --price-per-instance-hour")
    return Price(per_instance, gpus_per_instance or 1) if per_instance is not None else None


def _trials(of_category: Mapping[str, int]) -> str:
    counts = set(of_category.values())
    if len(of_category) > _MOST_NAMED and len(counts) == 1:
        return f"{counts.pop()} of each of {len(of_category)} categories"
    return ", ".join(f"{count} {name}" for name, count in of_category.items())


def _range(value: float, factor: float) -> str:
    """A value, and between what it lies where it is known to a factor only."""
    low, high = _number(value / factor), _number(value * factor)
    return _number(value) if factor == 1 else f"{_number(value)} ({low} to {high})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
