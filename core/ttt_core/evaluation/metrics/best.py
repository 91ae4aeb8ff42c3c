"""Several right answers: the one that fits best counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def best_of(metric: Callable[[str, str], float], answer: str, references: Iterable[str]) -> float:
    """Return the highest score of an answer against any reference; 0 if there is none."""
    return max((metric(answer, reference) for reference in references), default=0.0)
