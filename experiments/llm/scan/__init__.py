"""The study of a real checkpoint: a grid over difficulty and data size."""
