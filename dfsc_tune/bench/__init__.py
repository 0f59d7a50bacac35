"""Measures how fast trials train, score and start on this machine, alone and together."""
