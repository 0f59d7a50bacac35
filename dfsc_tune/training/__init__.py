"""Trains one model: its data, objective, losses, steps, and the trial that ties them together."""
