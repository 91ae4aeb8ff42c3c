"""How much of an order is right."""

from __future__ import annotations

import re
from itertools import combinations

_LEFT_OUT = re.compile(r"[^0-9\s,]")


def concordance(answer: str, reference: str) -> float:
    """Return the share of pairs of numbers that the answer has in the right order.

    Only digits, commas and white space are read. 0 if the answer does not name each number of
    the reference exactly as often as it does; on average 1/2 for a random permutation. After
    `concordance_index.py` of tau/zero_scrolls (BookSumSort), which computes it with lifelines.
    """
    given, right = _numbers(answer), _numbers(reference)
    if sorted(given) != sorted(right):
        return 0.0
    place = {number: index for index, number in enumerate(given)}
    pairs = list(combinations(right, 2))
    if not pairs:
        return float(bool(right))
    return sum(place[first] < place[second] for first, second in pairs) / len(pairs)


def _numbers(text: str) -> list[str]:
    """Read numbers; as text, since Python refuses to make numbers of very long ones."""
    numbers = _LEFT_OUT.sub("", text).replace(",", " ").split()
    return [number.lstrip("0") or "0" for number in numbers]
