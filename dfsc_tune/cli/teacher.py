"""`dfsc-tune teacher`: lists, shows, fetches, registers and distils teachers."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dfsc_tune.cli.group import make_app
from dfsc_tune.cli.options import (
    DeviceOption,
    JsonOption,
    SeedOption,
    ThreadsOption,
    check_output,
    numbers,
    torch_device,
)
from dfsc_tune.cli.printing import print_json, progress_bar, say_next, talk
from dfsc_tune.cli.streams import escaped
from dfsc_tune.errors import UserError

if TYPE_CHECKING:
    from dfsc_tune.models.teacher_files import TeacherCard

app = make_app("Lists, fetches and makes teachers, the frozen networks that students learn from.")


@app.command("list")
def list_teachers(json: JsonOption = False) -> None:
    """List the teachers that model.teacher can name, and those that can be fetched."""
    from dfsc_tune.models.state_dicts import network_of
    from dfsc_tune.models.teacher_files import RANDOM, known_teachers, read_card
    from dfsc_tune.teachers.fetch import PUBLIC_TEACHERS

    rows: list[dict[str, Any]] = []
    for name, path in known_teachers().items():
        try:
            card = read_card(path)
            network = card.network if card else network_of(path)
        except UserError as error:
            # One damaged teacher must not hide the others.
            typer.echo(f"warning: {escaped(str(error))}", err=True)
            continue
        origin = card.origin if card else str(path)
        rows.append({"name": name, "network": network, "there": True, "origin": origin})
    known = {row["name"] for row in rows}
    for name, public in PUBLIC_TEACHERS.items():
        if name not in known:
            row = {"name": name, "network": public.network, "there": False}
            rows.append({**row, "origin": public.origin})
    rows.append({"name": RANDOM, "network": "any", "there": True, "origin": "random features"})
    if json:
        print_json(rows)
        return
    for row in rows:
        state = "" if row["there"] else f" (get it: dfsc-tune teacher fetch {row['name']})"
        typer.echo(f"{row['name']:<20} {row['network']:<8} {row['origin']}{state}")


@app.command()
def info(
    teacher: Annotated[str, typer.Argument(help="A teacher's name or weights file.")],
    json: JsonOption = False,
) -> None:
    """Show what a teacher is: its card, its licence and the sha256 that runs record of it."""
    from dfsc_tune.models.state_dicts import network_of, pdn_sha256, read_pdn
    from dfsc_tune.models.teacher_files import TeacherCard, find_teacher, read_card
    from dfsc_tune.settings import dump
    from dfsc_tune.storage.digest import file_sha256

    path = find_teacher(teacher)
    card = read_card(path)
    if card is None:
        network = network_of(path)
        card = TeacherCard(
            network=network,
            origin="unknown: no card lies beside the file",
            file_sha256=file_sha256(path),
            teacher_sha256=pdn_sha256(read_pdn(path, network)),
        )
    if json:
        print_json({"file": str(path), **card.model_dump(mode="json")})
    else:
        typer.echo(dump(card, header=str(path)), nl=False)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Which; `dfsc-tune teacher list` has the names.")],
) -> None:
    """Download public weights into your data folder, their sha256 checked."""
    from dfsc_tune.teachers.fetch import fetch_teacher

    with progress_bar(f"fetching {name}", talk()) as progress:
        path = fetch_teacher(name, progress)
    _say_ready(name, path)


@app.command()
def use(
    file: Annotated[Path, typer.Argument(help="Weights: a .safetensors or .pth file.")],
    name: Annotated[
        str | None, typer.Option(help="What to call them; the file's name if left out.")
    ] = None,
) -> None:
    """Copy a weights file into your data folder, so that model.teacher can name it."""
    from dfsc_tune.teachers.fetch import use_teacher

    path = use_teacher(file, name)
    _say_ready(path.stem, path)


@app.command()
def distill(
    images: Annotated[Path, typer.Option(help="A folder of photographs; the more varied, better.")],
    network: Annotated[str, typer.Option(help="tiny, small or medium.")] = "tiny",
    backbone: Annotated[
        str, typer.Option(help="efficientnet-lite0 or wide_resnet101_2.")
    ] = "efficientnet-lite0",
    layers: Annotated[
        str | None, typer.Option(help="The backbone's layers to learn, such as 2,4,7.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Left out: 2,500 for tiny, 60,000 for the others.", min=1)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Left out: 1e-3 for tiny, 1e-4 for the others.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images a step.", min=1)] = 16,
    crop_size: Annotated[
        int | None,
        typer.Option(help="Train on random crops of so many pixels; whole images if left out."),
    ] = None,
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="Mixed precision, for GPUs and CPUs with AMX.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="The .safetensors file to make; NETWORK_BACKBONE if not.")
    ] = None,
    about_images: Annotated[
        str, typer.Option(help="What the card says of the photographs: source and licence.")
    ] = "not stated",
    threads: ThreadsOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Make a teacher: a PDN learns a pretrained backbone's features. Goes on if interrupted."""
    import torch

    from dfsc_tune.teachers.distill import DistillRequest, distill_config
    from dfsc_tune.teachers.distill import distill as run

    check_output(output, "--output")
    if threads is not None:
        torch.set_num_threads(threads)
    where = torch_device(device)
    target = output or Path(f"{network}_{backbone}.safetensors")
    config = distill_config(
        network,
        backbone,
        layers=None if layers is None else numbers(layers, "--layers"),
        num_steps=steps,
        learning_rate=learning_rate,
        batch_size=batch_size,
        crop_size=crop_size,
        bfloat16=bfloat16,
        seed=seed,
    )
    request = DistillRequest(
        config=config,
        images=images,
        output=target,
        about_images=about_images,
        command=shlex.join(["dfsc-tune", *sys.argv[1:]]),
        hardware=_hardware(where),
        device=where,
    )
    console = talk()
    with progress_bar("distilling", console) as progress:
        card = run(request, progress, console.print)
    _say_made(target, card)


def _say_ready(name: str, path: Path) -> None:
    typer.echo(str(path))
    typer.echo(f"next: set model.teacher to {name}, or give --teacher {name}", err=True)


def _say_made(path: Path, card: TeacherCard) -> None:
    assert card.loss_curve
    (_, first), (_, last) = card.loss_curve[0], card.loss_curve[-1]
    typer.echo(str(path))
    typer.echo(f"mean squared error {first:.3f} → {last:.3f}", err=True)
    say_next("teacher", "use", path, "--name", "NAME")


def _hardware(device: str) -> str:
    """Describes the machine for the card: processor or GPU, threads, torch."""
    import torch

    from dfsc_tune.training.machine import describe_machine

    hardware = describe_machine()["hardware"]
    worker = (
        torch.cuda.get_device_name(device)
        if device.startswith("cuda")
        else f"{hardware['processor']}, {torch.get_num_threads()} threads"
    )
    return f"{worker}, torch {torch.__version__}"
