"""`dfsc-tune cluster`: machines for a search, written down, launched, looked at and ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfsc_tune.cli.group import make_app
from dfsc_tune.cli.options import JsonOption
from dfsc_tune.cli.printing import print_json, print_table, progress_bar, say_next, talk
from dfsc_tune.errors import UserError

if TYPE_CHECKING:
    from dfsc_tune.launch.lifecycle import Node
    from dfsc_tune.launch.render import Machines

app = make_app("Launches clusters of rented machines or of your own hosts through Ray.")

FileArgument = Annotated[Path, typer.Argument(help="A cluster file, see `cluster render`.")]


@app.command()
def render(
    provider: Annotated[str, typer.Argument(help="aws, gcp, azure or on_premise.")],
    gpus: Annotated[int, typer.Option(help="GPUs at most.", min=1)] = 8,
    machine: Annotated[
        str | None, typer.Option(help="The provider's name of a GPU machine, such as g6.2xlarge.")
    ] = None,
    region: Annotated[str | None, typer.Option(help="As the provider names it.")] = None,
    spot: Annotated[
        bool, typer.Option(help="Spot machines first, on-demand ones where there is no spot.")
    ] = True,
    hours: Annotated[int, typer.Option(help="Each machine ends itself after them.", min=1)] = 12,
    image: Annotated[
        str | None, typer.Option(help="The machines' disk image; on AWS, asked for if left out.")
    ] = None,
    project: Annotated[
        str | None, typer.Option(help="Google Cloud's project, or Azure's resource group.")
    ] = None,
    hosts: Annotated[
        str | None, typer.Option(help="Your own hosts: HEAD,WORKER,… (with on_premise).")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Who may log in on your hosts.")] = None,
    package: Annotated[
        str | None,
        typer.Option(help="What nodes install: a checkout, a wheel, or what pip takes."),
    ] = None,
    gpus_per_machine: Annotated[
        int | None, typer.Option(help="Needed with another --machine.", min=1)
    ] = None,
    cpus_per_machine: Annotated[
        int | None, typer.Option(help="Needed with another --machine.", min=1)
    ] = None,
    name: Annotated[str, typer.Option(help="The cluster's name.")] = "dfsc-tune",
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("cluster.yaml"),
) -> None:
    """Write a cluster file from a few wishes, and say how many machine-hours it can take."""
    from dfsc_tune.launch.render import ClusterWishes
    from dfsc_tune.launch.render import render as render_cluster
    from dfsc_tune.storage.atomic import write_text

    if output.exists():
        raise UserError(f"{output} exists already; choose another --output, or delete it")
    text, machines = render_cluster(
        ClusterWishes(
            provider=provider,
            gpus=gpus,
            name=name,
            machine=machine,
            gpus_per_machine=gpus_per_machine,
            cpus_per_machine=cpus_per_machine,
            region=region,
            spot=spot,
            hours=hours,
            image=image,
            project=project,
            hosts=tuple(hosts.split(",")) if hosts else (),
            user=user,
            package=package,
        )
    )
    write_text(output, text)
    typer.echo(f"wrote {output}")
    if machines:
        _print_machines(machines, hours, gpus)
    say_next("cluster", "up", output)


@app.command()
def up(
    file: FileArgument,
    gpus: Annotated[
        int, typer.Option(help="Start so many GPUs now; else they come when trials wait.", min=0)
    ] = 0,
    wait: Annotated[float, typer.Option(help="Minutes to wait for them.", min=0.0)] = 30.0,
) -> None:
    """Launch a cluster, its token made and shipped; with --gpus, wait until they are there."""
    from dfsc_tune.launch.lifecycle import bring_up

    with progress_bar(f"launching {file}", talk()) as progress:
        bring_up(file, gpus, wait, lambda done, total: progress(done, total, "waiting for GPUs"))
    typer.echo(f"up: {file}")
    typer.echo(f"next: dfsc-tune submit --cluster {file} -- search --category all …", err=True)
    typer.echo(f"it costs until you end it: dfsc-tune cluster down {file}", err=True)


@app.command()
def status(file: FileArgument, json: JsonOption = False) -> None:
    """Show a cluster's nodes and GPUs, the machine-hours so far, and its jobs."""
    from dfsc_tune.launch.jobs import connected, list_jobs
    from dfsc_tune.launch.lifecycle import nodes_of

    nodes = nodes_of(file)
    with connected(str(file)) as client:
        jobs = list_jobs(client)
    if json:
        print_json({"nodes": nodes, "jobs": jobs})
        return
    alive = [node for node in nodes if node.alive]
    total, used = (sum(getattr(x, key) for x in alive) for key in ("gpus", "gpus_used"))
    typer.echo(f"{len(alive)} nodes, {used:g} of {total:g} GPUs in use")
    print_table([("host", "type", "", "GPUs in use", "hours"), *map(_node_cells, nodes)])
    typer.echo(f"machine-hours so far, without set-up times: {_hours_by_type(nodes)}")
    for job in jobs:
        typer.echo(f"job {job.job_id}: {job.status.lower()}  {job.command}")


@app.command()
def down(file: FileArgument) -> None:
    """End a cluster and everything that runs on it; status 1 if something may be left."""
    from dfsc_tune.launch.lifecycle import take_down

    left = take_down(file)
    if not left:
        typer.echo(f"down: nothing of {file} runs any more")
        return
    for sentence in left:
        typer.echo(f"warning: {sentence}", err=True)
    typer.echo("it is not sure that nothing runs, and costs, any more", err=True)
    raise typer.Exit(1)


def _node_cells(node: Node) -> tuple[str, ...]:
    what = "head" if node.is_head else "" if node.alive else "gone"
    return node.host, node.group, what, f"{node.gpus_used:g} of {node.gpus:g}", f"{node.hours:.1f}"


def _hours_by_type(nodes: Iterable[Node]) -> str:
    hours: defaultdict[str, float] = defaultdict(float)
    for node in nodes:
        hours["head" if node.is_head else node.group or "worker"] += node.hours
    return ", ".join(f"{value:.1f} {name}" for name, value in sorted(hours.items()))


def _print_machines(machines: Machines, hours: int, gpus: int) -> None:
    typer.echo(f"machines: up to {machines.count} × {machines.name}, and the head, {machines.head}")
    typer.echo(
        f"at most: {hours * machines.count} machine-hours with GPUs, and {hours} of the head; when "
        "idle, the head alone"
    )
    typer.echo(
        f"a search's cost: dfsc-tune plan --category all --gpus {gpus} --gpus-per-instance "
        f"{machines.gpus} --price-per-instance-hour PRICE",
        err=True,
    )
