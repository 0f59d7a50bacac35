"""Makes anomalies from good images, to select settings without labelled defects."""
