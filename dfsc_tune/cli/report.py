"""`dfsc-tune report`: a run as one page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfsc_tune.cli.shared import DataOption, ResultsOption, data_folder, talk


def report(
    run: Annotated[str, typer.Argument(help="A run's name or folder.")],
    results: ResultsOption = Path("results"),
    output: Annotated[
        Path | None, typer.Option(help="The HTML file; RUN/report.html if left out.")
    ] = None,
    data: DataOption = None,
    pictures: Annotated[
        bool, typer.Option(help="Embed the worst misses and false alarms as pictures.")
    ] = True,
    pixel: Annotated[
        bool, typer.Option("--pixel", help="Measure pixel metrics too (minutes on large images).")
    ] = False,
) -> None:
    """Write a run as one HTML page that needs no network."""
    from dfsc_tune.report import PAGE, write_report
    from dfsc_tune.results import find_run, load

    console = talk()
    loaded = load(find_run(results, run))
    target = output or loaded.folder / PAGE
    folder = None
    if pictures or pixel:
        named = loaded.settings["data"]
        given = data or (Path(named) if named else None)
        folder = data_folder(given, loaded.settings["categories"], console)
    with console.status("drawing the page …"):
        write_report(loaded, folder, target, pixel=pixel)
    typer.echo(f"wrote {target}")
