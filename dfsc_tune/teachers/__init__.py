"""Makes and brings the frozen teacher: distilled from a backbone, or fetched."""
