"""Clusters and jobs: machines rented or joined through Ray's launcher, searches run on them."""

import os

from dfsc_tune.storage.token import offer_token

# Ray reads these when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
offer_token()
