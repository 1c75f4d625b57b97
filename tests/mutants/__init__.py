"""Mutants: small faults put into the code one at a time, which some test must notice.

``python -m tests.mutants`` runs the named ones (`tests.mutants.named`, faults that tests once let
pass) and a sample of generated ones (`tests.mutants.generate`). Those that no test can notice are
listed with the reason in `tests.mutants.equivalent`.
"""
