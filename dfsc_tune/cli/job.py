"""`dfsc-tune submit` and `dfsc-tune job`: searches on a cluster that go on without this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfsc_tune.cli.asked import run_name as new_run_name
from dfsc_tune.cli.group import make_app
from dfsc_tune.cli.options import FetchedOption, JsonOption
from dfsc_tune.cli.printing import print_json, print_table, progress_bar, say_next, talk
from dfsc_tune.cli.streams import end_with_reader
from dfsc_tune.errors import UserError

if TYPE_CHECKING:
    from dfsc_tune.launch.jobs import JobState

app = make_app("Follows, stops and fetches what was submitted to a cluster.")

ClusterOption = Annotated[
    str,
    typer.Option(help="A cluster file, or a dashboard's address such as http://127.0.0.1:8265."),
]
JobArgument = Annotated[str, typer.Argument(help="The job's id, as `submit` said it.")]
_DEFAULT = "cluster.yaml"


def submit(
    command: Annotated[
        list[str], typer.Argument(help="After --: search or resume, as on this machine.")
    ],
    cluster: ClusterOption = _DEFAULT,
    detach: Annotated[
        bool, typer.Option("--detach", help="Do not follow it; it goes on all the same.")
    ] = False,
) -> None:
    """Run a search on a cluster, as a job that goes on when this machine is gone."""
    from dfsc_tune.launch.jobs import connected
    from dfsc_tune.launch.jobs import submit as submit_job

    with connected(cluster) as client:
        state = submit_job(client, command, new_run_name("job"), wait=not _is_address(cluster))
        typer.echo(f"job {state.job_id}: its run will be {state.run}", err=detach)
        if detach:
            typer.echo(state.job_id)
            say_next("job", "logs", state.job_id, "--cluster", cluster)
        else:
            _follow(client, state.job_id, cluster)


@app.command("list")
def list_(cluster: ClusterOption = _DEFAULT, json: JsonOption = False) -> None:
    """List a cluster's jobs."""
    from dfsc_tune.launch.jobs import connected, list_jobs

    with connected(cluster) as client:
        jobs = list_jobs(client)
    if json:
        print_json(jobs)
    elif jobs:
        print_table([(job.job_id, job.status.lower(), job.command) for job in jobs])
    else:
        typer.echo("no jobs")


@app.command()
def logs(
    job: JobArgument,
    cluster: ClusterOption = _DEFAULT,
    follow: Annotated[bool, typer.Option(help="Until it ends; Ctrl-C leaves it going.")] = True,
) -> None:
    """Show what a job prints; with the status of its end."""
    from dfsc_tune.launch.jobs import connected
    from dfsc_tune.launch.jobs import logs as read_logs

    with connected(cluster) as client:
        if follow:
            _follow(client, job, cluster)
        else:
            typer.echo(read_logs(client, job), nl=False)


@app.command()
def stop(job: JobArgument, cluster: ClusterOption = _DEFAULT) -> None:
    """End a job; what its search found is kept, and `resume` goes on with it."""
    from dfsc_tune.launch.jobs import connected
    from dfsc_tune.launch.jobs import stop as stop_job

    with connected(cluster) as client:
        state = stop_job(client, job)
    typer.echo(f"job {job}: {state.status.lower()}")
    if state.run is not None:
        say_next("submit", "--cluster", cluster, "--", "resume", state.run, before="go on")


@app.command()
def fetch(
    job: JobArgument,
    cluster: ClusterOption = _DEFAULT,
    to: FetchedOption = Path("results"),
) -> None:
    """Copy a job's run to this machine, finished or going on."""
    from dfsc_tune.launch.jobs import connected, fetch_from_head, find_job
    from dfsc_tune.results.remote import fetch_run
    from dfsc_tune.storage.object_store import Store, is_remote

    with connected(cluster) as client:
        run = find_job(client, job).run
    if run is None:
        raise UserError(f"the job {job} is no search that dfsc-tune submitted")
    if is_remote(run):
        with progress_bar(f"fetching {run}", talk()) as progress:
            folder = fetch_run(Store(run), to, progress)
    elif _is_address(cluster):
        raise UserError(f"the run lies on the cluster's disk, in {run}; copy it from there")
    else:
        folder = fetch_from_head(Path(cluster), run, to)
    typer.echo(f"fetched {folder}")
    say_next("best", folder)


def _is_address(cluster: str) -> bool:
    return "://" in cluster


def _follow(client: object, job_id: str, cluster: str) -> None:
    """Shows a job until it ends, and ends with status 1 unless it went well."""
    from dfsc_tune.launch.jobs import follow

    end_with_reader()
    try:
        state = follow(client, job_id, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt as interrupt:
        raise type(interrupt)(
            f"the job goes on; follow it: dfsc-tune job logs {job_id} --cluster {cluster}; stop "
            f"it: dfsc-tune job stop {job_id} --cluster {cluster}"
        ) from interrupt
    _print_end(state, cluster)


def _print_end(state: JobState, cluster: str) -> None:
    typer.echo(f"job {state.job_id}: {state.status.lower()}", err=True)
    if state.status != "SUCCEEDED":
        if state.message:
            typer.echo(state.message.strip().splitlines()[0], err=True)
        raise typer.Exit(1)
    say_next("job", "fetch", state.job_id, "--cluster", cluster)
