"""The paper's tables and figure made again: which trainings they need, and what came of them."""
