"""Folders of images in, arrays out: layouts, decoding, checks, and the built-in data set."""
