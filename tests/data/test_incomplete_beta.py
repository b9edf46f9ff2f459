from __future__ import annotations

import numpy as np
from scipy import special

from lmoe_tune.data.incomplete_beta import beta_quantiles

ENDS = np.array([0.0, 2.0**-53, 1e-9, 0.5, 1 - 1e-9, 1 - 2.0**-53])
PAIRS = (
    *((alpha, alpha) for alpha in (0.001, 0.01, 0.1, 0.5, 1.0, 2.0, 10.0, 100.0, 1e4)),
    (0.1, 1.0),
    (1.0, 0.1),
    (3.0, 0.2),
    (50.0, 2.0),
    (0.3, 20.0),
)


def test_the_quantiles_are_scipys() -> None:
    probabilities = np.concatenate([np.random.default_rng(0).random(500), ENDS])
    for a, b in PAIRS:
        found, expected = (
            beta_quantiles(probabilities, a, b),
            special.betaincinv(a, b, probabilities),
        )
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10, err_msg=f"Beta({a}, {b})")


def test_a_small_quantile_is_exact_relative_to_itself() -> None:
    probabilities = np.logspace(-12, -1, 40)
    found = beta_quantiles(probabilities, 0.5, 0.5)
    np.testing.assert_allclose(found, special.betaincinv(0.5, 0.5, probabilities), rtol=1e-12)


def test_they_rise_with_the_probability_and_have_its_shape() -> None:
    probabilities = np.linspace(0, 1, 1001)[:1000].reshape(10, 100)
    found = beta_quantiles(probabilities, 0.7, 0.7)
    assert found.shape == (10, 100)
    assert (np.diff(found.ravel()) > 0).all()
    assert beta_quantiles(np.zeros((3, 0)), 1.0, 1.0).shape == (3, 0)


def test_a_small_change_of_alpha_changes_every_quantile_a_little() -> None:
    """What common random numbers are for; draws of a sampler would have nothing to do with one another."""
    probabilities = np.random.default_rng(0).random(2000)
    near = beta_quantiles(probabilities, 1.0, 1.0) - beta_quantiles(probabilities, 1.05, 1.05)
    assert np.abs(near).max() < 0.01
