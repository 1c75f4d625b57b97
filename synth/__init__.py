"""The simulator: tasks with a difficulty, a decoder, fine-tuning and risks.

Arrays in, arrays out: no files, no plots, no theory. The studies in `experiments` combine them.
"""
