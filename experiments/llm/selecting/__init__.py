"""From a scan to a training file: the rows of a pool to train on, for any trainer."""
