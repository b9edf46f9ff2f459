"""The quantiles of a Beta distribution, in float64 and with NumPy alone.

Training must run without SciPy, and common random numbers need the inverse of the distribution
function: a sampler such as `Generator.beta` takes a number of draws that depends on its parameters.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MOST_TERMS = 100_000  # of the continued fraction; it needs about the square root of the parameters
MOST_STEPS = 200  # of the search for a quantile; Newton's method needs about six
TINY = 1e-305
CLOSE = 1e-14  # how near a factor of the continued fraction comes to 1; rounding allows no nearer
NEAR = 1e-10  # Newton's method squares the error: after a step this small it is 1e-20


def beta_quantiles(probabilities: Floats, a: float, b: float) -> Floats:
    """The x with I_x(a, b) = p for each probability; a and b above 0.

    A probability in the lower tail is solved for log x, one in the upper tail for log(1 - x): so x
    is exact to about 1e-14 of x, or of 1 - x, whichever is smaller.
    """
    assert a > 0 and b > 0, "the parameters of a Beta distribution are above 0"
    probabilities = np.asarray(probabilities, dtype=np.float64)
    middle = np.array([a / (a + b)])
    is_lower = probabilities <= incomplete_beta(np.log(middle), a, b)

    quantiles = np.empty_like(probabilities)
    quantiles[is_lower] = np.exp(_log_quantiles(probabilities[is_lower], a, b))
    quantiles[~is_lower] = 1 - np.exp(_log_quantiles(1 - probabilities[~is_lower], b, a))
    quantiles[probabilities == 0] = 0
    return quantiles


def incomplete_beta(log_x: Floats, a: float, b: float) -> Floats:
    """The regularised incomplete beta function I_x(a, b) of exp(log_x), for x up to the mean a / (a
    + b).
    """
    x = np.exp(log_x)
    log_front = a * log_x + b * np.log1p(-x) - _log_beta(a, b)
    return np.asarray(np.exp(log_front) * _continued_fraction(x, a, b) / a)


def _log_quantiles(probabilities: Floats, a: float, b: float) -> Floats:
    """log x with I_x(a, b) = p, for probabilities whose x is at most the mean: Newton's method
    within a bracket.
    """
    if probabilities.size == 0:
        return probabilities
    wanted = np.log(np.maximum(probabilities, TINY))

    # I_x(a, b) is at least x^a (1 - x)^b / (a B), and close to it for small x.
    highest = math.log(a / (a + b))
    found = np.minimum((wanted + math.log(a) + _log_beta(a, b)) / a, highest)
    low = np.minimum(found, wanted / a + min(0.0, math.log(a) + _log_beta(a, b)) / a) - 1
    high = np.full_like(found, highest)

    for _ in range(MOST_STEPS):
        value = np.maximum(incomplete_beta(found, a, b), TINY)
        excess = np.log(value) - wanted
        low = np.where(excess <= 0, found, low)
        high = np.where(excess > 0, found, high)

        x = np.exp(found)
        log_density = a * found + (b - 1) * np.log1p(-x) - _log_beta(a, b)
        step = excess * value / np.maximum(np.exp(log_density), TINY)
        proposed = found - step
        is_outside = (proposed < low) | (proposed > high)
        proposed = np.where(is_outside, (low + high) / 2, proposed)

        moved = np.abs(proposed - found).max()
        found = proposed
        if moved <= NEAR:
            break
    return found


def _continued_fraction(x: Floats, a: float, b: float) -> Floats:
    """The continued fraction of I_x(a, b) (Abramowitz & Stegun 26.5.8), by Lentz's method;
    converges fast up to the mean.
    """
    c = np.ones_like(x)
    d = 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    fraction = d.copy()

    for term in range(1, MOST_TERMS):
        even = term * (b - term) * x / ((a + 2 * term - 1) * (a + 2 * term))
        d = 1 / _away_from_zero(1 + even * d)
        c = _away_from_zero(1 + even / c)
        fraction *= d * c

        odd = -(a + term) * (a + b + term) * x / ((a + 2 * term) * (a + 2 * term + 1))
        d = 1 / _away_from_zero(1 + odd * d)
        c = _away_from_zero(1 + odd / c)
        change = d * c
        fraction *= change
        if np.abs(change - 1).max() < CLOSE:
            break
    return fraction


def _away_from_zero(values: Floats) -> Floats:
    return np.where(np.abs(values) < TINY, TINY, values)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
