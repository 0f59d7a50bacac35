"""The three networks: PDN (teacher and student), autoencoder, and where a teacher comes from."""
