"""The names of a run's files, and the columns of its Parquet tables.

Times are in seconds, a step is a training step, AUROCs are between 0 and 1.
"""

from __future__ import annotations

import pyarrow as pa

from dfsc_tune.config import TrialConfig, searchable_values
from dfsc_tune.metrics.image import AUROCS
from dfsc_tune.progress import LOSSES

SCHEMA_VERSION = "2"
"""An integer. Each version only adds columns, so tables of every version can be read."""
SCHEMA_KEY = b"dfsc_tune_schema"
SETTINGS, LEDGER, CHECKPOINTS, MODELS = "run.yaml", "ledger.jsonl", "checkpoints", "models"
TRIALS, REPORTS, SCORES = "trials.parquet", "reports.parquet", "scores.parquet"
ENDED = "ended"
"""The ledger's last event, written when the process that leads a search is done; its `why` gives
the reason if the search is not complete."""

_FLOAT, _INT, _TEXT, _BOOL = pa.float64(), pa.int64(), pa.string(), pa.bool_()
_AUROCS = [(name, _FLOAT) for name in AUROCS]


def _parameter_columns() -> list[tuple[str, pa.DataType]]:
    kinds = {bool: _BOOL, str: _TEXT, float: _FLOAT, int: _INT}
    defaults = searchable_values(TrialConfig(category="any"))
    return [(name, kinds[type(value)]) for name, value in defaults.items()]


SCHEMAS: dict[str, pa.Schema] = {
    TRIALS: pa.schema(
        [
            ("category", _TEXT),
            ("trial", _TEXT),
            ("role", _TEXT),
            ("state", _TEXT),
            *_parameter_columns(),
            ("value", _FLOAT),
            *_AUROCS,
            ("best_value", _FLOAT),
            ("best_step", _INT),
            ("step", _INT),
            ("num_steps", _INT),
            ("seconds", _FLOAT),
            ("node", _TEXT),
            ("device", _TEXT),
            ("error", _TEXT),
        ]
    ),
    REPORTS: pa.schema(
        [
            ("category", _TEXT),
            ("trial", _TEXT),
            ("step", _INT),
            ("ema_momentum", _FLOAT),
            ("own_momentum", _BOOL),
            *_AUROCS,
            *((f"loss_{name}", _FLOAT) for name in LOSSES),
            ("seconds", _FLOAT),
        ]
    ),
    SCORES: pa.schema(
        [
            ("category", _TEXT),
            ("trial", _TEXT),
            ("role", _TEXT),
            ("image", _TEXT),
            ("kind", _TEXT),
            ("defect_type", _TEXT),
            ("score", _FLOAT),
            ("threshold", _FLOAT),
        ]
    ),
}
"""Each table's columns.

trials: one row for each trial. `role` is paper (the paper's setting), margin_0, starting_point,
sampler, or config (trained on its own); `state` is running, complete, pruned (stopped early by
ASHA), failed or interrupted (the search ended first); `value` is what the search maximises, at
the last report; all AUROCs are of the selection part.
reports: one row for each report and EMA momentum; `own_momentum` marks the one that counts: the
trial's own, or the best one where momenta are free.
scores: one row for each image of the report part. `role` is best, or for the references paper (the
paper's setting) and margin_0, if they reached the full budget and are not best themselves.
"""

NULLABLE_INTEGERS = ("best_step",)
"""Integers that may be missing in a row: Int64 in pandas, not int64."""

NEVER_NULL = ("category", "trial", "role", "state", "step", "num_steps", "image", "kind", "score")
"""Columns that are never null in the tables that have them."""
