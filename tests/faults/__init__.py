"""Kills parts of a search at random moments and compares what it leaves with an undisturbed one."""
