"""`dfsc-tune reproduce`: the paper's tables and figure made again, beside the paper's numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfsc_tune.cli.asked import asked_categories, asked_trials_per_gpu, default_space
from dfsc_tune.cli.data_folder import data_folder, data_name
from dfsc_tune.cli.options import (
    AddressOption,
    DataOption,
    DeviceOption,
    GpusOption,
    JsonOption,
    ResultsOption,
    SpaceOption,
    TeacherOption,
    TrialsPerGpuOption,
    check_device,
)
from dfsc_tune.cli.plan import plan_and_throughput, print_estimate
from dfsc_tune.cli.printing import as_arguments, print_json, print_table, talk
from dfsc_tune.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dfsc_tune.reproduce.baselines import Baseline
    from dfsc_tune.reproduce.batches import Scale
    from dfsc_tune.reproduce.reproduction import Reproduction
    from dfsc_tune.reproduce.tables import PaperTable
    from dfsc_tune.search.request import SearchRequest


def reproduce(
    table: Annotated[str, typer.Argument(help="table1, table2, table3, table4 or figure4.")],
    data: DataOption = None,
    category: Annotated[
        list[str] | None, typer.Option(help="A category; may be repeated; all if left out.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each cell, 10 at most.", min=1)] = 1,
    space: SpaceOption = None,
    teacher: TeacherOption = None,
    photographs: Annotated[
        Path | None, typer.Option(help="A folder for EfficientAD's penalty (there: ImageNet).")
    ] = None,
    gpus: GpusOption = None,
    trials_per_gpu: TrialsPerGpuOption = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Train anomalib's PatchCore and STFPM too.")
    ] = False,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Of --baselines: efficientnet-lite0, which needs no download. If left out: "
            "anomalib's own."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="The folder of all its runs and tables.")] = "paper",
    results: ResultsOption = Path("results"),
    address: AddressOption = None,
    device: DeviceOption = "auto",
    plan: Annotated[bool, typer.Option("--plan", help="Only say what it would take.")] = False,
    json: JsonOption = False,
) -> None:
    """Make a table or figure of the paper again; a second call goes on, or just shows it.

    Of --space, the fixed settings, the budget and the resources count: what varies is the table's.
    """
    from dfsc_tune.reproduce.batches import Scale
    from dfsc_tune.reproduce.tables import MOST_SEEDS, find_table
    from dfsc_tune.search.request import SearchRequest
    from dfsc_tune.spaces.space import load_space

    wanted = find_table(table)
    if seeds > MOST_SEEDS:
        raise UserError(f"--seeds is {MOST_SEEDS} at most")
    console = talk()
    categories = asked_categories(category or [], data)
    found_space = load_space(space or default_space(gpus, address, device, console))
    scale = Scale(
        found_space, seeds, teacher, os.path.realpath(photographs) if photographs else None
    )
    request = SearchRequest(
        categories=tuple(categories),
        data=Path(),
        data_name=data_name(data),
        space=found_space,
        results=results,
        name=name,
        gpus=gpus,
        trials_per_gpu=asked_trials_per_gpu(trials_per_gpu, None),
        address=address,
        device=check_device(device),
        continued_by="reproduce",
        continued_with=as_arguments(
            table,
            data=data_name(data),
            category=category,
            seeds=seeds,
            space=space,
            teacher=teacher,
            photographs=scale.photographs,
            gpus=gpus,
            trials_per_gpu=trials_per_gpu,
            baselines=baselines,
            backbone=backbone,
            name=name,
            results=results,
            address=address,
            device=device,
        ),
    )
    if plan:
        _print_plan(wanted, request, scale, data, json)
        return
    _run(wanted, request, scale, data, _baselines(wanted, baselines, backbone), json)


def _baselines(table: PaperTable, wanted: bool, backbone: str | None) -> Sequence[Baseline]:
    """anomalib's methods, as far as asked for."""
    from dfsc_tune.reproduce.baselines import find_baselines

    if not wanted:
        if backbone is not None:
            raise UserError("--backbone is that of the baselines: add --baselines")
        return ()
    if not table.compares_methods:
        raise UserError("--baselines belongs to table1 and table2, which compare methods")
    return find_baselines(backbone)


def _run(
    table: PaperTable,
    request: SearchRequest,
    scale: Scale,
    data: str | None,
    baselines: Sequence[Baseline],
    json: bool,
) -> None:
    from dataclasses import asdict, replace

    from dfsc_tune.reproduce.page import write_page
    from dfsc_tune.reproduce.reproduction import reproduce as run

    console = talk()
    folder = data_folder(data, list(request.categories), console)
    found = run(table, replace(request, data=folder), scale, console, baselines=baselines)
    if found.interrupted_by:
        typer.echo("interrupted: the same command goes on", err=True)
        raise typer.Exit(128 + found.interrupted_by)
    page = write_page(found)
    if json:
        print_json(
            {
                "exhibit": table.name,
                "cells": [asdict(cell) for cell in found.cells],
                "notes": found.notes,
            }
        )
    else:
        _print_tables(found)
    typer.echo(f"table: {found.folder / table.name}.parquet\npage:  {page}", err=True)


def _print_tables(found: Reproduction) -> None:
    from dfsc_tune.reproduce.page import LEGEND, shown_tables

    typer.echo(found.table.title)
    for section in shown_tables(found.cells):
        typer.echo(f"\n{section.title}")
        if section.table:
            print_table([section.table.columns, *section.table.rows])
    typer.echo(f"\n{LEGEND}")
    for note in found.notes:
        typer.echo(f"note: {note}")


def _print_plan(
    table: PaperTable, request: SearchRequest, scale: Scale, data: str | None, json: bool
) -> None:
    """What each of a table's searches would take if nothing of it were there."""
    from dataclasses import asdict

    from dfsc_tune.cost.plan import estimate
    from dfsc_tune.reproduce.reproduction import requests

    estimates = {}
    for batch, of_batch in requests(table, request, scale):
        planned, throughput = plan_and_throughput(
            of_batch.space,
            list(request.categories),
            data,
            request.gpus,
            request.trials_per_gpu,
            request.results,
            None,
        )
        estimates[batch.name] = estimate(planned, throughput)
        if not json:
            typer.echo(f"batch {batch.name}")
            print_estimate(estimates[batch.name], planned)
            typer.echo("")
    if json:
        print_json({name: asdict(found) for name, found in estimates.items()})
        return
    hours = sum(found.wall_hours for found in estimates.values())
    trials = sum(sum(found.num_trials.values()) for found in estimates.values())
    typer.echo(f"{table.title}: {trials} trainings, about {hours:.3g} hours in all")
