"""`dfsc-tune evaluate`: what a model, or anomaly maps of any origin, are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfsc_tune.cli.asked import data_folder
from dfsc_tune.cli.options import MODEL_HELP, DeviceOption, JsonOption, torch_device
from dfsc_tune.cli.printing import print_json, print_table, progress_bar, talk
from dfsc_tune.cli.streams import escaped
from dfsc_tune.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from dfsc_tune.evaluation.measure import Evaluation


def evaluate(
    model: Annotated[
        Path | None, typer.Argument(help=f"{MODEL_HELP} Either this or --maps.")
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option(
            help="Judge the maps of any program, FOLDER/CATEGORY/test/*/NNN.tiff, not a model."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Folder that holds the categories, or its address (s3://, gs://, az://); the "
            "model's own if left out, with --maps the built-in data."
        ),
    ] = None,
    category: Annotated[
        str | None, typer.Option(help="The category to judge on; the model's own if left out.")
    ] = None,
    include_selection: Annotated[
        bool,
        typer.Option(help="Also use images that the model was trained or chosen on (optimistic)."),
    ] = False,
    save_maps: Annotated[
        Path | None,
        typer.Option(help="Folder for TIFF maps, as MVTec LOCO's evaluation code reads them."),
    ] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Measure a model, or any program's anomaly maps, on a category's labelled test images."""
    console = talk()
    if maps is None and model is not None:
        found = _of_model(model, data, category, include_selection, save_maps, device, console)
    elif maps is not None and model is None:
        found = _of_maps(maps, data, category, include_selection, save_maps, console)
    else:
        raise UserError("give either a MODEL folder or --maps FOLDER to judge")
    if json:
        print_json(found)
    else:
        _print_evaluation(found)
        for note in found.notes:
            typer.echo(f"note: {escaped(note)}", err=True)
    if save_maps is not None:
        typer.echo(f"maps of all test images: {save_maps / found.category}", err=True)


def _of_model(
    model: Path,
    data: str | None,
    category: str | None,
    include_selection: bool,
    save_maps: Path | None,
    device: str,
    console: Console,
) -> Evaluation:
    from dfsc_tune.evaluation.evaluate import evaluate_model
    from dfsc_tune.models.detector import load_detector

    where = torch_device(device)
    detector = load_detector(model)
    name = category or detector.config.category
    folder = data_folder(data or detector.config.data, [name], console)
    with progress_bar("scoring", console) as update:
        return evaluate_model(
            detector,
            folder,
            name,
            include_selection=include_selection,
            save_maps=save_maps,
            device=where,
            update=_shower(update, "scoring"),
        )


def _of_maps(
    maps: Path,
    data: str | None,
    category: str | None,
    include_selection: bool,
    save_maps: Path | None,
    console: Console,
) -> Evaluation:
    from dfsc_tune.evaluation.evaluate import evaluate_maps

    if category is None:
        raise UserError("--maps needs --category: the category that the maps are of")
    if save_maps is not None:
        raise UserError("--save-maps needs a MODEL: with --maps, there are maps already")
    folder = data_folder(data, [category], console)
    with progress_bar("reading maps", console) as update:
        return evaluate_maps(
            maps,
            folder,
            category,
            include_selection=include_selection,
            update=_shower(update, "reading maps"),
        )


def _shower(update: Callable[..., None], text: str) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        update(done, total, text if done < total else "measuring")

    return show


def _print_evaluation(found: Evaluation) -> None:
    from dfsc_tune.evaluation.tables import metric_rows

    counts = ", ".join(f"{count} {kind}" for kind, count in found.num_images.items() if count)
    marked = " (OPTIMISTIC: the model was made with some of them)" if found.optimistic else ""
    typer.echo(f"{found.category}: {counts} images{marked}\n")
    print_table(metric_rows(found.aurocs, found.intervals, found.published, found.pixel))
    typer.echo("")
    print_table(list(_types(found)))
    typer.echo("\nin brackets: 95 % intervals")
    if found.published:
        typer.echo("published: in the paper, on all test images of MVTec LOCO AD")


def _types(found: Evaluation) -> Iterator[Sequence[str]]:
    """The rows of the table by defect type."""
    from dfsc_tune.evaluation.measure import AU_SPRO_LIMIT
    from dfsc_tune.evaluation.tables import with_interval

    yield "by defect type", "images", "image AUROC", f"AU-sPRO, FPR ≤ {AU_SPRO_LIMIT}"
    for one in found.defect_types:
        yield (
            f"  {one.kind}: {one.defect_type}",
            str(one.num_images),
            with_interval(one.auroc, one.auroc_interval),
            with_interval(one.au_spro, None),
        )
