"""What a comparison could have found: the smallest difference, and the documents it would take.

From the variance of the paired differences that were observed, documents being the unit, and the
normal approximation; below some twenty documents it promises a little too much.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from ttt_core.errors import ConfigError
from ttt_core.evaluation.analysis.statistics import Strata

POWER = 0.8


def standard_error(strata: Strata) -> float | None:
    """Standard error of the mean, documents being the unit; None: a task has only one document.

    Within a task of D documents and N questions it is the root of D / (D - 1) times the sum of
    squares of the documents' summed deviations, over N; tasks are independent.
    """
    variance = 0.0
    for stratum in strata:
        size, documents = sum(map(len, stratum)), len(stratum)
        if documents < 2:
            return None
        centre = math.fsum(value for document in stratum for value in document) / size
        sums = (math.fsum(value - centre for value in document) for document in stratum)
        variance += documents / (documents - 1) * math.fsum(s * s for s in sums) / size**2
    return math.sqrt(variance) / len(strata) if strata else None


def detectable(strata: Strata, *, power: float = POWER, alpha: float = 0.05) -> float | None:
    """The smallest true difference that a two-sided test would find with that power.

    Args:
        strata: Paired differences.
        power: Chance of finding it.
        alpha: Level of the test; with m comparisons in one table, 0.05 / m is the strictest one
            that Holm's correction asks for.

    Returns:
        In units of score; None where the variance is not known: one document, or no pair differed.
    """
    return detectable_by(standard_error(strata), power=power, alpha=alpha)


def detectable_by(
    error: float | None, *, power: float = POWER, alpha: float = 0.05
) -> float | None:
    """The same from the standard error."""
    return _quantiles(power, alpha) * error if error else None


def documents_needed(
    strata: Strata, difference: float, *, power: float = POWER, alpha: float = 0.05
) -> int | None:
    """How many such documents would find a true `difference`; None where `detectable` is None.

    Raises:
        ConfigError: `difference` is zero.
    """
    if not difference:
        raise ConfigError("no number of documents finds a difference of zero")
    found = detectable(strata, power=power, alpha=alpha)
    if found is None:
        return None
    return math.ceil(sum(map(len, strata)) * (found / difference) ** 2 - 1e-9)


def _quantiles(power: float, alpha: float) -> float:
    if not (0 < alpha < power < 1):
        raise ConfigError(f"0 < alpha < power < 1 must hold, not alpha={alpha}, power={power}")
    normal = NormalDist()
    return normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)
