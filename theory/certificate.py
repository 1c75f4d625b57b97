"""A certificate: a risk bound with everything that it was computed from, and its account of delta.

A bound means nothing without delta, the probability that it fails. It is easy to spend more of it
than one states: on the Monte Carlo estimate of the posterior's risk, on every prior scale that was
tried, on every certificate in the same figure. A `Ledger` keeps this account. A `Certificate` is
the record, and refuses to be built from numbers that do not support its risk bound.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from typing import Any

from theory.bounds import BOUNDS, monte_carlo_risk
from theory.checks import check_count, check_range

MONTE_CARLO = "Monte Carlo"
"""Ledger entry that pays for the estimate of the posterior's empirical risk."""
BOUND = "bound"
"""Ledger entry that pays for the theorem."""


def _round_down(exact: Fraction) -> float:
    """The largest float not above an exact number, so that shares never sum to more than delta."""
    nearest = float(exact)
    return nearest if Fraction(nearest) <= exact else math.nextafter(nearest, -math.inf)


@dataclass(frozen=True)
class Entry:
    """A part of one cell's delta.

    Attributes:
      name: purpose, such as `BOUND`.
      delta: probability, for the whole grid together.
      grid: number of values, fixed before the data were seen, of which the best is reported, such
        as prior scales. Each gets delta / grid, which is a charge of ln(grid) nats.

    Raises:
      ValueError: if a field is out of range.
    """

    name: str
    delta: float
    grid: int = 1

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name must not be empty")
        delta = check_range(f"delta of {self.name!r}", self.delta, 0, 1, ends=False)
        grid = check_count(f"grid of {self.name!r}", self.grid, 1)
        object.__setattr__(self, "delta", float(delta))
        object.__setattr__(self, "grid", int(grid))

    @property
    def each(self) -> float:
        """Delta for one value of the grid."""
        return _round_down(Fraction(self.delta) / self.grid)

    def __str__(self) -> str:
        over = f" over a grid of {self.grid}" if self.grid > 1 else ""
        return f"{self.delta:.3g} {self.name}{over}"


@dataclass(frozen=True)
class Ledger:
    """Account of the probability of failure: a total, equal cells, and the entries of one cell.

    Sums are exact, so that rounding never lets the cells spend more than the total.

    Attributes:
      delta: probability that any of the certificates fails.
      num_cells: claims that are shown together and share delta equally; each is called a cell.
      entries: the parts that one cell spends.

    Raises:
      ValueError: if a field is out of range, a name occurs twice, or the entries exceed the share
        of a cell.

    Example:
      >>> cell = Ledger(0.05, num_cells=50).spend("Monte Carlo", 0.0005)
      >>> print(cell.spend("bound", cell.left, grid=7))
      δ = 0.05 = 50 cells × (0.0005 Monte Carlo + 0.0005 bound over a grid of 7)
    """

    delta: float
    num_cells: int = 1
    entries: tuple[Entry, ...] = ()

    def __post_init__(self) -> None:
        delta = check_range("delta", self.delta, 0, 1, ends=False)
        object.__setattr__(self, "delta", float(delta))
        object.__setattr__(self, "num_cells", int(check_count("num_cells", self.num_cells, 1)))
        names = [entry.name for entry in self.entries]
        if len(set(names)) < len(names):
            raise ValueError(f"entries must have distinct names, got {names}")
        if self._left < 0:
            raise ValueError(
                f"entries must spend at most {self.delta / self.num_cells:.6g} per cell, "
                f"got {self.spent:.6g}"
            )

    @property
    def _left(self) -> Fraction:
        spent = sum((Fraction(entry.delta) for entry in self.entries), Fraction(0))
        return Fraction(self.delta) / self.num_cells - spent

    @property
    def spent(self) -> float:
        """Delta that one cell has spent: the probability that its certificate fails."""
        return math.fsum(entry.delta for entry in self.entries)

    @property
    def left(self) -> float:
        """Delta that one cell can still spend."""
        return _round_down(self._left)

    def spend(self, name: str, delta: float, *, grid: int = 1) -> Ledger:
        """Return a ledger in which each cell spends `delta` more.

        Args:
          name: purpose of the entry.
          delta: probability, at most `left`. An excess of a few ulp, as of rounded shares such as
            0.05 / 20, is cut off.
          grid: number of values among which the best is reported; they share `delta` equally.

        Raises:
          ValueError: if there is less left, the name is taken, or an argument is out of range.
        """
        if delta - self.left > 4 * math.ulp(self.delta / self.num_cells):
            raise ValueError(
                f"delta of {name!r} must be at most the {self.left:.6g} left of "
                f"{self.delta / self.num_cells:.6g} per cell, got {delta:.6g}"
            )
        entry = Entry(name, min(delta, self.left), grid)
        return Ledger(self.delta, self.num_cells, (*self.entries, entry))

    def entry(self, name: str) -> Entry | None:
        """The entry of that name, or None."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def __str__(self) -> str:
        """One line, for a caption."""
        parts = [str(entry) for entry in self.entries]
        # Do not mention what only rounding leaves over.
        if self.left > 1e-6 * self.delta / self.num_cells:
            parts.append(f"{self.left:.3g} unspent")
        cell = " + ".join(parts)
        cells = f"{self.num_cells} cells × ({cell})" if self.num_cells > 1 else cell
        return f"δ = {self.delta:.3g} = {cells}"

    def to_json(self) -> str:
        """Write the ledger as text that `from_json` reads back without loss."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Ledger:
        """Read what `to_json` wrote.

        Raises:
          ValueError: if the account does not balance.
          TypeError: if a field is missing or unknown.
        """
        read = json.loads(text)
        return cls(**read | {"entries": tuple(Entry(**entry) for entry in read["entries"])})


@dataclass(frozen=True)
class Certificate:
    """A bound on the risk of a posterior, the numbers behind it, and its account.

    Attributes:
      bound: the theorem, by its name in `BOUNDS`.
      risk_bound: in [0, 1]; the risk is at most this with probability 1 - delta.
      empirical_risk: posterior-average loss on the sample, in [0, 1]: a Monte Carlo estimate, or
        exact.
      num_draws: independent draws behind the estimate, as `monte_carlo_risk` counts them; 0 for an
        exact value.
      empirical_risk_bound: `empirical_risk` after the Monte Carlo correction.
      kl: KL(posterior || prior), in nats; the charge for a finite grid is in the ledger.
      num_examples: examples that the bound counts (those that the prior did not see).
      delta: probability that this certificate fails.
      ledger: how `delta` is spent, and of which total it is a part.
      prior: the prior in a few words.
      posterior: the posterior in a few words.
      seed: master seed of the run.
      method: name of the method that made the posterior.

    Raises:
      ValueError: if a number is out of range, the ledger lacks an entry that is needed, or the
        other fields do not support `risk_bound`.
    """

    bound: str
    risk_bound: float
    empirical_risk: float
    num_draws: int
    empirical_risk_bound: float
    kl: float
    num_examples: int
    delta: float
    ledger: Ledger
    prior: str
    posterior: str
    seed: int
    method: str

    def __post_init__(self) -> None:
        # Check ranges, and turn NumPy's scalars, which JSON does not know, into Python's.
        for name, most in (
            ("risk_bound", 1),
            ("empirical_risk", 1),
            ("empirical_risk_bound", 1),
            ("kl", math.inf),
            ("delta", 1),
        ):
            value = check_range(name, getattr(self, name), 0, most)
            object.__setattr__(self, name, float(value))
        for name, least in (("num_draws", 0), ("num_examples", 1), ("seed", 0)):
            value = check_count(name, getattr(self, name), least)
            object.__setattr__(self, name, int(value))
        for name in ("prior", "posterior", "method"):
            if not getattr(self, name):
                raise ValueError(f"{name} must be described, got {getattr(self, name)!r}")
        if self.delta != self.ledger.spent:
            raise ValueError(
                f"delta must be what the ledger has spent, {self.ledger.spent}; got {self.delta}"
            )
        # Compute the bounds again from the other fields. The slack is for records of machines that
        # round the last digits otherwise.
        corrected, supported = _pipeline(
            self.bound,
            empirical_risk=self.empirical_risk,
            num_draws=self.num_draws,
            kl=self.kl,
            num_examples=self.num_examples,
            ledger=self.ledger,
        )
        for name, least in (("empirical_risk_bound", corrected), ("risk_bound", supported)):
            if getattr(self, name) < least - 1e-9:
                raise ValueError(
                    f"{name} must be at least {least}, which is what the other fields support; "
                    f"got {getattr(self, name)}"
                )

    def to_row(self) -> dict[str, str | int | float]:
        """Return the certificate as one row of a table, with the ledger as JSON."""
        row = {field.name: getattr(self, field.name) for field in fields(self)}
        return row | {"ledger": self.ledger.to_json()}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Certificate:
        """Read what `to_row` returned, also if a table has turned its numbers into NumPy's.

        Raises:
          ValueError: if the certificate is refused.
          TypeError: if a field is missing or unknown.
        """
        return cls(**{**row, "ledger": Ledger.from_json(row["ledger"])})


def certify(
    bound: str,
    *,
    empirical_risk: float,
    num_draws: int,
    kl: float,
    num_examples: int,
    ledger: Ledger,
    prior: str,
    posterior: str,
    seed: int,
    method: str,
) -> Certificate:
    """Correct the estimate for its Monte Carlo error, bound the risk, and keep the account.

    Args:
      bound: the theorem, by its name in `BOUNDS`.
      empirical_risk: posterior-average loss on the sample, in [0, 1].
      num_draws: independent draws behind it, as `monte_carlo_risk` counts them; 0 if it is exact.
      kl: KL(posterior || prior), in nats; the charge for a finite grid belongs in the ledger.
      num_examples: examples that the bound counts.
      ledger: one cell's account, with an entry `BOUND` and, if anything was drawn, `MONTE_CARLO`.
        The correction and the bound use the delta that these give to one value of their grids.
      prior: the prior in a few words.
      posterior: the posterior in a few words.
      seed: master seed of the run.
      method: name of the method that made the posterior.

    Raises:
      ValueError: if an argument is out of range, or the ledger lacks an entry that is needed.

    Valid when:
      The bound's own conditions hold; the ledger's cells and grids were fixed before the data were
      seen; and the draws are independent of each other and of everything that the choice of the
      posterior depended on.
    """
    empirical_risk_bound, risk_bound = _pipeline(
        bound,
        empirical_risk=empirical_risk,
        num_draws=num_draws,
        kl=kl,
        num_examples=num_examples,
        ledger=ledger,
    )
    return Certificate(
        bound=bound,
        risk_bound=risk_bound,
        empirical_risk=empirical_risk,
        num_draws=num_draws,
        empirical_risk_bound=empirical_risk_bound,
        kl=kl,
        num_examples=num_examples,
        delta=ledger.spent,
        ledger=ledger,
        prior=prior,
        posterior=posterior,
        seed=seed,
        method=method,
    )


def _pipeline(
    bound: str,
    *,
    empirical_risk: float,
    num_draws: int,
    kl: float,
    num_examples: int,
    ledger: Ledger,
) -> tuple[float, float]:
    """The empirical risk after the Monte Carlo correction, and the bound on the risk."""
    if bound not in BOUNDS:
        raise ValueError(f"bound must be one of {sorted(BOUNDS)}, got {bound!r}")
    theorem, estimate = ledger.entry(BOUND), ledger.entry(MONTE_CARLO)
    if theorem is None:
        raise ValueError(f"ledger must have an entry {BOUND!r}, got {ledger}")
    if (estimate is not None) != (num_draws > 0):
        raise ValueError(
            f"ledger must have an entry {MONTE_CARLO!r} if and only if num_draws > 0, "
            f"got num_draws {num_draws} and {ledger}"
        )
    corrected = empirical_risk
    if estimate is not None:
        corrected = monte_carlo_risk(empirical_risk, num_draws=num_draws, delta=estimate.each)
    risk_bound = BOUNDS[bound](corrected, kl, num_examples=num_examples, delta=theorem.each)
    return float(corrected), min(float(risk_bound), 1.0)
