"""`dfsc-tune plan`: what a search will cost, and afterwards how far that was off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dfsc_tune.cli.asked import asked_categories, asked_space, asked_trials_per_gpu, default_space
from dfsc_tune.cli.data_folder import check_builtin, data_folder
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
from dfsc_tune.cli.printing import print_json, talk
from dfsc_tune.errors import UserError

if TYPE_CHECKING:
    from dfsc_tune.cost.plan import Estimate, Plan, Price
    from dfsc_tune.cost.throughput import Throughput
    from dfsc_tune.data.records import Category, Kind
    from dfsc_tune.spaces.space import SearchSpace

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
    from dfsc_tune.cost.plan import estimate

    categories = asked_categories(category, data)
    sharing = asked_trials_per_gpu(trials_per_gpu, gpus_per_trial)
    wanted = asked_space(
        space or default_space(_gpus(gpus, benchmark), None, "auto", talk()),
        num_trials=trials,
        objective=objective,
        gpus_per_trial=gpus_per_trial,
    )
    planned, throughput = plan_and_throughput(
        wanted, categories, data, gpus, sharing, results, benchmark
    )
    found = estimate(planned, throughput, price)
    if json:
        print_json(asdict(found))
    else:
        print_estimate(found, planned)


def plan_and_throughput(
    space: SearchSpace,
    categories: list[str],
    data: str | None,
    gpus: int | None,
    trials_per_gpu: int | str | None,
    results: Path,
    benchmark: Path | None,
) -> tuple[Plan, Throughput]:
    """The plan of a search, and the throughput that its estimate goes by.

    Args:
        space: what is searched.
        categories: of it.
        data: what holds them, as the user gave it; None for the built-in data.
        gpus: to use; those of the record, or of this machine, if None.
        trials_per_gpu: how many share a GPU; `auto` as measured; None as the space says.
        results: the folder with the benchmarks' records.
        benchmark: a record; None for the newest that fits.
    """
    from dfsc_tune.cost.plan import Plan, best_at_once, choose_throughput

    share = space.resources.gpus_per_trial or 1.0
    num_scored = _num_scored(data, categories, space)
    planned = Plan(space, num_scored, _gpus(gpus, benchmark), share, num_cpus=1)
    throughput = choose_throughput(
        planned.model, planned.on_gpu, space.resources.cpus_per_trial, results, benchmark
    )
    if trials_per_gpu == "auto":
        share = 1 / best_at_once(throughput)
    elif trials_per_gpu is not None:
        share = 1 / int(trials_per_gpu)
    return replace(planned, gpus_per_trial=share, num_cpus=throughput.num_cpus), throughput


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
        print_json({"run": str(run.folder), "differences": rows, "estimate": asdict(expected)})
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
    """Where the numbers come from, and what they leave out."""
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


def _gpus(asked: int | None, benchmark: Path | None) -> int:
    """GPUs to plan for: those asked for, else of the record's machine, else of this."""
    if asked is not None:
        return asked
    if benchmark is not None:
        from dfsc_tune.cost.throughput import read_throughput

        return read_throughput(benchmark).num_gpus
    import torch

    return torch.cuda.device_count()


def _num_scored(data: str | None, categories: list[str], space: SearchSpace) -> dict[str, int]:
    """Images that each report of a category scores."""
    from dfsc_tune.data.layout import read_category
    from dfsc_tune.training.objectives import chosen_objective, objective_named

    if data is None:
        check_builtin(categories)
        read = [_builtin_category(name) for name in categories]
    else:
        folder = data_folder(data, categories, talk())
        read = [read_category(folder, name) for name in categories]
    budget, found = space.budget, {}
    for category in read:
        settings = chosen_objective(category, space.objective)
        objective = objective_named(settings.name)
        split = objective.split(category, settings)
        found[category.name] = objective.num_scored(
            len(category.validation),
            len(split.selection) + sum(split.anomalies.values()),
            budget.num_steps,
            budget.report_interval,
        )
    return found


def _builtin_category(name: str) -> Category:
    """A built-in category as it is when rendered: a plan needs its records, not its files."""
    from dfsc_tune.data.builtin import Counts
    from dfsc_tune.data.records import Category, ImageRecord

    counts = Counts()

    def records(split: str, kind: Kind, count: int) -> tuple[ImageRecord, ...]:
        names = [f"{split}/{kind}/{index:03d}.png" for index in range(count)]
        return tuple(ImageRecord(Path(name), name, kind, kind) for name in names)

    return Category(
        name=name,
        root=Path(name),
        layout="loco",
        train=records("train", "good", counts.train),
        validation=records("validation", "good", counts.validation),
        test=(
            *records("test", "good", counts.test_good),
            *records("test", "logical", counts.logical),
            *records("test", "structural", counts.structural),
        ),
    )


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
