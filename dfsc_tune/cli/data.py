"""`dfsc-tune data`: renders the built-in data set, brings a public one, checks a folder."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfsc_tune.cli.asked import data_folder
from dfsc_tune.cli.group import make_app
from dfsc_tune.cli.options import DataOption, JsonOption, SeedOption
from dfsc_tune.cli.printing import print_json, progress_bar, say_next, talk
from dfsc_tune.cli.streams import escaped
from dfsc_tune.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dfsc_tune.data.check import CategoryCheck
    from dfsc_tune.data.datasets import PublicDataset

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}

app = make_app("Makes the built-in data, brings MVTec LOCO AD and checks folders of images.")


@app.command()
def make(
    folder: Annotated[Path, typer.Argument(help="Where to put the categories.")],
    category: Annotated[
        list[str] | None, typer.Option(help="A category to make; may be repeated; all if left out.")
    ] = None,
    height: Annotated[int, typer.Option(help="Image height in pixels.")] = 256,
    train: Annotated[int, typer.Option(help="Good training images of each category.")] = 100,
    validation: Annotated[int, typer.Option(help="Good validation images.")] = 30,
    test_good: Annotated[int, typer.Option(help="Good test images.")] = 60,
    logical: Annotated[int, typer.Option(help="Test images with a logical defect.")] = 60,
    structural: Annotated[int, typer.Option(help="Test images with a structural defect.")] = 60,
    seed: SeedOption = 0,
    workers: Annotated[int | None, typer.Option(help="Processes; one a CPU if left out.")] = None,
) -> None:
    """Render the built-in data set: five categories in MVTec LOCO's layout, from a seed."""
    from dfsc_tune.data.builtin import CATEGORIES, Counts, make_dataset

    counts = Counts(train, validation, test_good, logical, structural)
    with progress_bar("rendering", talk()) as progress:
        make_dataset(
            folder, category or CATEGORIES, counts, height, seed, workers, progress=progress
        )
    typer.echo(f"made {', '.join(category or CATEGORIES)} in {folder}")
    say_next("data", "check", folder)


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="The folder that holds the categories.")],
    json: JsonOption = False,
) -> None:
    """Say what was found per category, what must be mended, and how it can be searched.

    Status 1 if anything must be mended, or if a search without --objective would be refused.
    """
    from dfsc_tune.config import ObjectiveConfig
    from dfsc_tune.data.check import check_data
    from dfsc_tune.data.layout import read_category
    from dfsc_tune.training.objectives import chosen_objective, refusals

    checks = check_data(folder)
    # Where something must be mended, any search is refused.
    sound = {x.name: read_category(folder, x.name) for x in checks if not x.problems}
    refused = {name: refusals(category) for name, category in sound.items()}
    if json:
        print_json([{**asdict(x), "refused_objectives": refused.get(x.name)} for x in checks])
    else:
        for found in checks:
            _print_check(found)
            if found.name in refused:
                chosen = chosen_objective(sound[found.name], ObjectiveConfig()).name
                _print_objectives(refused[found.name], chosen)
    if len(refused) < len(checks) or any("auto" in reasons for reasons in refused.values()):
        raise typer.Exit(1)
    if not json:
        say_next("search", "--data", folder, f"--category={checks[0].name}")


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="mvtec-loco.")],
    folder: Annotated[
        Path | None, typer.Argument(help="Where to put the categories; ./NAME if left out.")
    ] = None,
    archive: Annotated[
        Path | None, typer.Option(help="The archive, if you have downloaded it by hand.")
    ] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="You accept the licence that is shown.")
    ] = False,
) -> None:
    """Bring a public data set, from where it broke off; status 1 if it is not as published."""
    from dfsc_tune.data.datasets import check_dataset, fetch_dataset, find_dataset

    dataset = find_dataset(name)
    target = folder or Path(name)
    _show_licence(dataset, accept_licence)
    with progress_bar(f"bringing {dataset.title} (bytes)", talk()) as progress:
        fetch_dataset(dataset, target, progress, archive=archive)
    checks, differences = check_dataset(dataset, target)
    for found in checks:
        _print_check(found)
    for sentence in differences:
        typer.echo(f"PROBLEM: {escaped(sentence)}")
    if differences or any(found.problems for found in checks):
        raise typer.Exit(1)
    say_next("search", "--data", target, f"--category={checks[0].name}")


def _show_licence(dataset: PublicDataset, accepted: bool) -> None:
    """Shows a data set's licence, and goes on only if its user accepts it."""
    typer.echo(
        f"{dataset.title} ({dataset.page}) is under {dataset.licence} ({dataset.licence_url}): "
        f"{dataset.terms}.",
        err=True,
    )
    if accepted:
        return
    if not sys.stdin.isatty():
        raise UserError("the licence must be accepted first: give --accept-licence")
    if not typer.confirm("Do you accept it?", err=True):
        raise UserError("nothing was downloaded, for the licence was not accepted")


def _print_check(found: CategoryCheck) -> None:
    typer.echo(f"{found.name} ({found.layout or 'unknown'} layout)")
    for count in found.counts:
        label = (
            count.kind
            if count.defect_type in (count.kind, "good")
            else f"{count.kind}: {count.defect_type}"
        )
        typer.echo(f"  {count.split:<10} {label:<40} {count.images:>5}")
    sizes = ", ".join(f"{x.width}×{x.height} ({x.images})" for x in found.sizes[:5])
    more = f" and {len(found.sizes) - 5} more" if len(found.sizes) > 5 else ""
    typer.echo(f"  sizes (width×height): {sizes or 'none'}{more}")
    for label, sentences in (("PROBLEM", found.problems), ("note", found.notes)):
        for sentence in sentences:
            typer.echo(f"  {escaped(label)}: {escaped(sentence)}")


def _print_objectives(refused: Mapping[str, str], chosen: str) -> None:
    """By which objectives a category can be searched, and why not by the others.

    Args:
        refused: those that cannot be, with the reasons.
        chosen: the one that a search takes unless told otherwise.
    """
    from dfsc_tune.training.objectives import OBJECTIVES

    allowed = [x for x in OBJECTIVES if x not in refused]
    told = [f"{x} (if left out)" if x == chosen else x for x in allowed]
    if allowed:
        typer.echo(f"  can be searched with --objective {', '.join(told)}")
    problem = refused.get("auto")
    for name, why in refused.items():
        if why != problem:
            typer.echo(f"  not with --objective {name}: {escaped(why)}")
    if problem is not None:
        typer.echo(f"  PROBLEM: a search without --objective is refused: {escaped(problem)}")


@app.command()
def synthesize(
    category: Annotated[str, typer.Option(help="Whose good images to change.")],
    show: Annotated[Path, typer.Option(help="The picture to write, such as sheet.png.")],
    data: DataOption = None,
    image_size: Annotated[int, typer.Option(help="As the networks see the images.")] = 256,
    recipe: Annotated[
        list[str] | None, typer.Option(help="What to make; repeat it. Else what counts by default.")
    ] = None,
    per_kind: Annotated[
        int | None, typer.Option(help="Anomalies of each kind; else as in a search.", min=1)
    ] = None,
    seed: SeedOption = 0,
) -> None:
    """Show the synthetic anomalies that a search without labels is judged by."""
    from collections import Counter

    from dfsc_tune.config import ModelConfig, ObjectiveConfig
    from dfsc_tune.data.images import decode_images
    from dfsc_tune.data.layout import read_category
    from dfsc_tune.settings import validate
    from dfsc_tune.storage.atomic import atomic_path
    from dfsc_tune.synthetic.anomalies import RECIPES
    from dfsc_tune.synthetic.sheet import contact_sheet
    from dfsc_tune.training.anomalies import anomalies_of
    from dfsc_tune.training.objectives.synthetic import Synthetic

    if show.suffix.lower() not in _FORMATS:
        raise UserError(f"--show writes a picture: name it .png or .jpg, not '{show.name}'")
    for name in recipe or ():
        if name not in RECIPES:
            raise UserError(f"no recipe '{name}'; choose from {', '.join(RECIPES)}")
    model = validate(ModelConfig, {"image_size": image_size}, source="command line")
    asked = {"recipes": recipe or None, "per_kind": per_kind, "split_seed": seed}
    given = {name: value for name, value in asked.items() if value is not None}
    objective = validate(ObjectiveConfig, {"name": Synthetic.name, **given}, source="command line")
    console = talk()
    read = read_category(data_folder(data, [category], console), category)
    counts = Synthetic().split(read, objective).anomalies
    with console.status("making anomalies …"):
        good = decode_images(read.validation, model.image_size).pixels
        anomalies = anomalies_of(read, good, counts, objective)
    with atomic_path(show) as temporary:
        contact_sheet(good, anomalies).save(temporary, format=_FORMATS[show.suffix.lower()])
    made = Counter(anomaly.recipe for anomaly in anomalies)
    for name in objective.recipes:
        typer.echo(f"{RECIPES[name][0]:<10} {name:<14} {made[name]:>4}")
    typer.echo(f"made of {len(good)} good images; see {show}", err=True)
