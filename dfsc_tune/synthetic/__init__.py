"""Anomalies made from good images: what a detector is judged by where no defects are labelled."""
