"""`dfsc-tune fetch`: a run that is kept in an object store, copied to this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfsc_tune.cli.options import FetchedOption
from dfsc_tune.cli.printing import progress_bar, say_next, talk


def fetch(
    run: Annotated[str, typer.Argument(help="The run's address, such as s3://bucket/runs/RUN.")],
    to: FetchedOption = Path("results"),
) -> None:
    """Copy a run from an object store, finished or going on; again: what is new of it."""
    from dfsc_tune.results.remote import fetch_run
    from dfsc_tune.storage.object_store import Store

    store = Store(run)
    with progress_bar(f"fetching {store}", talk()) as progress:
        folder = fetch_run(store, to, progress)
    typer.echo(f"fetched {folder}")
    say_next("best", folder)
