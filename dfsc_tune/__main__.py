"""`python -m dfsc_tune`: the command line where the script `dfsc-tune` is not on the path."""

from dfsc_tune.cli import app

app()
