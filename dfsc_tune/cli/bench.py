"""`dfsc-tune bench`: how fast trials are on this machine."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from dfsc_tune.cli.options import (
    DeviceOption,
    JsonOption,
    ResultsOption,
    ThreadsOption,
    numbers,
    torch_device,
)
from dfsc_tune.cli.printing import print_json, talk
from dfsc_tune.errors import UserError


def bench(
    network: Annotated[str, typer.Option(help="tiny, small or medium.")] = "small",
    image_size: Annotated[int, typer.Option(help="Pixels a side.")] = 256,
    rounds: Annotated[int, typer.Option(help="Measurements of each figure.", min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="Of each measurement, about.", min=0.01)] = 10.0,
    at_once: Annotated[
        str | None, typer.Option(help="Trials at once to try; 1,2,4,8 on a GPU, 1,2 without.")
    ] = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    results: ResultsOption = Path("results"),
    name: Annotated[str | None, typer.Option(help="The record's name.")] = None,
    json: JsonOption = False,
) -> None:
    """Time training beside the usual loop, scoring, start-up and trials at once; keep a record."""
    import torch

    from dfsc_tune.bench.record import benchmark, write_record
    from dfsc_tune.bench.request import BenchRequest
    from dfsc_tune.config import ModelConfig
    from dfsc_tune.settings import validate
    from dfsc_tune.storage.atomic import check_writable

    where = torch_device(device)
    on_gpu = where != "cpu"
    num_threads = threads or os.cpu_count() or 1
    torch.set_num_threads(num_threads)
    tree = {"network": network, "image_size": image_size, "teacher": "random"}
    request = BenchRequest(
        model=validate(ModelConfig, tree, source="command line"),
        device=where,
        rounds=rounds,
        seconds_per_round=seconds,
    )
    counts = numbers(at_once or ("1,2,4,8" if on_gpu else "1,2"), "--at-once")
    if list(counts) != sorted(set(counts)) or counts[0] < 1:
        raise UserError(f"--at-once takes ascending numbers from 1 on, not '{at_once}'")
    stamp = f"{datetime.datetime.now():%Y%m%d-%H%M%S}"
    path = results / "benchmarks" / f"{name or f'{network}-{image_size}-{where}-{stamp}'}.yaml"
    # Before minutes of measuring, and not only after them.
    check_writable(path.parent)
    console = talk()
    notes: list[str] = []
    with console.status("starting …") as status:

        def progress(text: str) -> None:
            status.update(f"{text} …")

        record = benchmark(request, num_threads, counts, progress, notes.append)
        record["notes"] = notes
    plain = write_record(path, record)
    if json:
        print_json(plain)
    else:
        _print_record(plain)
        typer.echo(f"record: {path}")


def _print_record(record: dict[str, Any]) -> None:
    training, scoring, start = record["training"], record["scoring"], record["start"]
    for way, figure in training["seconds_per_step"].items():
        typer.echo(f"{way:<24}{_milliseconds(figure)} a step")
    typer.echo(f"{'usual / fast':<24}{_spread(training['usual_over_fast'], '.2f')}")
    typer.echo(
        f"{'a report':<24}{_milliseconds(scoring['seconds_per_report'])} for "
        f"{scoring['num_images']} images: {scoring['share_of_steps']:.1%} of its "
        f"{scoring['report_interval']} steps"
    )
    typer.echo(f"{'building a trial':<24}{_milliseconds(start['seconds_to_build'])}")
    typer.echo(f"{'its first steps':<24}{_milliseconds(start['seconds_of_first_steps'])}")
    by_mps = " by MPS" if record["mps"] else ""
    for packing in record["at_once"]:
        memory = packing["peak_bytes_per_trial"]
        typer.echo(
            f"{packing['num_trials']} at once{by_mps}, "
            f"{packing['threads_per_trial']} threads each: "
            f"{packing['steps_per_second']:.2f} steps a second"
            + (f", {memory / 1e9:.2f} GB each" if memory else "")
        )
    for note in record["notes"]:
        typer.echo(f"failed: {note}", err=True)


def _milliseconds(figure: dict[str, float]) -> str:
    return _spread({k: x if k == "n" else 1e3 * x for k, x in figure.items()}, ".4g") + " ms"


def _spread(figure: dict[str, float], form: str) -> str:
    low, median, high = (format(figure[key], form) for key in ("low", "median", "high"))
    return f"{median} ({low} to {high}, n = {figure['n']:.0f})"
