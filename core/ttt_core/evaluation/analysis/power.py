"""What a comparison could have found: the smallest difference, and the documents it would take.

From the variance of the paired differences that were observed, documents being the unit, and
Student's t. Where hardly more documents are there than any significance takes, it promises a
little too much, since so few p-values are possible there.
"""

from __future__ import annotations

import math
from functools import lru_cache

from ttt_core.errors import ConfigError
from ttt_core.evaluation.analysis.statistics import Strata

POWER = 0.8
LEVEL = 0.05


def fewest_documents(comparisons: int) -> int:
    """Return from how many documents on any result can be significant.

    Flipping the signs of n documents gives no two-sided p below 2 / 2^n, and Holm multiplies the
    smallest one by the number of comparisons.
    """
    return math.floor(1 + math.log2(max(comparisons, 1) / LEVEL)) + 1


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


def detectable(strata: Strata, *, power: float = POWER, alpha: float = LEVEL) -> float | None:
    """The smallest true difference that a two-sided test would find with that power.

    Args:
        strata: Paired differences.
        power: Chance of finding it.
        alpha: Level of the test; with m comparisons in one table, 0.05 / m is the strictest one
            that Holm's correction asks for.

    Returns:
        In units of score; None where the variance is not known: one document, or no pair differed.
    """
    documents = sum(map(len, strata))
    return detectable_by(standard_error(strata), documents, power=power, alpha=alpha)


def detectable_by(
    error: float | None, documents: int, *, power: float = POWER, alpha: float = LEVEL
) -> float | None:
    """The same from the standard error and the number of documents behind it."""
    if not (0 < alpha < power < 1):
        raise ConfigError(f"0 < alpha < power < 1 must hold, not alpha={alpha}, power={power}")
    if not error or documents < 2:
        return None
    return error * (student(1 - alpha / 2, documents - 1) + student(power, documents - 1))


def documents_needed(
    strata: Strata, difference: float, *, power: float = POWER, alpha: float = LEVEL
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


@lru_cache(maxsize=1024)
def student(probability: float, degrees: int) -> float:
    """Quantile of Student's t for a probability between 0.5 and 1, by bisection."""
    low, high = 0.0, math.pi / 2  # The angle whose tangent is t / sqrt(degrees).
    for _ in range(60):
        middle = (low + high) / 2
        if 0.5 + _within(middle, degrees) / 2 < probability:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)


def _within(angle: float, degrees: int) -> float:
    """P(|t| < sqrt(degrees) tan(angle)); Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = 0.0
    for k in range(2 + odd, degrees + 1, 2):
        total += term
        term *= cosine**2 * (k - 1) / k
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
