"""Computes digests of image files and of whole categories, to tell whether data are the same."""

from __future__ import annotations

from hashlib import blake2b, file_digest
from pathlib import Path

from dfsc_tune.data.declarations import DEFECTS_CONFIG
from dfsc_tune.data.files import map_in_threads
from dfsc_tune.data.records import Category
from dfsc_tune.errors import UserError

# 128 bits: far beyond chance collisions, and short enough to read in a table.
_DIGEST_BYTES = 16


def content_digest(path: Path) -> str:
    """Returns the blake2b digest of a file's bytes, 32 hex digits; UserError if unreadable."""
    try:
        with path.open("rb") as file:
            return file_digest(file, lambda: blake2b(digest_size=_DIGEST_BYTES)).hexdigest()
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}.") from error


def fingerprint(category: Category) -> str:
    """Returns the digest of the category's images, kinds, masks and defects config, 32 hex digits.

    It covers the sorted (relative path, kind, content digest) of the files used, so it does not
    depend on the folder's place, on ignored files, or on the images held out. Raises UserError if a
    file is unreadable.
    """
    # The kind is included, because `dataset.yaml` can change it while every image stays.
    files: list[tuple[Path, str]] = [(record.path, record.kind) for record in category.records]
    files += [(path, "mask") for record in category.records for path in record.mask_paths]
    if category.defect_entries:
        files.append((category.root / DEFECTS_CONFIG, "config"))
    digests = map_in_threads(content_digest, [path for path, _ in files])
    lines = sorted(
        f"{path.relative_to(category.root).as_posix()}\0{kind}\0{digest}\n"
        for (path, kind), digest in zip(files, digests, strict=True)
    )
    return blake2b("".join(lines).encode(), digest_size=_DIGEST_BYTES).hexdigest()
