"""Makes or fetches the frozen teacher: by distillation from a backbone, or from public weights."""
