"""Parquet files, written whole, with checksums that are checked when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from dfsc_tune.errors import UserError, first_line
from dfsc_tune.storage.atomic import atomic_path

if TYPE_CHECKING:
    import pandas as pd


def write_parquet(path: Path, table: pa.Table | pd.DataFrame) -> None:
    """Writes a table, without an index, whole or not at all."""
    if not isinstance(table, pa.Table):
        table = pa.Table.from_pandas(table, preserve_index=False)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def read_parquet(path: Path, if_damaged: str) -> pa.Table:
    """Reads a table that `write_parquet` wrote.

    Args:
        path: the file.
        if_damaged: what its user can then do.

    Raises:
        UserError: it is damaged or cannot be read.
    """
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        table.validate(full=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path} is damaged ({first_line(error)}); {if_damaged}") from error
    return table
