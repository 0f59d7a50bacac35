"""Commands run within the test's own process, and what a refusal must look like."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from dfsc_tune.cli import app


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def assert_one_sentence(result: Result, *texts: str, status: int = 2) -> None:
    """One line of error that holds all texts, and no traceback."""
    assert result.exit_code == status, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, result.stderr
    for text in texts:
        assert text in errors[0]
