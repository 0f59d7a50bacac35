"""Reads folders of images into arrays: layouts, decoding, checks, and the built-in data set."""
