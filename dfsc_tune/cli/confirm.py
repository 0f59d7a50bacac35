"""`dfsc-tune confirm`: whether a search's best settings hold with fresh seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfsc_tune.cli.asked import data_folder
from dfsc_tune.cli.options import (
    JsonOption,
    ResultsOption,
    RunArgument,
    SameAddressOption,
    SameDataOption,
    SameDeviceOption,
    SameGpusOption,
    SameTeachersOption,
    check_device,
    check_name,
)
from dfsc_tune.cli.printing import as_arguments, print_json, talk

if TYPE_CHECKING:
    pass


def confirm(
    run: RunArgument,
    top: Annotated[int, typer.Option(help="How many of the best settings.", min=1, max=1000)] = 3,
    seeds: Annotated[int, typer.Option(help="Fresh seeds of each setting.", min=2, max=1000)] = 3,
    name: Annotated[
        str | None, typer.Option(help="The new run's name; RUN-confirm.", callback=check_name)
    ] = None,
    data: SameDataOption = None,
    teacher: SameTeachersOption = None,
    results: ResultsOption = Path("results"),
    gpus: SameGpusOption = None,
    address: SameAddressOption = None,
    device: SameDeviceOption = None,
    json: JsonOption = False,
) -> None:
    """Retrain a search's best settings and the paper's with fresh seeds; say which to use.

    The same call goes on after an interruption.
    """
    from dfsc_tune.cli.runs import print_places, say_predict
    from dfsc_tune.data.sources import data_name
    from dfsc_tune.results import find_run, load

    console = talk()
    found_run = load(find_run(results, run))
    settings = found_run.settings
    asked_data = data_name(data)
    data_now = asked_data or settings.data
    folder = data_folder(data_now, settings.categories, console)
    from dfsc_tune.search.confirm import confirm as confirm_run
    from dfsc_tune.search.confirm import describe
    from dfsc_tune.search.resume import request_of
    from dfsc_tune.storage.object_store import is_remote

    name = name or f"{found_run.folder.name}-confirm"
    arguments = as_arguments(
        run, top=top, seeds=seeds, name=name, results=results, data=asked_data, teacher=teacher
    )
    request = replace(
        request_of(
            found_run.folder,
            folder,
            data_now,
            gpus=gpus,
            address=address,
            device=check_device(device) if device is not None else None,
        ),
        name=name,
        continued_by="confirm",
        continued_with=arguments,
    )
    if is_remote(run):
        # What was read is a passing copy, and no place for results.
        request = replace(request, results=results)
    found, interrupted_by = confirm_run(
        found_run, request, console, top=top, seeds=seeds, teachers=teacher or ()
    )
    if interrupted_by is not None:
        typer.echo("interrupted: the same command goes on", err=True)
        raise typer.Exit(128 + interrupted_by)
    if json:
        print_json(found)
        return
    for each in found:
        typer.echo(f"\n{each.category}: confirmed after run {found_run.folder.name}")
        for line in describe(each):
            typer.echo(f"  {line}")
        print_places(each.config.parents[1], each.category)
    if found:
        say_predict(found[0].config.parents[1], found[0].category)
