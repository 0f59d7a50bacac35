"""The files of a run, and the columns of its Parquet tables.

Names are the glossary's words. Times are in seconds, a step is a training step, AUROCs lie in 0
to 1.
"""

from __future__ import annotations

import pyarrow as pa

from dfsc_tune.config import TrialConfig, searchable_values
from dfsc_tune.metrics.image import AUROCS
from dfsc_tune.progress import LOSSES

SCHEMA_VERSION = "2"
"""A whole number; each version adds columns to those of the one before, and all are read."""
SCHEMA_KEY = b"dfsc_tune_schema"
SETTINGS, LEDGER, CHECKPOINTS, MODELS = "run.yaml", "ledger.jsonl", "checkpoints", "models"
TRIALS, REPORTS, SCORES = "trials.parquet", "reports.parquet", "scores.parquet"
ENDED = "ended"
"""The ledger's last event once the process that led a search has done all that it will; `why` says
why that is before the search's own end, if it is."""

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

trials: a row a trial. `role` is paper (the paper's setting), margin_0, starting_point, sampler, or
config (trained on its own); `state` is running, complete, pruned (stopped early by ASHA), failed or
interrupted (the search ended before it did);
`value` is what the search maximises, at the last report; all AUROCs are of the selection part.
reports: a row a report and EMA momentum; `own_momentum` marks the one that counts: the trial's own,
or the best where momenta are free.
scores: a row an image of the report part. `role` is best, or of what it is compared with: paper
(the paper's setting) and margin_0, where they reached the full budget and are not best themselves.
"""

NULLABLE_INTEGERS = ("best_step",)
"""Whole numbers that a row may lack: in pandas Int64, not int64."""

NEVER_NULL = ("category", "trial", "role", "state", "step", "num_steps", "image", "kind", "score")
"""What every row of a table that has such a column holds."""
