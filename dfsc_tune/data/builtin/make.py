"""Writes the built-in data set to disk in MVTec LOCO's folder layout."""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from PIL import Image

from dfsc_tune.data.builtin.render import (
    CATEGORIES,
    check_height,
    check_seed,
    find_category,
    render_image,
)
from dfsc_tune.data.declarations import DEFECTS_CONFIG
from dfsc_tune.data.records import RENDERED_FILE, Category, ImageRecord
from dfsc_tune.errors import StorageError, UserError
from dfsc_tune.storage.digest import write_sums

GENERATOR_VERSION = 1
"""Goes up whenever the images change, so that results of different images are not compared."""
CHUNK = 4
"""Images handed to a worker at once: enough to hide the overhead, few enough to show progress."""
PNG_COMPRESSION = 3
"""Camera noise hardly compresses: higher levels cost time for about 2 % of size."""


@dataclass(frozen=True)
class Counts:
    """Numbers of images to draw per category; the last three make up the test split."""

    train: int = 100
    validation: int = 30
    test_good: int = 60
    logical: int = 60
    structural: int = 60


@dataclass(frozen=True)
class Job:
    """One image to draw, and the folder of its category to write it to."""

    folder: Path
    category: str
    split: str
    kind: Literal["good", "logical", "structural"]
    index: int
    height: int
    seed: int

    @property
    def defect_type(self) -> str:
        """The name of the folder of images of this kind."""
        return self.kind if self.kind == "good" else f"{self.kind}_anomalies"

    @property
    def path(self) -> Path:
        """The image's file."""
        return self.folder / self.split / self.defect_type / f"{self.index:03d}.png"


def unrendered(category: str) -> Category:
    """The records of a category that `make_dataset` would render, without masks or any file."""
    jobs = list(_jobs(Path(category), category, Counts(), height=256, seed=0))

    def records(split: str) -> tuple[ImageRecord, ...]:
        return tuple(
            ImageRecord(
                job.path, job.path.relative_to(job.folder).as_posix(), job.kind, job.defect_type
            )
            for job in jobs
            if job.split == split
        )

    return Category(
        name=category,
        root=Path(category),
        layout="loco",
        train=records("train"),
        validation=records("validation"),
        test=records("test"),
    )


def make_dataset(
    root: Path,
    categories: Sequence[str] = CATEGORIES,
    counts: Counts = Counts(),
    height: int = 256,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draws the categories into `root`, a folder each, in MVTec LOCO's layout.

    `height` is the image height in pixels; the width follows from LOCO's aspect ratio. The files
    depend on (categories, counts, height, seed) alone, not on `workers`, which defaults to the
    number of CPUs; with 1 everything runs in this process. `progress(done, total)` is called after
    each image. A category's folder appears only once it is complete. Raises UserError for an
    unknown category, a count, height or seed out of range, or a category folder that exists, and
    StorageError for a root that cannot be written to. If another process makes the same folder
    meanwhile, that folder is kept, provided that its settings are the same.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    categories = list(dict.fromkeys(categories))
    _check(root, categories, counts, height, seed, workers)
    total = len(categories) * sum(asdict(counts).values())
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    with _pool(workers) as pool:
        for category in categories:
            with _folder_in_the_making(root, category) as folder:
                jobs = list(_jobs(folder, category, counts, height, seed))
                _make_folders(jobs)
                _write_images(jobs, pool, tick)
                _write_descriptions(folder, category, counts, height, seed)
                write_sums(folder)


def _check(
    root: Path,
    categories: Sequence[str],
    counts: Counts,
    height: int,
    seed: int,
    workers: int,
) -> None:
    """Raises UserError for any mistake that can be found before the first image is drawn."""
    check_height(height)
    check_seed(seed)
    if workers <= 0:
        raise UserError(f"Number of workers {workers} is not positive; ask for 1 or more.")
    for name, count in asdict(counts).items():
        if count <= 0:
            raise UserError(f"Image count {name}={count} is not positive; ask for 1 or more.")
    for category in categories:
        find_category(category)
        if (root / category).exists():
            raise UserError(f"{root / category} exists; choose another folder or delete it.")


def _pool(workers: int) -> AbstractContextManager[ProcessPoolExecutor | None]:
    """Returns worker processes, or none if one is enough.

    Fresh interpreters are started rather than forked ones, which may hang beside the threads of
    other libraries.
    """
    if workers == 1:
        return nullcontext()
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _write_images(
    jobs: Sequence[Job], pool: ProcessPoolExecutor | None, tick: Callable[[], None]
) -> None:
    """Draws and writes the images, calling `tick` after each."""
    try:
        for _ in pool.map(_write_image, jobs, chunksize=CHUNK) if pool else map(_write_image, jobs):
            tick()
    except BaseException:
        if pool:
            # Waits, so that no worker writes any more when the folder is removed.
            pool.shutdown(cancel_futures=True)
        raise


@contextmanager
def _folder_in_the_making(root: Path, category: str) -> Iterator[Path]:
    """Provides a temporary folder that becomes root/category if the block ends without an error."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root, prefix=f".{category}.unfinished-") as name:
            folder = Path(name) / category
            folder.mkdir()
            yield folder
            _rename(folder, root / category)
    except OSError as error:
        raise StorageError(
            f"Cannot write to {root} ({error.strerror or error}); choose another folder."
        ) from error


def _rename(folder: Path, target: Path) -> None:
    """Gives a finished folder its name, unless another process has made the same folder first."""
    try:
        folder.rename(target)
    except OSError:
        ours, theirs = folder / RENDERED_FILE, target / RENDERED_FILE
        if not theirs.is_file() or theirs.read_text() != ours.read_text():
            raise


def _jobs(folder: Path, category: str, counts: Counts, height: int, seed: int) -> Iterator[Job]:
    """Yields a job for each image."""
    plan: tuple[tuple[str, Literal["good", "logical", "structural"], int], ...] = (
        ("train", "good", counts.train),
        ("validation", "good", counts.validation),
        ("test", "good", counts.test_good),
        ("test", "logical", counts.logical),
        ("test", "structural", counts.structural),
    )
    for split, kind, count in plan:
        for index in range(count):
            yield Job(folder, category, split, kind, index, height, seed)


def _make_folders(jobs: Sequence[Job]) -> None:
    for folder in {job.path.parent for job in jobs}:
        folder.mkdir(parents=True)


def _write_image(job: Job) -> None:
    """Draws one image and writes it with its ground truth, one PNG for each defect."""
    rendered = render_image(job.category, job.kind, job.index, job.split, job.height, job.seed)
    _save(job.path, rendered.image)
    if not rendered.defects:
        return
    truth = job.folder / "ground_truth" / job.defect_type / job.path.stem
    truth.mkdir(parents=True)
    category = find_category(job.category)
    for number, defect in enumerate(rendered.defects):
        value = np.uint8(category.pixel_value(defect.name))
        _save(truth / f"{number:03d}.png", defect.mask * value)


def _save(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path, compress_level=PNG_COMPRESSION)


def _write_descriptions(
    folder: Path, category: str, counts: Counts, height: int, seed: int
) -> None:
    """Writes defects_config.json as LOCO has it, and builtin.json, which records the settings."""
    product = find_category(category)
    config = [
        {
            "defect_name": defect.name,
            "pixel_value": product.pixel_value(defect.name),
            "saturation_threshold": defect.saturation(height),
            "relative_saturation": defect.area is None,
        }
        for defect in product.defects
    ]
    origin = {
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "height": height,
        "counts": asdict(counts),
    }
    for name, content in ((DEFECTS_CONFIG, config), (RENDERED_FILE, origin)):
        (folder / name).write_text(json.dumps(content, indent=4) + "\n")
