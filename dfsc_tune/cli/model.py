"""`dfsc-tune train`, `evaluate` and `predict`: one model, made and used."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dfsc_tune.cli.shared import (
    DataOption,
    DeviceOption,
    JsonOption,
    ResultsOption,
    data_folder,
    print_json,
    progress_bar,
    talk,
    torch_device,
)
from dfsc_tune.errors import UserError

if TYPE_CHECKING:
    from dfsc_tune.evaluate import Evaluation
    from dfsc_tune.trial import Progress

ModelArgument = Annotated[
    Path, typer.Argument(help="A model folder, such as results/RUN/models/CATEGORY.")
]


def train(
    config: Annotated[
        Path, typer.Option(help="A trial's settings, such as results/RUN/best/CATEGORY.yaml.")
    ],
    data: DataOption = None,
    name: Annotated[str | None, typer.Option(help="The run's name.")] = None,
    results: ResultsOption = Path("results"),
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; all if left out.", min=1)
    ] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train one config in full and judge it on the images kept from the search."""
    import torch

    from dfsc_tune.cli.runs import print_headlines
    from dfsc_tune.config import TrialConfig, load
    from dfsc_tune.prepare import prepare_category
    from dfsc_tune.results import create_run, describe_machine, write_settings
    from dfsc_tune.single import train_config

    console = talk()
    where = torch_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    trial = load(config, TrialConfig)
    if data is not None:
        trial = trial.model_copy(update={"data": str(data.resolve())})
    given = Path(trial.data) if trial.data else None
    read = prepare_category(trial, data_folder(given, [trial.category], console), where)
    for note in read.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    run_name = name or f"train_{config.stem}"
    folder = create_run(results, run_name)
    write_settings(
        folder,
        {
            "name": run_name,
            "categories": [trial.category],
            "data": trial.data,
            "seed": trial.seed,
            "objective": trial.objective.model_dump(),
            "searched": {trial.category: ["margin", "quantile", "alpha", "ema_momentum"]},
            "config": trial.model_dump(mode="json"),
            "datasets": {trial.category: read.summary()},
            **describe_machine(),
        },
    )
    with progress_bar("training", console) as update:

        def show(progress: Progress) -> None:
            update(progress.step, trial.train.num_steps, f"AUROC {progress.value:.3f}")

        train_config(trial, read, folder, show, where)
    print_headlines(folder, json)


def evaluate(
    model: ModelArgument,
    data: DataOption = None,
    category: Annotated[
        str | None, typer.Option(help="The category to judge on; the model's own if left out.")
    ] = None,
    include_selection: Annotated[
        bool, typer.Option(help="Also use the images that the model was chosen on (optimistic).")
    ] = False,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Measure a model on a category's labelled test images that it was not chosen on."""
    from dfsc_tune.detector import load_detector
    from dfsc_tune.evaluate import evaluate as judge_model

    detector = load_detector(model)
    name = category or detector.config.category
    given = data or (Path(detector.config.data) if detector.config.data else None)
    found = judge_model(
        detector,
        data_folder(given, [name], talk()),
        name,
        include_selection=include_selection,
        device=torch_device(device),
    )
    if json:
        print_json(asdict(found))
    else:
        _print_evaluation(found)


def predict(
    model: ModelArgument,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    heatmaps: Annotated[
        Path | None, typer.Option(help="Folder for a PNG of each image with its anomaly map.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the table to this .parquet, .csv or .json file.")
    ] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Score images: above the model's threshold, an image is called anomalous."""
    from dfsc_tune.detector import load_detector
    from dfsc_tune.predict import find_images
    from dfsc_tune.predict import predict as score_images

    _check_output(output)
    detector = load_detector(model)
    rows = []
    for prediction in score_images(detector, find_images(images), heatmaps, torch_device(device)):
        rows.append(asdict(prediction))
        if not json and prediction.score is not None:
            verdict = "anomalous" if prediction.anomalous else "good"
            typer.echo(f"{prediction.score:10.4f}  {verdict:<10} {prediction.image}")
        if prediction.error:
            typer.echo(f"error: {prediction.error}", err=True)
    if json:
        print_json({"threshold": detector.threshold, "images": rows})
    else:
        typer.echo(f"threshold {detector.threshold:.4f}", err=True)
    if output is not None:
        _write_table(output, rows)
    if any(row["error"] for row in rows):
        raise typer.Exit(1)


def _print_evaluation(found: Evaluation) -> None:
    counts = ", ".join(f"{count} {kind}" for kind, count in found.num_images.items() if count)
    marked = " (OPTIMISTIC: chosen on some of these)" if found.optimistic else ""
    typer.echo(f"{found.category}: {counts} images{marked}")
    typer.echo(f"{'':<12}{'logical':>10}{'structural':>12}{'mean':>10}")
    names = ("logical", "structural", "mean")
    _print_row("image AUROC", [found.aurocs[f"auroc_{name}"] for name in names])
    for label in ("low", "high"):
        ends = [getattr(found.intervals.get(name), label, None) for name in names]
        _print_row(f"  95 % {label}", ends)
    if found.pixel is not None:
        areas = found.pixel.au_spro
        _print_row("AU-sPRO 0.05", [areas.get(name, {}).get(0.05) for name in names])
        _print_row("AU-PRO 0.3", [None, None, found.pixel.au_pro[0.3]])
        _print_row("pixel AUROC", [None, None, found.pixel.pixel_auroc])
    for row in found.defect_types:
        typer.echo(f"  {row.kind}: {row.defect_type} ({row.num_images}): AUROC {row.auroc:.3f}")
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)


def _print_row(label: str, values: list[float | None]) -> None:
    cells = ["–" if value is None else f"{value:.3f}" for value in values]
    typer.echo(f"{label:<12}{cells[0]:>10}{cells[1]:>12}{cells[2]:>10}")


def _check_output(output: Path | None) -> None:
    if output is not None and output.suffix not in (".parquet", ".csv", ".json"):
        raise UserError(f"--output must end in .parquet, .csv or .json, not '{output.name}'")


def _write_table(output: Path, rows: list[dict[str, Any]]) -> None:
    import pandas as pd

    from dfsc_tune.checkpoint import atomic_path

    frame = pd.DataFrame(rows)
    with atomic_path(output) as temporary:
        if output.suffix == ".parquet":
            frame.to_parquet(temporary)
        elif output.suffix == ".csv":
            frame.to_csv(temporary, index=False)
        else:
            frame.to_json(temporary, orient="records", indent=2)
