"""The networks (PDN, autoencoder), the teacher and its files, scoring, and the trained detector."""
