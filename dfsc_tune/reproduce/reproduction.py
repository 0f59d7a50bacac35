"""Reproduces a table of the paper, from trainings to numbers, without repeating finished work."""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
from rich.console import Console

from dfsc_tune.data.layout import read_category
from dfsc_tune.data.records import Category
from dfsc_tune.errors import UserError
from dfsc_tune.pages.score_sections import is_real_loco
from dfsc_tune.reproduce.baselines import Baseline, judge_baselines
from dfsc_tune.reproduce.batches import Scale, batch_space
from dfsc_tune.reproduce.cells import Cell, cells_of
from dfsc_tune.reproduce.judge import Judged, judge_batch, splits_of, with_anomalies
from dfsc_tune.reproduce.numbers import Models, models_of
from dfsc_tune.reproduce.paper import cited_cells, published
from dfsc_tune.reproduce.tables import DFSC, Batch, Line, PaperTable, Scoring
from dfsc_tune.results import Run
from dfsc_tune.search.fixed_trials import run_fixed_trials
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.search.resources import driver_device
from dfsc_tune.storage.parquet import write_parquet

_PAPER_SCALE = ("small", 256, 70_000)


@dataclass(frozen=True)
class Reproduction:
    """A reproduced table."""

    table: PaperTable
    folder: Path
    cells: list[Cell]
    notes: list[str]
    interrupted_by: signal.Signals | None = None
    """The signal that ended it; there are no cells then, and the same call continues."""


def requests(
    table: PaperTable, request: SearchRequest, scale: Scale
) -> Iterator[tuple[Batch, SearchRequest]]:
    """Yields the batches of a table, each with the request for its search.

    Args:
        table: the table.
        request: data, categories and machine; its space and name are replaced, and its results
            folder becomes that of the reproduction.
        scale: the size of the trainings.
    """
    for batch in table.batches:
        space = batch_space(batch, request.categories, scale)
        folder = request.results / request.name
        yield batch, replace(request, space=space, name=batch.name, results=folder)


def reproduce(
    table: PaperTable,
    request: SearchRequest,
    scale: Scale,
    console: Console,
    *,
    baselines: Sequence[Baseline] = (),
) -> Reproduction:
    """Trains, scores and tabulates; writes the cells as Parquet beside the runs.

    Args:
        table: the table or figure.
        request: as for `requests`.
        scale: the size of the trainings.
        console: for progress.
        baselines: anomalib's baselines to train, too; for a table that compares methods.

    Raises:
        UserError: a search cannot be started or continued, the data have changed, or the table
            needs masks that no category has.
    """
    # Read and checked before hours of training, not after them.
    categories = request.categories
    read = {name: read_category(request.data, name) for name in categories}
    splits = {name: splits_of(x, table.protocols) for name, x in read.items()}
    areas = _with_areas(table, read.values())
    runs: dict[str, tuple[Run, Judged]] = {}
    folder = request.results / request.name
    for batch, of_batch in requests(table, request, scale):
        console.print(f"batch {batch.name}: {of_batch.results / of_batch.name}")
        run, interrupted_by = run_fixed_trials(of_batch, console)
        if interrupted_by is not None:
            return Reproduction(table, folder, [], [], interrupted_by)
        with console.status("scoring …"):
            judged = judge_batch(
                run,
                request.data,
                _scorings(table.lines, batch),
                table.protocols,
                areas=areas,
                device=driver_device(request),
                say=console.print,
            )
        runs[batch.name] = run, judged
        splits = {name: with_anomalies(x, judged.scores.table, name) for name, x in splits.items()}
    models: dict[str, dict[str, Models]] = {
        line.label: {name: models_of(line, name, *runs[line.batch.name]) for name in categories}
        for line in table.lines
    }
    if baselines:
        run, _ = runs[DFSC.name]
        models |= judge_baselines(
            run,
            request.data,
            run.folder.parent / "baselines",
            baselines,
            scale.num_seeds,
            areas=areas,
            device=driver_device(request),
            say=console.print,
        )
    comparable = all(is_real_loco(request.data, name) for name in categories)
    of_paper = partial(published, table, categories=categories)
    cells = [
        *cells_of(table, models, splits, of_paper, comparable),
        *cited_cells(table, categories, models),
    ]
    write_parquet(folder / f"{table.name}.parquet", pd.DataFrame(cells))
    notes = list(_notes(table, scale, comparable, models.values(), areas))
    return Reproduction(table, folder, cells, notes)


def _with_areas(table: PaperTable, categories: Iterable[Category]) -> list[str]:
    """Returns the categories with all masks if the table has AU-sPRO, else none.

    Raises UserError if the table has AU-sPRO and no category has all masks.
    """
    if "au_spro" not in table.measures:
        return []
    found = [x.name for x in categories if not any(record.lacks_mask for record in x.test)]
    if not found:
        raise UserError(
            f"{table.name} shows AU-sPRO, which needs a mask for every anomalous test image, and "
            "no category has them all; add the masks under ground_truth"
        )
    return found


def _scorings(lines: Iterable[Line], batch: Batch) -> list[Scoring]:
    return list(dict.fromkeys(line.scoring for line in lines if line.batch == batch))


def _notes(
    table: PaperTable,
    scale: Scale,
    comparable: bool,
    models: Collection[Mapping[str, Models]],
    areas: Collection[str],
) -> Iterator[str]:
    """Yields notes that a reader of the numbers must know."""
    yield (
        "oracle is the paper's protocol: settings are chosen and reported on the same test images, "
        "so its numbers are optimistic; holdout reports on images that took no part in choosing; "
        "synthetic chooses without labels, and equals oracle where nothing is chosen"
    )
    if not comparable:
        yield (
            "these are not the images of MVTec LOCO AD, whatever their names: the paper's numbers "
            "are shown for orientation, without a difference"
        )
    model = scale.model
    found = (model.network, model.image_size, scale.space.budget.num_steps)
    if found != _PAPER_SCALE:
        network, size, steps = found
        yield (
            f"not at the paper's scale: PDN {network} at {size} pixels, {steps:,} steps, instead "
            "of small, 256 and 70,000"
        )
    if any(batch.larger_network for batch in table.batches) and model.network != "small":
        yield "EfficientAD-M here has the next larger PDN than EfficientAD-S, not medium"
    if any(batch.penalty for batch in table.batches) and scale.photographs is None:
        yield "EfficientAD was trained without its penalty, which needs --photographs"
    if scale.num_seeds == 1:
        yield "one seed: the variation between trainings is unknown; --seeds 3 measures it"
    unmasked = sorted({name for of_line in models for name in of_line} - set(areas))
    if "au_spro" in table.measures and unmasked:
        yield f"AU-sPRO cannot be measured without all masks, which {', '.join(unmasked)} lack"
    if any(not model.scores for of_line in models for model in of_line.values()):
        yield "some trainings failed or are missing: their cells are left out"
    yield from table.notes
