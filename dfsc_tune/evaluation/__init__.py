"""Evaluates trained models on labelled images, scores new images, and exports models."""
