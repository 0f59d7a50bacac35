"""`dfsc-tune report` and `compare`: runs as pages to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfsc_tune.cli.asked import data_folder
from dfsc_tune.cli.options import (
    JsonOption,
    ResultsOption,
    RunArgument,
    SameDataOption,
    check_output,
)
from dfsc_tune.cli.printing import print_json, print_table, talk
from dfsc_tune.cli.streams import escaped
from dfsc_tune.errors import UserError


def report(
    run: RunArgument,
    results: ResultsOption = Path("results"),
    output: Annotated[
        Path | None, typer.Option(help="The HTML file; RUN/report.html if left out.")
    ] = None,
    data: SameDataOption = None,
    pictures: Annotated[
        bool, typer.Option(help="Embed the worst misses and false alarms as pictures.")
    ] = True,
    pixel: Annotated[
        bool, typer.Option("--pixel", help="Measure pixel metrics too (minutes on large images).")
    ] = False,
) -> None:
    """Write a run as one HTML page that needs no network."""
    from dfsc_tune.pages.page import PAGE, write_page
    from dfsc_tune.results import find_run, load

    check_output(output, "--output")
    console = talk()
    loaded = load(find_run(results, run))
    target = output or loaded.folder / PAGE
    folder = None
    if pictures or pixel:
        given = data or loaded.settings.data
        folder = data_folder(given, loaded.settings.categories, console)
    with console.status("drawing the page …"):
        write_page(loaded, folder, target, pictures=pictures, pixel=pixel)
    typer.echo(f"wrote {target}")


def compare(
    runs: Annotated[list[str], typer.Argument(help="Names or folders of at least two runs.")],
    results: ResultsOption = Path("results"),
    html: Annotated[Path | None, typer.Option(help="Also write a page with figures.")] = None,
    json: JsonOption = False,
) -> None:
    """Set runs side by side, category by category; each is compared with the first."""
    from dfsc_tune.pages.comparison import compare_runs, comparison_table
    from dfsc_tune.pages.page import write_comparison
    from dfsc_tune.results import find_run, load

    check_output(html, "--html")
    loaded = []
    for run in runs:
        try:
            loaded.append(load(find_run(results, run)))
        except UserError as error:
            # One damaged run must not hide the others.
            if len(runs) < 3:
                raise
            typer.echo(f"warning: left out: {escaped(str(error))}", err=True)
    comparisons = compare_runs(loaded)
    if html is not None:
        write_comparison(comparisons, loaded, html)
    if json:
        print_json(comparisons)
    else:
        for comparison in comparisons:
            typer.echo(f"\n{comparison.category}")
            table = comparison_table(comparison)
            print_table([table.columns, *table.rows])
        typer.echo("\nimage AUROC on the report part, in brackets: 95 % intervals")
    for comparison in comparisons:
        for note in comparison.notes:
            typer.echo(f"note: {comparison.category}: {escaped(note)}", err=True)
    if html is not None:
        typer.echo(f"wrote {html}", err=True)
