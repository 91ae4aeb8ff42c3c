"""Paired comparisons whose unit is the document, since questions on one document share its luck.

Values come in strata (tasks), each a list of documents, each a list of one value per question: a
score, or the difference of two arms' scores on the same question. What is estimated is the mean
over the tasks of the mean over a task's questions. Further seeds are further documents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ttt_core.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Stratum = Sequence[Sequence[float]]
"""Documents of one task, each with one value per question; no document is empty."""
Strata = Sequence[Stratum]

FEWEST_DOCUMENTS = 6
"""With fewer documents no sign test can find p < 0.05 (five give 2/32), and an interval over them
is no evidence."""
LEVEL = 0.95
RESAMPLES = 2000
_FLIPS = 9999
_MOST_ENUMERATED = 13
"""Documents whose 2^n signs are all looked at; beyond, `_FLIPS` random ones."""
_CHUNK = 2_000_000
"""Values drawn at once; bounds memory."""


@dataclass(frozen=True)
class Comparison:
    """What one arm's scores less another's say. All in units of score, 0 to 1.

    Attributes:
        difference: The estimate.
        low: Lower end of its interval (95 %).
        high: Upper end of it.
        p_value: Two-sided, not corrected.
        test: `sign` (exact; McNemar's) or `permutation` (signs of whole documents).
        wins: Questions on which the first arm scored more.
        losses: Questions on which it scored less.
        questions: Pairs behind it.
        documents: Documents behind it.
    """

    difference: float
    low: float
    high: float
    p_value: float
    test: str
    wins: int
    losses: int
    questions: int
    documents: int

    @property
    def few(self) -> bool:
        """Whether there are too few documents for evidence."""
        return self.documents < FEWEST_DOCUMENTS


def compare(strata: Strata) -> Comparison:
    """Judge paired differences.

    Raises:
        ConfigError: There are none.
    """
    flat = [value for stratum in strata for document in stratum for value in document]
    low, high = bootstrap_interval(strata)
    wins, losses = sum(v > 0 for v in flat), sum(v < 0 for v in flat)
    exact = _is_signs(strata)
    return Comparison(
        difference=mean(strata),
        low=low,
        high=high,
        p_value=sign_test(wins, losses) if exact else permutation_test(strata),
        test="sign" if exact else "permutation",
        wins=wins,
        losses=losses,
        questions=len(flat),
        documents=sum(len(stratum) for stratum in strata),
    )


def mean(strata: Strata) -> float:
    """Mean over the strata of the mean over a stratum's values.

    Raises:
        ConfigError: There are no values.
    """
    _check(strata)
    means = []
    for stratum in strata:
        values = [value for document in stratum for value in document]
        means.append(math.fsum(values) / len(values))
    return math.fsum(means) / len(means)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact sign test; on scores of 0 and 1 the exact test of McNemar (1947).

    p = min(1, 2 P(X <= min(wins, losses))) with X binomial(wins + losses, 1/2); ties say nothing.
    """
    n, fewer = wins + losses, min(wins, losses)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / (1 << n))


def permutation_test(strata: Strata) -> float:
    """Two-sided paired permutation test that flips the signs of whole documents.

    Without a difference between the arms, each document's differences were as likely with the
    opposite sign (Fisher 1935). Exact up to 13 documents that differ; else 9,999 fixed random
    draws, the observed signs counted among them (Phipson and Smyth 2010), so p >= 0.0001.

    Raises:
        ConfigError: There are no values.
    """
    import numpy as np

    _check(strata)
    parts = []
    for stratum in strata:
        size = sum(len(document) for document in stratum)
        parts += [math.fsum(document) / size for document in stratum]
    shares = np.array([part for part in parts if abs(part) > 1e-12])  # Zeros have no sign.
    if not len(shares):
        return 1.0
    observed = abs(shares.sum()) - 1e-9 * np.abs(shares).sum()
    found = int((np.abs(_signs(len(shares)) @ shares) >= observed).sum())
    if len(shares) <= _MOST_ENUMERATED:
        return float(found / 2 ** len(shares))
    return (found + 1) / (_FLIPS + 1)


def bootstrap_interval(
    strata: Strata, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of `mean`, by a bootstrap in two stages within each stratum.

    Documents are drawn with replacement, then the questions of each drawn document (Davison and
    Hinkley 1997, 3.8). The second stage makes it a little wide where documents have few questions;
    few documents make it too narrow. The same arguments always give the same interval.

    Raises:
        ConfigError: There are no values.
    """
    import numpy as np

    _check(strata)
    generator = np.random.default_rng(seed)
    total = np.zeros(resamples)
    for stratum in strata:
        total += _resampled(stratum, resamples, generator)
    tail = 50 * (1 - level)
    low, high = np.percentile(total / len(strata), [tail, 100 - tail])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction: adjusted p-values, in the order given.

    The chance that any true null hypothesis falls below 0.05 is at most 0.05.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _is_signs(strata: Strata) -> bool:
    return len(strata) == 1 and all(
        len(document) == 1 and document[0] in (-1, 0, 1) for document in strata[0]
    )


def _check(strata: Strata) -> None:
    if not strata or any(not s or any(not document for document in s) for s in strata):
        raise ConfigError("statistics need at least one value in each task and each document")


def _resampled(stratum: Stratum, resamples: int, generator: np.random.Generator) -> Array:
    """Means of `resamples` draws, shape (resamples,)."""
    import numpy as np

    counts = np.array([len(document) for document in stratum])
    longest = int(counts.max())
    values = np.zeros((len(stratum), longest))
    for row, document in zip(values, stratum, strict=True):
        row[: len(document)] = document
    step = max(1, _CHUNK // values.size)
    made = []
    for start in range(0, resamples, step):
        size = (min(step, resamples - start), len(stratum))
        drawn = generator.integers(len(stratum), size=size)
        made.append(_second_stage(values, counts, drawn, generator))
    return np.concatenate(made)


def _second_stage(
    values: Array, counts: NDArray[Any], drawn: NDArray[Any], generator: np.random.Generator
) -> Array:
    """Draw questions within drawn documents; `drawn` is (n_draws, n_documents)."""
    import numpy as np

    sizes = counts[drawn]
    longest = values.shape[1]
    if longest == 1:
        sums = values[drawn, 0]
    elif counts.min() == longest:
        sums = values[drawn[..., None], generator.integers(longest, size=(*drawn.shape, longest))]
        sums = sums.sum(-1)
    else:
        uniform = generator.random((*drawn.shape, longest))
        picks = (uniform * sizes[..., None]).astype(np.intp)
        there = np.arange(longest) < sizes[..., None]
        sums = np.where(there, values[drawn[..., None], picks], 0.0).sum(-1)
    return np.asarray(sums.sum(-1) / sizes.sum(-1), dtype=np.float64)


@lru_cache(maxsize=2)
def _signs(n: int) -> NDArray[Any]:
    """Rows of n signs: all of them, or random ones."""
    import numpy as np

    if n <= _MOST_ENUMERATED:
        bits = np.arange(2**n)[:, None] >> np.arange(n) & 1
    else:
        bits = np.random.default_rng(n).integers(2, size=(_FLIPS, n))
    return (2 * bits - 1).astype(np.float64)
