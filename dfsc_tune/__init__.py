"""Finds, per product category, the DFSC settings that detect its defects best."""

__version__ = "0.1.0"
