"""Posteriors on a linear classifier, whose Gibbs risk on a sample is known in closed form."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from theory.bounds import pac_bayes_kl
from theory.certificate import BOUND, MONTE_CARLO, Certificate, Ledger, certify
from theory.config import PosteriorConfig
from theory.divergence import gaussian_kl, kl_inverse
from theory.maurer import log_xi
from theory.posterior import Block, Gaussian, bounded, fit_posterior, gibbs_errors

SIZE, ROWS, DELTA = 12, 256, 0.05
IDENTITY = Block(SIZE, lambda vector: vector)
# One temperature and the whole KL from the start, so that the objective is the same at all steps.
PLAIN = PosteriorConfig(
    steps=100, batch_size=16, draws=4, first_temperature=1.0, temperature=1.0, free=0.0
)


def logistic_loss(weights, example, key):
    """Loss in nats and whether the sign is wrong, of a linear classifier without an offset."""
    del key
    inputs, label = example
    margin = label * (weights @ inputs)
    return jnp.logaddexp(0.0, -margin), margin <= 0


def exact_risk(posterior: Gaussian, examples: Any) -> np.ndarray:
    """Gibbs risk of linear classifiers on their samples: a margin is a Gaussian."""
    shift, log_ratio = (
        np.asarray(leaf, np.float64) for leaf in (posterior.shift, posterior.log_ratio)
    )
    inputs, labels = (np.asarray(leaf, np.float64) for leaf in examples)
    mean = labels * np.einsum("...nd,...d->...n", inputs, shift)
    scale = np.sqrt(np.einsum("...nd,...d->...n", inputs**2, np.exp(2 * log_ratio)))
    return scipy.stats.norm.cdf(-mean / scale).mean(axis=-1)


def is_compatible(violations: np.ndarray, delta: float) -> bool:
    """Return whether so many failures are plausible if each has probability at most delta."""
    test = scipy.stats.binomtest(int(violations.sum()), violations.size)
    return test.proportion_ci(0.998, method="exact").low <= delta


def interval(outcomes: np.ndarray) -> tuple[float, float]:
    """Clopper–Pearson interval of 99.9% for the probability of independent outcomes."""
    test = scipy.stats.binomtest(int(outcomes.sum()), outcomes.size)
    return tuple(test.proportion_ci(0.999, method="exact"))


# A Gaussian.


@pytest.mark.parametrize("prior_scale", [0.3, np.array([0.1, 2.0, 0.5])])
def test_the_prior_is_zero_nats_from_itself(prior_scale):
    prior = Gaussian.prior(3, prior_scale)
    assert prior.kl == 0
    np.testing.assert_array_equal(prior.mean, np.zeros(3))
    draws = jax.vmap(prior.draw)(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_allclose(draws.std(axis=0), np.broadcast_to(prior_scale, 3), rtol=0.1)


def test_kl_is_that_of_two_multivariate_normals():
    scale, shift = np.array([0.5, 2.0, 0.1]), np.array([1.5, -0.4, 0.0])
    log_ratio = np.array([-1.0, 0.3, 0.0])
    posterior = Gaussian(*(jnp.asarray(leaf, jnp.float32) for leaf in (shift, log_ratio, scale)))
    before, after = np.diag(scale**2), np.diag((scale * np.exp(log_ratio)) ** 2)
    mean = scale * shift
    np.testing.assert_allclose(posterior.mean, mean, rtol=1e-6)
    inverse = np.linalg.inv(before)
    expected = 0.5 * (
        np.trace(inverse @ after)
        + mean @ inverse @ mean
        - 3
        + np.linalg.slogdet(before)[1]
        - np.linalg.slogdet(after)[1]
    )
    np.testing.assert_allclose(posterior.kl, expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda gaussian: gaussian.kl)(posterior), expected, 1e-5)


def test_draws_have_the_mean_and_the_scale_of_the_posterior():
    posterior = Gaussian(jnp.array([2.0, 0.0]), jnp.array([0.0, -1.0]), jnp.array([0.1, 3.0]))
    draws = np.asarray(jax.vmap(posterior.draw)(jax.random.split(jax.random.key(0), 4000)))
    scale = np.array([0.1, 3.0 / math.e])
    assert (np.abs(draws.mean(axis=0) - posterior.mean) < 4 * scale / math.sqrt(4000)).all()
    np.testing.assert_allclose(draws.std(axis=0), scale, rtol=0.05)


# The bounded loss and the settings.


def test_the_bounded_loss_is_the_probability_of_a_sampled_error():
    probability = np.array([1.0, 0.999, 0.5, 1e-3, 1e-20], np.float32)
    nats = -jnp.log(probability)
    np.testing.assert_allclose(bounded(nats, 1.0), 1 - probability, atol=1e-7)
    for temperature in (0.1, 2.0, 50.0):
        loss = np.asarray(bounded(nats, temperature))
        assert loss.min() == 0
        assert loss.max() <= 1
        assert (np.diff(loss) >= 0).all()
    # Small losses are not rounded to zero.
    np.testing.assert_allclose(bounded(jnp.float32(1e-9), 2.0), 5e-10, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps and batch_size must be at least 1, got 0 and 32"),
        ({"batch_size": 0}, "steps and batch_size must be at least 1, got 1200 and 0"),
        ({"draws": 5}, "draws must divide batch_size = 32, got 5"),
        ({"draws": 0}, "draws must divide batch_size = 32, got 0"),
        *[
            ({name: value}, f"{name} must be positive, got {value}")
            for name in (
                "learning_rate",
                "scale_learning_rate",
                "first_temperature",
                "temperature",
            )
            for value in (0.0, -1.0, math.nan)
        ],
        *[
            ({name: value}, f"{name} must lie in [0, 1), got {value}")
            for name in ("warmup", "free")
            for value in (1.0, -0.1, math.nan)
        ],
    ],
)
def test_settings_out_of_range_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PosteriorConfig(**changes)


# Training.


@dataclasses.dataclass(frozen=True)
class Trained:
    """Members trained at once on prefixes of one separable sample, and the program for one."""

    examples: Any
    sizes: np.ndarray
    keys: jax.Array
    run: Any
    posterior: Gaussian
    objective: np.ndarray

    def penalty(self, size: int) -> float:
        return float(log_xi(size)) - math.log(DELTA)

    def single(self, member: int, examples: Any) -> tuple[Gaussian, np.ndarray]:
        """The member of that number, trained alone."""
        size = int(self.sizes[member])
        penalty = np.float32(self.penalty(size))
        return self.run(examples, self.keys[member], np.int32(size), penalty)

    def of(self, member: int) -> tuple[Gaussian, np.ndarray]:
        return jax.tree.map(lambda leaf: leaf[member], (self.posterior, self.objective))

    def sample(self, member: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[: self.sizes[member]], self.examples)


@pytest.fixture(scope="module")
def trained() -> Trained:
    inputs = jax.random.normal(jax.random.key(1), (ROWS, SIZE))
    labels = jnp.sign(inputs @ jnp.linspace(-1.0, 1.0, SIZE))
    examples, sizes = (inputs, labels), np.array([48, 128, ROWS], np.int32)

    def run(examples, key, num_examples, penalty):
        return fit_posterior(
            logistic_loss,
            IDENTITY,
            examples,
            1.0,
            PLAIN,
            key,
            num_examples=num_examples,
            penalty=penalty,
        )

    keys = jax.random.split(jax.random.key(2), len(sizes))
    penalties = (log_xi(sizes) - np.log(DELTA)).astype(np.float32)
    members = jax.jit(jax.vmap(run, in_axes=(None, 0, 0, 0)))
    posterior, objective = members(examples, keys, sizes, penalties)
    return Trained(examples, sizes, keys, jax.jit(run), posterior, np.asarray(objective))


def assert_close(actual: Any, expected: Any) -> None:
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3)


def test_training_lowers_the_objective_the_risk_and_the_bound(trained):
    assert (trained.objective[:, -20:].mean(axis=1) < trained.objective[:, 0]).all()
    risks, bounds = [], []
    for member, size in enumerate(trained.sizes):
        posterior, _ = trained.of(member)
        risk = exact_risk(posterior, trained.sample(member))
        kl = gaussian_kl(posterior.shift, posterior.log_ratio)
        assert kl > 1
        bound = pac_bayes_kl(risk, kl, num_examples=int(size), delta=DELTA)
        # The prior guesses: its risk is one half on every sample.
        assert bound < pac_bayes_kl(0.5, 0.0, num_examples=int(size), delta=DELTA)
        risks.append(risk)
        bounds.append(bound)
    # More examples allow a larger KL.
    assert risks[2] < risks[1] < risks[0] < 0.4
    assert risks[2] < 0.2
    assert bounds[2] < bounds[1] < bounds[0]


def test_the_objective_is_an_estimate_of_the_bound_on_the_bounded_loss(trained):
    """In the last steps, at a learning rate near zero, the posterior hardly moves."""
    posterior, objective = trained.of(2)
    keys = jax.random.split(jax.random.key(4), 2000)
    inputs, labels = trained.examples
    margins = (labels[:, None] * inputs) @ jax.vmap(posterior.draw)(keys).T
    loss = float(bounded(jnp.logaddexp(0.0, -margins), 1.0).mean())
    expected = kl_inverse(loss, (float(posterior.kl) + trained.penalty(ROWS)) / ROWS)
    np.testing.assert_allclose(objective[-20:].mean(), expected, atol=0.05)


def test_members_mapped_together_are_those_trained_alone(trained):
    for member in (0, 2):
        alone = trained.single(member, trained.examples)
        assert_close(alone, trained.of(member))
    shifts = np.asarray(trained.posterior.shift)
    assert np.abs(shifts[0] - shifts[2]).max() > 0.1


def test_rows_beyond_the_number_of_examples_change_nothing(trained):
    inputs, labels = trained.examples
    spoilt = (inputs.at[48:].set(jnp.nan), labels.at[48:].set(jnp.nan))
    with_spoilt, expected = (trained.single(0, examples) for examples in (spoilt, trained.examples))
    for one, other in zip(jax.tree.leaves(with_spoilt), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)
    # With one row fewer in order, training sees a spoilt one.
    seen = trained.single(0, (inputs.at[47:].set(jnp.nan), labels))
    assert np.isnan(seen[0].shift).any()


def test_a_loss_that_nothing_changes_leaves_the_prior_and_shows_the_schedules():
    config = PosteriorConfig(
        steps=9, batch_size=4, draws=2, first_temperature=4.0, temperature=1.0, free=0.5
    )
    number, penalty, nats = 40, 6.0, 1.5
    posterior, objective = fit_posterior(
        lambda parameters, example, key: (jnp.float32(nats), jnp.bool_(True)),
        IDENTITY,
        jnp.zeros((number, 1)),
        0.1,
        config,
        jax.random.key(0),
        num_examples=jnp.int32(number),
        penalty=penalty,
    )
    np.testing.assert_array_equal(posterior.shift, np.zeros(SIZE))
    np.testing.assert_array_equal(posterior.log_ratio, np.zeros(SIZE))
    # From 4 to 1 by factors of √2, and from no KL to all of it, in the first half of the steps.
    temperature = np.array([4, 2 * math.sqrt(2), 2, math.sqrt(2), 1, 1, 1, 1, 1])
    weight = np.array([0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1])
    expected = kl_inverse(1 - np.exp(-nats / temperature), weight * penalty / number)
    np.testing.assert_allclose(objective, expected, rtol=1e-5)


def test_a_step_draws_as_many_vectors_as_it_is_told():
    """Each vector is a fair coin, so the mean over the batch is a whole number of vectors."""
    config = PosteriorConfig(steps=1, batch_size=128, draws=64)
    _, objective = fit_posterior(
        lambda weights, example, key: (jnp.where(weights[0] > 0, 1e6, 0.0), weights[0] > 0),
        IDENTITY,
        jnp.zeros((3, 1)),
        0.1,
        config,
        jax.random.key(0),
        num_examples=jnp.int32(3),
        penalty=6.0,
    )
    # The KL has no weight in the first step.
    heads = 64 * float(objective[0])
    assert heads == round(heads)
    assert 16 < heads < 48


# Errors of fresh weights.


def test_every_example_meets_equally_many_draws_and_padding_none():
    number, draws, rows = 7, 40, 10

    def met(target):
        return gibbs_errors(
            lambda parameters, example, key: (jnp.float32(0.0), example == target),
            IDENTITY,
            Gaussian.prior(SIZE, 1.0),
            jnp.arange(rows),
            jax.random.key(0),
            num_examples=target * 0 + number,
            num_draws=draws,
            batch_size=16,
        )

    wrong = np.asarray(jax.jit(jax.vmap(met))(jnp.arange(rows)))
    assert wrong.shape == (rows, draws)
    np.testing.assert_array_equal(wrong.sum(axis=0), np.ones(draws))
    used = draws // number * number
    np.testing.assert_array_equal(wrong[:, :used].sum(axis=1), [5] * number + [0] * (rows - number))


def test_each_draw_has_weights_and_a_key_of_its_own():
    """One coin from the weights, one from the example's key: test each and their joint law."""

    def flips(kind):
        def example_loss(parameters, example, key):
            coins = jnp.stack([parameters[0] > 0, jax.random.uniform(key) < 0.5])
            return jnp.float32(0.0), (coins == kind).all()

        return gibbs_errors(
            example_loss,
            IDENTITY,
            Gaussian.prior(SIZE, 0.1),
            jnp.zeros((4, 1)),
            jax.random.key(5),
            num_examples=jnp.int32(4),
            num_draws=4096,
        )

    kinds = jnp.array([[False, False], [False, True], [True, False], [True, True]])
    joint = np.asarray(jax.jit(jax.vmap(flips))(kinds))
    np.testing.assert_array_equal(joint.sum(axis=0), np.ones(4096))
    # All four outcomes are equally likely, as weights and key are independent.
    assert scipy.stats.chisquare(joint.sum(axis=1)).pvalue > 1e-3
    for coin in (joint[2] | joint[3], joint[1] | joint[3]):
        low, high = interval(coin)
        assert low < 0.5 < high
        # No correlation with the next draw, the same example's next, or the next batch's.
        for lag in (1, 4, 128):
            low, high = interval(coin[lag:] == coin[:-lag])
            assert low < 0.5 < high


def test_the_mean_is_an_estimate_of_the_gibbs_risk(trained):
    """Each example counts as often as any other, for different posteriors and sample sizes."""
    draws = 60 * ROWS

    def errors(posterior, key, number):
        return gibbs_errors(
            logistic_loss,
            IDENTITY,
            posterior,
            trained.examples,
            key,
            num_examples=number,
            num_draws=draws,
        )

    keys = jax.random.split(jax.random.key(3), 3)
    wrong = np.asarray(jax.jit(jax.vmap(errors))(trained.posterior, keys, trained.sizes))
    for member, size in enumerate(trained.sizes):
        used = wrong[member, : draws // size * size]
        exact = exact_risk(trained.of(member)[0], trained.sample(member))
        # Draws for a fixed sample vary less than a binomial of the same mean.
        low, high = interval(used)
        assert low < exact < high
        assert high - low < 0.03


# From the sample to the certificate.

SAMPLES, NUMBER, REPEATS = 300, 30, 50


@dataclasses.dataclass(frozen=True)
class Certified:
    """Certificates of posteriors trained on random labels, each with a true risk of 1/2."""

    certificates: list[Certificate]
    exact: np.ndarray

    def column(self, name: str) -> np.ndarray:
        return np.array([getattr(each, name) for each in self.certificates])


@pytest.fixture(scope="module")
def certified() -> Certified:
    """Train as if the sample were many times as large, so that the KL hardly has any weight."""
    size = 20
    config = PosteriorConfig(
        steps=100, batch_size=16, draws=4, learning_rate=1.0, scale_learning_rate=0.05
    )
    key_inputs, key_labels, key_runs = jax.random.split(jax.random.key(6), 3)
    inputs = jax.random.normal(key_inputs, (SAMPLES, NUMBER, size))
    labels = jax.random.rademacher(key_labels, (SAMPLES, NUMBER), jnp.float32)
    block, draws = Block(size, lambda vector: vector), 20 * NUMBER

    def run(inputs, labels, key):
        key_fit, key_errors = jax.random.split(key)
        posterior, _ = fit_posterior(
            logistic_loss,
            block,
            (jnp.tile(inputs, (REPEATS, 1)), jnp.tile(labels, REPEATS)),
            1.0,
            config,
            key_fit,
            num_examples=jnp.int32(REPEATS * NUMBER),
            penalty=5.0,
        )
        errors = gibbs_errors(
            logistic_loss,
            block,
            posterior,
            (inputs, labels),
            key_errors,
            num_examples=jnp.int32(NUMBER),
            num_draws=draws,
        )
        return posterior, errors

    keys = jax.random.split(key_runs, SAMPLES)
    posteriors, errors = jax.jit(jax.vmap(run))(inputs, labels, keys)
    ledger = Ledger(DELTA).spend(MONTE_CARLO, DELTA / 2)
    ledger = ledger.spend(BOUND, ledger.left)
    certificates = [
        certify(
            "pac_bayes_kl",
            empirical_risk=wrong.mean(),
            num_draws=draws,
            kl=float(gaussian_kl(shift, log_ratio)),
            num_examples=NUMBER,
            ledger=ledger,
            prior="N(0, I)",
            posterior="trained on the sample",
            seed=0,
            method="full",
        )
        for wrong, shift, log_ratio in zip(
            np.asarray(errors), posteriors.shift, posteriors.log_ratio, strict=True
        )
    ]
    return Certified(certificates, exact_risk(posteriors, (inputs, labels)))


@pytest.mark.slow
def test_certificates_of_posteriors_trained_on_the_sample_cover(certified):
    # The posteriors have memorised the random labels, so that there is a gap to cover.
    assert certified.exact.mean() < 0.2
    assert certified.column("kl").mean() > 5
    assert is_compatible(certified.column("risk_bound") < 0.5, DELTA)


def test_without_the_kl_they_do_not(certified):
    bounds = pac_bayes_kl(
        certified.column("empirical_risk_bound"), 0.0, num_examples=NUMBER, delta=DELTA / 2
    )
    assert not is_compatible(bounds < 0.5, DELTA)
    assert (bounds < 0.5).mean() > 0.4


def test_the_monte_carlo_correction_covers_the_exact_risk_on_the_sample(certified):
    assert is_compatible(certified.column("empirical_risk_bound") < certified.exact, DELTA / 2)
    assert not is_compatible(certified.column("empirical_risk") < certified.exact, DELTA / 2)
