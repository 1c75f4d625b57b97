"""The separate path: the study on real checkpoints, with the simulator's decoder."""
