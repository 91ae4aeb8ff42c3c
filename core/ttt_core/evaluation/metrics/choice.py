"""The right one of four letters."""

from __future__ import annotations

import re

from ttt_core.errors import DocumentError

_LETTER = re.compile(r"\b[A-D]\b")


def choice_accuracy(answer: str, reference: str) -> float:
    """Return 1 if the first letter from A to D that stands alone is the same in both.

    After `accuracy.py` of tau/zero_scrolls (QuALITY). "A" as an article at the start of an answer
    counts as the letter, there as here.

    Raises:
        DocumentError: The reference has no such letter.
    """
    right, given = _LETTER.search(reference), _LETTER.search(answer)
    if right is None:
        raise DocumentError(
            f"expected a reference with one of the letters A to D, found {len(reference)} "
            f"characters without one"
        )
    return float(given is not None and given.group() == right.group())
