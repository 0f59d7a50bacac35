"""`dfsc-tune train`, `predict` and `export`: one model, made, used and handed over."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dfsc_tune.cli.asked import data_folder, run_name
from dfsc_tune.cli.options import (
    MODEL_HELP,
    DeviceOption,
    JsonOption,
    ResultsOption,
    RunNameOption,
    ThreadsOption,
    check_output,
    torch_device,
)
from dfsc_tune.cli.printing import print_json, progress_bar, talk
from dfsc_tune.cli.streams import escaped
from dfsc_tune.errors import UserError

if TYPE_CHECKING:
    from dfsc_tune.models.detector import Detector
    from dfsc_tune.progress import Progress


def train(
    config: Annotated[
        Path, typer.Option(help="A trial's settings, such as results/RUN/best/CATEGORY.yaml.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="Folder that holds the categories, or its address (s3://, gs://, az://); the "
            "config's own if left out."
        ),
    ] = None,
    name: RunNameOption = None,
    results: ResultsOption = Path("results"),
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train one config in full and judge it on the images kept from the search."""
    import torch

    from dfsc_tune.cli.runs import print_summaries
    from dfsc_tune.config import TrialConfig
    from dfsc_tune.data.sources import data_name
    from dfsc_tune.models.teacher_files import random_teacher_warning
    from dfsc_tune.search.single import train_config
    from dfsc_tune.settings import load

    console = talk()
    where = torch_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    trial = load(config, TrialConfig)
    if data is not None:
        trial = trial.model_copy(update={"data": data_name(data)})
    trial = trial.with_absolute_paths()
    if warning := random_teacher_warning(trial.model):
        console.print(f"warning: {warning}", style="yellow")
    folder = results / (name or run_name(f"train_{trial.category}"))
    source = data_folder(trial.data, [trial.category], console)
    with progress_bar("training", console) as update:

        def show(progress: Progress) -> None:
            update(progress.step, trial.train.num_steps, f"AUROC {progress.value:.3f}")

        train_config(
            trial,
            source,
            folder,
            note=lambda text: console.print(f"note: {text}"),
            progress=show,
            device=where,
        )
    print_summaries(folder, json)


def predict(
    model: Annotated[Path, typer.Argument(help=MODEL_HELP)],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    heatmaps: Annotated[
        Path | None, typer.Option(help="Folder for a PNG of each image with its anomaly map.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the table to this .parquet, .csv or .json file.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Above it, an image is called anomalous; the model's own if left out."),
    ] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Score images: above a threshold, an image is called anomalous."""
    from dfsc_tune.evaluation.predict import describe_unscored, find_images
    from dfsc_tune.evaluation.predict import predict as score_images
    from dfsc_tune.models.detector import load_detector

    _check_targets(output, heatmaps)
    if threshold is not None and not math.isfinite(threshold):
        raise UserError(f"--threshold must be a finite number, not {threshold}")
    detector = load_detector(model)
    origin = _threshold_origin(detector)
    if threshold is not None:
        detector, origin = replace(detector, threshold=threshold), "--threshold"
    found = find_images(images)
    notes = list(describe_unscored(images, found))
    for note in notes:
        typer.echo(f"note: {escaped(note)}", err=True)
    rows = []
    for prediction in score_images(detector, found, heatmaps, torch_device(device)):
        rows.append(asdict(prediction))
        if not json and prediction.score is not None:
            verdict = "anomalous" if prediction.anomalous else "good"
            typer.echo(f"{prediction.score:10.4f}  {verdict:<10} {escaped(str(prediction.image))}")
        if prediction.error:
            typer.echo(f"error: {escaped(prediction.error)}", err=True)
    if output is not None:
        _write_table(output, rows)
    if json:
        print_json({"threshold": detector.threshold, "images": rows, "notes": notes})
    else:
        typer.echo(
            f"{sum(bool(row['anomalous']) for row in rows)} of {len(rows)} anomalous: above "
            f"{detector.threshold:.4f}, {origin}",
            err=True,
        )
    if any(row["error"] for row in rows):
        raise typer.Exit(1)


def export(
    model: Annotated[Path, typer.Argument(help=MODEL_HELP)],
    file_format: Annotated[str, typer.Option("--format", help="onnx, or torchscript.")] = "onnx",
    output: Annotated[
        Path | None, typer.Option(help="The file; in the model folder if left out.")
    ] = None,
) -> None:
    """Write the complete scorer as one file for other runtimes, and check it against predict."""
    from dfsc_tune.evaluation.export import SUFFIXES, export_detector
    from dfsc_tune.models.detector import load_detector

    if file_format not in SUFFIXES:
        raise UserError(f"--format is one of {', '.join(SUFFIXES)}, not '{file_format}'")
    check_output(output, "--output")
    detector = load_detector(model)
    target = output or (model / f"model{SUFFIXES[file_format]}")
    with talk().status("exporting and checking …"):
        difference = export_detector(detector, target, file_format)
    typer.echo(f"wrote {target}: scores as predict to {difference:.1g}")
    typer.echo(f"threshold {detector.threshold:.4f}: above it, an image is anomalous", err=True)


def _threshold_origin(detector: Detector) -> str:
    """Describes a model's own threshold and its precision."""
    count = detector.num_validation
    if count is None:
        return "the highest score of a good validation image"
    return (
        f"the highest score of {count} good validation images, which about 1 in {count + 1} good "
        "ones exceeds; --threshold sets another"
    )


def _check_targets(output: Path | None, heatmaps: Path | None) -> None:
    """Refuses what could not be written, before anything is scored."""
    from dfsc_tune.storage.atomic import check_writable

    if output is not None and output.suffix not in (".parquet", ".csv", ".json"):
        raise UserError(f"--output must end in .parquet, .csv or .json, not '{output.name}'")
    if output is not None and output.is_dir():
        raise UserError(f"--output is a file's name, and '{output}' is a folder")
    check_output(output, "--output")
    for folder in (output.parent if output else None, heatmaps):
        if folder is not None:
            check_writable(folder)


def _write_table(output: Path, rows: list[dict[str, Any]]) -> None:
    import pandas as pd

    from dfsc_tune.storage.atomic import atomic_path

    frame = pd.DataFrame(rows)
    with atomic_path(output) as temporary:
        if output.suffix == ".parquet":
            frame.to_parquet(temporary)
        elif output.suffix == ".csv":
            frame.to_csv(temporary, index=False)
        else:
            frame.to_json(temporary, orient="records", indent=2)
