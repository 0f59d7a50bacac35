"""Estimates the cost of a search: throughput, prices, simulated early stopping, the plan."""
