"""The total bound: agrees with a slow version, its layers in their order, and its limits."""

from __future__ import annotations

import doctest

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.optimize

from tests import reference
from tests.theory.test_shift import risks, shifts
from theory import shift, total
from theory.shift import conditional_maps, unconditional_maps
from theory.total import VARIANTS, total_bound

UNIFORM = np.full(6, 1 / 6)


def up_to(hardest: int, levels: int = 6) -> np.ndarray:
    return np.where(np.arange(levels) < hardest, 1 / hardest, 0.0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_table_agrees_with_the_slow_version(variant):
    """Cells of a grid at once: three mixtures of training, by three sizes, by three posteriors."""
    train = np.stack([up_to(3), np.eye(6)[3], np.array([0.4, 0.0, 0.3, 0.1, 0.0, 0.2])])
    sizes, sample, kl = [16, 100, 1000], [0.0, 0.21, 0.9], [0.0, 3.0, 40.0]
    found = total_bound(
        sample,
        kl,
        num_examples=np.array(sizes)[:, None],
        delta=0.01,
        test=UNIFORM,
        train=train[:, None, None],
        variant=variant,
    )
    slow = [
        [
            [
                reference.total_bound(
                    *posterior,
                    num_examples=size,
                    delta=0.01,
                    test=UNIFORM.tolist(),
                    train=mixture.tolist(),
                    variant=variant,
                )
                for posterior in zip(sample, kl, strict=True)
            ]
            for size in sizes
        ]
        for mixture in train
    ]
    np.testing.assert_allclose(found.values, slow, atol=1e-9)
    parts = found.sample_risk + found.generalization + found.extrapolation
    np.testing.assert_allclose(parts, found.values, atol=1e-12)
    assert found.variant == variant
    assert found.layer == ("conditional" if variant == "monotone" else "unconditional")


@hypothesis.given(shifts(), risks)
@hypothesis.settings(max_examples=200)
def test_linear_programme_is_solved_and_never_looser_than_what_it_replaces(drawn, bound):
    _, test, train = drawn
    value = float(shift.monotone(bound, test, train).values)
    # Rises from each level to the next are what a solver chooses; they add up to at most 1.
    harder = np.tril(np.ones((len(test), len(test))))
    solved = scipy.optimize.linprog(
        -(test @ harder),
        A_ub=np.stack([train @ harder, np.ones(len(test))]),
        b_ub=[bound, 1.0],
        bounds=(0, 1),
    )
    assert value == pytest.approx(-solved.fun, abs=1e-7)
    assert value <= float(shift.unconditional(bound, test, train).values) + 1e-12
    # The gap is at most the largest difference of the distribution functions.
    excess = np.cumsum(train - test)[:-1].max(initial=0.0)
    assert value <= bound + excess + 1e-12


@pytest.mark.parametrize(
    ("variant", "train"), [("unconditional", up_to(4)), ("monotone", np.eye(6)[3])]
)
def test_it_is_coverage_times_reliability(variant, train):
    """1 - (d/T) (1 - B): levels 1..d without an assumption, exactly d if the risk rises."""
    found = total_bound(
        0.1, 0.0, num_examples=500, delta=0.05, test=UNIFORM, train=train, variant=variant
    )
    training_risk = found.sample_risk + found.generalization
    assert found.values == pytest.approx(1 - (4 / 6) * (1 - training_risk), abs=1e-12)


@pytest.mark.parametrize("module", [total, conditional_maps, unconditional_maps])
def test_examples_of_the_documentation(module):
    tried = doctest.testmod(module)
    assert tried.failed == 0
    assert tried.attempted > 0


def test_mixtures_of_many_cells_broadcast_against_each_other():
    bounds = np.linspace(0, 1, 5)
    train = np.stack([up_to(hardest) for hardest in (2, 4, 6)])[:, None]
    for each in (*shift.UNCONDITIONAL.values(), shift.monotone):
        together = each(bounds, UNIFORM, train).values
        apart = [each(bounds, UNIFORM, mixture[0]).values for mixture in train]
        np.testing.assert_allclose(together, apart, atol=1e-12)


@hypothesis.given(st.sampled_from(sorted(VARIANTS)), shifts())
@hypothesis.settings(max_examples=50)
def test_bound_falls_as_examples_are_added(variant, drawn):
    _, test, train = drawn
    sizes = [16, 64, 256, 1024]
    settings = {"delta": 0.05, "test": test, "train": train, "variant": variant}
    values = total_bound(0.2, 4.0, num_examples=sizes, **settings).values
    assert (np.diff(values) <= 1e-12).all()


def test_unknown_variant_is_refused():
    with pytest.raises(ValueError, match=r"variant must be one of .*'literal'.*got 'exact'"):
        total_bound(0.1, 0.0, num_examples=9, delta=0.05, test=[1.0], train=[1.0], variant="exact")
