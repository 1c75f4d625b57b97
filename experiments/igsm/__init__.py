"""iGSM as a data set, and its fidelity to the reference."""
