"""The paper's tables and figure, reproduced: the trainings that they need, and the numbers."""
