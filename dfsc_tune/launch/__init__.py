"""Clusters, launched through Ray's launcher, and jobs, searches that run on them."""

import os

from dfsc_tune.storage.token import offer_token

# Ray reads these when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
offer_token()
