"""Modules that several tests use: made data and runs, commands, servers."""

import pkgutil

import pytest

# Their assertions say as much as a test's own.
pytest.register_assert_rewrite(*(f"{__name__}.{x.name}" for x in pkgutil.iter_modules(__path__)))
