"""The simulator: arrays in, arrays out."""
