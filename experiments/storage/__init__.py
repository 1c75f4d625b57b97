"""Files on disk: results, checkpoints, where a result comes from."""
