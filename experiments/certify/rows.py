"""Rows of a table of certificates: the cell, the certificate, measured risks, the test mixture."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int

from theory import shift
from theory.certificate import BOUND, Certificate
from theory.total import total_bound

Row = dict[str, Any]


def certificate_row(
    cell: Row,
    certificate: Certificate,
    measured: Row,
    slice_risks: Float[np.ndarray, " levels"],
    *,
    num_examples: int,
    train: Float[np.ndarray, " levels"],
    delta: float,
) -> Row:
    """Row of one certificate: its cell, measured risks, and its bounds on the test risk.

    Args:
      cell: its columns.
      certificate: the bound, with its account.
      measured: columns of measured risks.
      slice_risks: the predictor's measured risk at each level of the test.
      num_examples: examples behind each of these risks.
      train: probabilities of the levels in the training mixture.
      delta: of the intervals that decide `is_monotone`, see `on_the_test`.
    """
    examples = np.full(len(slice_risks), num_examples)
    return {
        **cell,
        **certificate.to_row(),
        **measured,
        **on_the_test(certificate, slice_risks, examples, train=train, delta=delta),
    }


def path_rows(cell: Row, method: str, path: tuple[Array, Array]) -> list[Row]:
    """Rows of the complexity table: KL in nats and risk on the way to one posterior."""
    return [
        cell | {"method": method, "kl": float(kl), "risk": float(risk)}
        for kl, risk in zip(*path, strict=True)
    ]


def on_the_test(
    certificate: Certificate,
    slice_risks: Float[np.ndarray, " levels"],
    num_examples: Int[np.ndarray, " levels"],
    *,
    train: Float[np.ndarray, " levels"],
    delta: float,
) -> Row:
    """Columns of the test mixture, in which all levels weigh equally.

    Args:
      certificate: of the risk on the training mixture.
      slice_risks: the predictor's measured risk at each level.
      num_examples: examples behind each of these risks.
      train: probabilities of the levels in the training mixture.
      delta: of the intervals that decide `is_monotone`, spent beside the ledger (see there).

    Returns:
      test_risk: the mean of the slice risks.
      test_bound_literal, test_bound_unconditional, test_bound_monotone: the total bounds of
        `theory.total`, the first by its own theorem from the certificate's numbers, the others from
        the certificate's bound.
      is_monotone: False if intervals of the measured slice risks contradict the assumption that the
        risk rises with difficulty. Nothing certified depends on it, so it has no share in the
        ledger: the monotone bound is a statement "if the risk rises with difficulty, then", and
        fails with at most the delta of `risk_bound` whatever this column says. A row whose risk
        does rise is contradicted by chance with probability at most `delta`, each row by itself.

    Raises:
      ValueError: if the certificate's ledger has no entry for the theorem.
    """
    theorem = certificate.ledger.entry(BOUND)
    if theorem is None:
        raise ValueError(f"the ledger must have an entry {BOUND!r}, got {certificate.ledger}")
    test = np.full(len(train), 1.0 / len(train))
    literal = total_bound(
        certificate.empirical_risk_bound,
        certificate.kl,
        num_examples=certificate.num_examples,
        delta=theorem.each,
        test=test,
        train=train,
        variant="literal",
    )
    errors = np.rint(slice_risks * num_examples).astype(int)
    interval = shift.slice_intervals(errors, num_examples, delta=delta)
    risk_bound = certificate.risk_bound
    return {
        "test_risk": float(slice_risks @ test),
        "test_bound_literal": float(literal.values),
        "test_bound_unconditional": float(shift.neyman_pearson(risk_bound, test, train).values),
        "test_bound_monotone": float(shift.monotone(risk_bound, test, train).values),
        "is_monotone": shift.is_monotone(*interval),
    }
