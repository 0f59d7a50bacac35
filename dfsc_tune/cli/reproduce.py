"""`dfsc-tune reproduce`: the paper's tables and figure made again, beside the paper's numbers."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfsc_tune.cli.asked import asked_categories, asked_trials_per_gpu, data_folder, space_name
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
    check_name,
)
from dfsc_tune.cli.plan import print_estimate
from dfsc_tune.cli.printing import as_arguments, print_json, print_table, progress_bar, talk
from dfsc_tune.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dfsc_tune.data.records import Category
    from dfsc_tune.reproduce.baselines import Baseline
    from dfsc_tune.reproduce.batches import Scale
    from dfsc_tune.reproduce.reproduction import Reproduction
    from dfsc_tune.reproduce.tables import PaperTable
    from dfsc_tune.search.request import TrialsPerGpu


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
    name: Annotated[
        str, typer.Option(help="The folder of all its runs and tables.", callback=check_name)
    ] = "paper",
    results: ResultsOption = Path("results"),
    address: AddressOption = None,
    device: DeviceOption = "auto",
    plan: Annotated[bool, typer.Option("--plan", help="Only say what it would take.")] = False,
    json: JsonOption = False,
) -> None:
    """Make a table or figure of the paper again; a second call goes on, or just shows it.

    Of --space, the fixed settings, the budget and the resources count: what varies is the table's.
    """
    from dfsc_tune.data.sources import data_name, list_data
    from dfsc_tune.reproduce.batches import Scale
    from dfsc_tune.reproduce.reproduction import reproduce as run
    from dfsc_tune.reproduce.tables import MOST_SEEDS, find_table
    from dfsc_tune.search.request import SearchRequest
    from dfsc_tune.spaces.space import load_space

    wanted = find_table(table)
    if seeds > MOST_SEEDS:
        raise UserError(f"--seeds is {MOST_SEEDS} at most")
    console = talk()
    where = check_device(device)
    sharing = asked_trials_per_gpu(trials_per_gpu, None)
    categories = asked_categories(category or [], data)
    found_space = load_space(space_name(space, gpus, address, where, console))
    scale = Scale(
        found_space, seeds, teacher, os.path.realpath(photographs) if photographs else None
    )
    if plan:
        read = list_data(data, categories, partial(progress_bar, console=console))
        _print_plan(wanted, scale, read, gpus, sharing, results, json)
        return
    found_baselines = _baselines(wanted, baselines, backbone)
    request = SearchRequest(
        categories=tuple(categories),
        data=data_folder(data, categories, console),
        data_name=data_name(data),
        space=found_space,
        results=results,
        name=name,
        gpus=gpus,
        trials_per_gpu=sharing,
        address=address,
        device=where,
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
    found = run(wanted, request, scale, console, baselines=found_baselines)
    if found.interrupted_by:
        typer.echo("interrupted: the same command goes on", err=True)
        raise typer.Exit(128 + found.interrupted_by)
    _print_reproduction(found, json)


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


def _print_reproduction(found: Reproduction, json: bool) -> None:
    from dfsc_tune.reproduce.page import write_page

    page = write_page(found)
    if json:
        print_json(
            {
                "exhibit": found.table.name,
                "cells": found.cells,
                "notes": found.notes,
            }
        )
    else:
        _print_tables(found)
    typer.echo(f"table: {found.folder / found.table.name}.parquet\npage:  {page}", err=True)


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
    table: PaperTable,
    scale: Scale,
    categories: Sequence[Category],
    gpus: int | None,
    trials_per_gpu: TrialsPerGpu,
    results: Path,
    json: bool,
) -> None:
    """Estimates each of a table's searches, as if nothing were trained yet."""
    from dfsc_tune.cost.plan import estimate, gpus_of, plan_search
    from dfsc_tune.reproduce.batches import batch_space

    num_gpus = gpus_of(None) if gpus is None else gpus
    estimates = {}
    for batch in table.batches:
        space = batch_space(batch, [x.name for x in categories], scale)
        planned, throughput = plan_search(space, categories, num_gpus, trials_per_gpu, results)
        estimates[batch.name] = estimate(planned, throughput)
        if not json:
            typer.echo(f"batch {batch.name}")
            print_estimate(estimates[batch.name], planned)
            typer.echo("")
    if json:
        print_json(estimates)
        return
    hours = sum(found.wall_hours for found in estimates.values())
    trials = sum(sum(found.num_trials.values()) for found in estimates.values())
    typer.echo(f"{table.title}: {trials} trainings, about {hours:.3g} hours in all")
