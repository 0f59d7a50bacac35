"""Studies of the tool itself, on recorded trainings."""
