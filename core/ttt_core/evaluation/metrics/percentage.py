"""How near a percentage is to the right one."""

from __future__ import annotations

import re

from ttt_core.errors import DocumentError

_PERCENTAGE = re.compile(r"(\d+\.?\d*)%")


def exponential_similarity(answer: str, reference: str) -> float:
    """Return a score that halves with every 10 points between the two percentages.

    The first number with a percent sign right behind it counts; 0 if there is none. After
    `exp_similarity.py` of tau/zero_scrolls (SpaceDigest; section 3.3 of arXiv 2305.14196).

    Raises:
        DocumentError: There is no percentage in the reference.
    """
    right, given = _PERCENTAGE.search(reference), _PERCENTAGE.search(answer)
    if right is None:
        raise DocumentError(
            f"expected a reference such as 34%, found {len(reference)} characters without "
            f"a percentage"
        )
    if given is None:
        return 0.0
    distance = abs(float(right[1]) - float(given[1]))
    return float(0.5 ** (distance / 10))
