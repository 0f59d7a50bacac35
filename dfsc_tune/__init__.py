"""Finds, per product category, the DFSC settings that detect structural and logical defects best."""

__version__ = "0.1.0"
