"""Judges trained models on labelled images, scores new ones, and hands models over."""
