"""The right number, and no other: which paragraph it was, or how many there are."""

from __future__ import annotations

import re

from ttt_core.errors import DocumentError

_NUMBER = re.compile(r"\d+")


def count_score(answer: str, reference: str) -> float:
    """Return the share of the numbers in the answer that are the reference's digits; 0 if none.

    After `count_score` of THUDM/LongBench.
    """
    numbers = _NUMBER.findall(answer)
    return numbers.count(reference) / len(numbers) if numbers else 0.0


def retrieval_score(answer: str, reference: str) -> float:
    """Return the share of the numbers in the answer that are the reference's first number.

    After `retrieval_score` and `retrieval_zh_score` of THUDM/LongBench: the same for references
    that say "Paragraph 7" in either language.

    Raises:
        DocumentError: There is no number in the reference.
    """
    number = _NUMBER.search(reference)
    if number is None:
        raise DocumentError(
            f"expected a reference with a paragraph's number, found {len(reference)} characters "
            f"without one"
        )
    return count_score(answer, number.group())
