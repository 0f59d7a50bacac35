"""Fetches a public data set: downloads and checks its archive, and unpacks it without trust."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from dfsc_tune.data.check import CategoryCheck, check_data
from dfsc_tune.errors import StorageError, UserError
from dfsc_tune.storage.atomic import check_writable
from dfsc_tune.storage.download import (
    TIMEOUT_SECONDS,
    PublishedFile,
    Update,
    download,
    partial_path,
    unlike,
)

_GIGABYTE = 1e9


@dataclass(frozen=True)
class SplitCounts:
    """Numbers of images of one category."""

    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class PublicDataset:
    """A data set that others have published."""

    title: str
    archive: PublishedFile
    """A tar archive, compressed by xz; categories are its top folders, or those in its only one."""
    page: str
    """The page on which its owners offer it."""
    licence: str
    licence_url: str
    terms: str
    """The licence's conditions, in a sentence."""
    counts: Mapping[str, SplitCounts]
    """The numbers of images by category."""


PUBLIC_DATASETS: dict[str, PublicDataset] = {
    "mvtec-loco": PublicDataset(
        title="MVTec LOCO AD",
        # Address and sha256 are those in anomalib (data/datasets/image/mvtec_loco.py); the size is
        # from people who downloaded that sha256. The owners' page states none of them.
        archive=PublishedFile(
            url="https://www.mydrive.ch/shares/48237/1b9106ccdfbb09a0c414bd49fe44a14a/download/"
            "430647091-1646842701/mvtec_loco_anomaly_detection.tar.xz",
            sha256="9e7c84dba550fd2e59d8e9e231c929c45ba737b6b6a6d3814100f54d63aae687",
            num_bytes=6_126_996_224,
        ),
        page="https://www.mvtec.com/company/research/datasets/mvtec-loco",
        licence="CC BY-NC-SA 4.0",
        licence_url="https://creativecommons.org/licenses/by-nc-sa/4.0/",
        terms="name its authors, use it for no commercial purpose, and share what you make of it "
        "under the same licence",
        counts={
            "breakfast_box": SplitCounts(351, 62, 275),
            "juice_bottle": SplitCounts(335, 54, 330),
            "pushpins": SplitCounts(372, 69, 310),
            "screw_bag": SplitCounts(360, 60, 341),
            "splicing_connectors": SplitCounts(360, 60, 312),
        },
    ),
}


def find_dataset(name: str) -> PublicDataset:
    """Returns the public data set of that name; a UserError names those that exist."""
    if name not in PUBLIC_DATASETS:
        raise UserError(f"no public data set '{name}'; choose from {', '.join(PUBLIC_DATASETS)}")
    return PUBLIC_DATASETS[name]


def fetch_dataset(
    dataset: PublicDataset,
    folder: Path,
    update: Update,
    *,
    archive: Path | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Puts a data set's categories into a folder, unless they are all there.

    The archive is downloaded into the folder and removed once it is unpacked; a download that broke
    off is continued. Categories appear only when all of the archive is unpacked.

    Args:
        dataset: the data set.
        folder: made if missing.
        update: called with the bytes of the archive downloaded, then with those unpacked.
        archive: the archive if it was downloaded by hand; it is checked, and kept, as is one that
            lies in the folder already.
        timeout_seconds: how long the server may be silent.

    Raises:
        UserError: the archive cannot be reached, differs from the published one, or holds members
            that no data set needs (links, paths that lead out of the folder); or the disk is full.
    """
    if missing_categories(dataset, folder) == []:
        return
    check_writable(folder)
    target = folder / PurePosixPath(dataset.archive.url).name
    if archive is None and target.exists():
        archive = target
    if archive is not None:
        if not archive.is_file():
            raise UserError(
                f"no archive at {archive}; give the file downloaded from {dataset.page}"
            )
        if difference := unlike(archive, dataset.archive):
            raise UserError(
                f"{archive} {difference}, so it is not {dataset.title} as published; download it "
                f"again from {dataset.page}"
            )
        _check_room(folder, dataset.archive.num_bytes or archive.stat().st_size)
        _unpack(archive, dataset, folder, update)
        return
    part = partial_path(target)
    there = part.stat().st_size if part.exists() else 0
    # Images hardly compress, so unpacked they take about as much space again.
    _check_room(folder, 2 * (dataset.archive.num_bytes or 0) - there)
    by_hand = f"download it in a browser from {dataset.page} and give it by --archive FILE"
    download(dataset.archive, target, update, by_hand=by_hand, timeout_seconds=timeout_seconds)
    _unpack(target, dataset, folder, update)
    target.unlink()


def missing_categories(dataset: PublicDataset, folder: Path) -> list[str]:
    """Returns the data set's categories that are not in the folder."""
    return [name for name in dataset.counts if not (folder / name).is_dir()]


def check_dataset(dataset: PublicDataset, folder: Path) -> tuple[list[CategoryCheck], list[str]]:
    """Checks the folder of a data set; also returns its differences from the published one."""
    checks = list(check_data(folder, list(dataset.counts)))
    differences = []
    for check in checks:
        for split, expected in vars(dataset.counts[check.name]).items():
            found = sum(count.images for count in check.counts if count.split == split)
            if found != expected:
                differences.append(
                    f"{check.name} has {found} {split} images, and {dataset.title} has {expected}"
                )
    return checks, differences


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder} has {free / _GIGABYTE:.1f} GB free, but archive and images need "
            f"{needed / _GIGABYTE:.1f} GB; make room, or choose another folder"
        )


def _unpack(archive: Path, dataset: PublicDataset, folder: Path, update: Update) -> None:
    """Unpacks an archive beside the categories' places, then moves them there."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking_") as name:
        unpacked = Path(name)
        try:
            with archive.open("rb") as file, _opened(file) as tar:
                for member in tar:
                    _check_member(member, archive)
                    tar.extract(member, unpacked, filter="data")
                    update(file.tell(), archive.stat().st_size)
        except tarfile.TarError as error:
            raise UserError(f"{archive} is no whole tar archive: {error}") from error
        except OSError as error:
            raise StorageError(f"cannot unpack {archive} into {folder}: {error}") from error
        root = _root(unpacked, dataset, archive)
        for path in sorted(root.iterdir()):
            if not (folder / path.name).exists():
                path.rename(folder / path.name)


def _opened(file: IO[bytes]) -> tarfile.TarFile:
    # A stream, as its position in the file is the progress, and listing an archive of tiny members
    # first would be slow.
    return tarfile.open(fileobj=file, mode="r|xz")


def _check_member(member: tarfile.TarInfo, archive: Path) -> None:
    """Refuses members that a data set never needs; tarfile's own filter would let some pass."""
    path = PurePosixPath(member.name)
    if not (member.isreg() or member.isdir()):
        raise UserError(
            f"{archive} is refused: it holds '{member.name}', which is neither file nor folder"
        )
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        raise UserError(
            f"{archive} is refused: it holds '{member.name}', which leads out of the folder"
        )


def _root(unpacked: Path, dataset: PublicDataset, archive: Path) -> Path:
    """Returns the unpacked folder that holds the categories."""
    folders = [path for path in unpacked.iterdir() if path.is_dir()]
    for root in (unpacked, *folders):
        if missing_categories(dataset, root) == []:
            return root
    raise UserError(f"{archive} lacks categories of {dataset.title}: {', '.join(dataset.counts)}")
