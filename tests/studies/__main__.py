"""`python -m tests.studies`: measures how well the tool searches and how well proxies choose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfsc_tune.cli.asked import data_folder
from dfsc_tune.cli.group import make_app
from dfsc_tune.cli.options import DataOption, JsonOption, ResultsOption
from dfsc_tune.cli.printing import print_json, progress_bar, talk
from dfsc_tune.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

app = make_app("Measure the tool itself.")


@app.command()
def search(
    run: Annotated[str, typer.Argument(help="A run recorded with --space record.")],
    results: ResultsOption = Path("results"),
    strategy: Annotated[
        list[str] | None, typer.Option(help="What to compare with ours; may be repeated.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Searches of each strategy.", min=2)] = 50,
    workers: Annotated[int, typer.Option(help="Trials at a time.", min=1)] = 4,
    output: Annotated[
        Path | None, typer.Option(help="A Parquet file for every search's regrets.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compare ways to search on a blackbox made of a run's learning curves."""
    import pandas as pd

    from dfsc_tune.results import find_run, load
    from dfsc_tune.storage.atomic import atomic_path, check_writable
    from tests.studies.blackbox import Blackbox, held_out_errors, recorded_curves
    from tests.studies.side_by_side import DEFAULT, OURS, STRATEGIES, regrets, summary

    names = [OURS, *(x for x in strategy or DEFAULT if x != OURS)]
    if unknown := [name for name in names if name not in STRATEGIES]:
        raise UserError(f"no strategy '{unknown[0]}'; choose from {', '.join(STRATEGIES)}")
    recorded = load(find_run(results, run))
    if output is not None:
        # Before minutes of searching, and not only after them.
        check_writable(output.parent)
    console = talk()
    tables, errors = [], []
    for category in recorded.settings.categories:
        curves = recorded_curves(recorded, category)
        errors.append(held_out_errors(curves).assign(category=category))
        blackbox = Blackbox(curves)
        with progress_bar(f"searching {category}", console) as update:
            for done, name in enumerate(names):
                update(done, len(names), f"searching {category}: {name}")
                table = regrets(blackbox, name, range(seeds), workers)
                tables.append(table.assign(category=category))
    everything = pd.concat(tables)
    if output is not None:
        with atomic_path(output) as temporary:
            everything.to_parquet(temporary, index=False)
    held_out, found = pd.concat(errors), summary(everything)
    if json:
        print_json({"held_out": held_out.to_dict("records"), "regrets": found.to_dict("records")})
    else:
        _print(held_out, found, seeds)


def _print(held_out: pd.DataFrame, found: pd.DataFrame, seeds: int) -> None:
    for category, rows in found.groupby("category", sort=False):
        typer.echo(f"\n{category}: root mean squared errors of held-out trials, full budget")
        for row in held_out[held_out["category"] == category].to_dict("records"):
            typer.echo(f"  {row['rmse']:.4f}  {row['prediction']}")
        budgets = list(dict.fromkeys(rows["trainings"]))
        typer.echo(f"  mean regret (95% interval) in 1/1000 AUROC of {seeds} searches each, after")
        typer.echo(f"  {'':<26}" + "".join(f"{f'{budget} trainings':>18}" for budget in budgets))
        for strategy, cells in rows.groupby("strategy", sort=False):
            shown = (_cell(x["regret"], x["low"], x["high"]) for x in cells.to_dict("records"))
            typer.echo(f"  {strategy:<26}" + "".join(f"{cell:>18}" for cell in shown))


def _cell(mean: float, low: float, high: float) -> str:
    return f"{1000 * mean:.1f} ({1000 * low:.1f}–{1000 * high:.1f})"


@app.command()
def proxy(
    table: Annotated[Path, typer.Argument(help="The Parquet file of the trainings; may exist.")],
    category: Annotated[
        list[str] | None, typer.Option(help="To train on; may be repeated; none: only look.")
    ] = None,
    data: DataOption = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each setting.", min=2)] = 3,
    num_steps: Annotated[int, typer.Option(help="Steps of each training.", min=1)] = 750,
    json: JsonOption = False,
) -> None:
    """Measure how well synthetic anomalies choose settings, where labels tell the truth."""
    from tests.studies.proxies import agreement, picks, read_record, record

    console = talk()
    if category:
        folder = data_folder(data, category, console)
        with progress_bar("training", console) as update:
            record(folder, category, range(seeds), table, update, num_steps)
    if not table.is_file():
        raise UserError(f"there is no table {table}; name what to train on with --category")
    found = read_record(table)
    ranks, chosen = agreement(found), picks(found)
    if json:
        print_json({"agreement": ranks.to_dict("records"), "picks": chosen.to_dict("records")})
        return
    means = ranks[ranks["truth"] == "mean"].pivot(
        index="proxy", columns="category", values="spearman"
    )
    typer.echo("Spearman's rank correlation of each proxy with the true mean AUROC\n")
    typer.echo(means.to_string(float_format="{:+.2f}".format, na_rep="–"))
    typer.echo("\ntrue mean AUROC of what is chosen, on trainings of other seeds\n")
    typer.echo(chosen.to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    app()
