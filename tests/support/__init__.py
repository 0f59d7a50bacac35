"""Modules that several tests use: made data and runs, commands, servers."""
