"""The command line: parses, prints, and turns mistakes into one sentence and an exit status."""

from dfsc_tune.cli.app import app

__all__ = ["app"]
