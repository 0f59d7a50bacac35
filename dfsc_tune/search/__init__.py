"""The search: spaces, Optuna's suggestions, ASHA's stops, Ray Tune's trials, the live table."""

import os
import sys

from dfsc_tune.storage.token import offer_token

# Ray reads these when it is imported: quiet, no usage statistics, no loggers but ours.
for _name, _value in {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # A reused trial process has this long to leave its last trial before Tune calls it broken.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    # Signals and failures are ours, and Tune's own snapshots are not used.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",
}.items():
    os.environ.setdefault(_name, _value)

# `ray start` asks for this token by default, but a driver offers it only when told to; and told
# after Ray's import, it would start nodes that ask for the token and not offer it to them.
if "ray" not in sys.modules:
    offer_token()
