"""Measures what a search itself costs, with recorded learning curves in the place of training."""
