"""A trial that sleeps instead of training; imports next to nothing, so that many fit in memory."""

from __future__ import annotations

import os
import time
from typing import Any

from ray import tune


def sleeping_trial(config: dict[str, Any], *, seconds: float, **others: Any) -> None:
    """Sleeps `seconds` in all and reports after each of its intervals; no report is better."""
    began = time.time()
    train = config["trial_config"]["train"]
    aurocs = dict.fromkeys(("auroc_logical", "auroc_structural", "auroc_mean"), 0.5)
    interval, num_steps = train["report_interval"], train["num_steps"]
    for step in range(interval, num_steps + 1, interval):
        time.sleep(seconds * interval / num_steps)
        tune.report(
            {
                "device": "cpu",
                "step": step,
                "value": 0.5,
                "metrics": [{"ema_momentum": train["ema_momentum"], **aurocs}],
                "losses": [("process", os.getpid()), ("began", began)],
                "seconds": time.time() - began,
            }
        )
