"""The difficulty of problems: measured, cut into buckets, selected."""
