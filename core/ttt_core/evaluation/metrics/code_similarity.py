"""How much a line of code is like the one that was meant."""

from __future__ import annotations

from ttt_core.extras import library

_NOT_CODE = ("`", "#", "//")
"""Fences of Markdown, and comments."""


def code_similarity(answer: str, reference: str) -> float:
    """Return how alike the answer's first line of code and the reference are, in hundredths.

    After `code_sim_score` of THUDM/LongBench: the first line without a backquote, `#` or `//`, and
    fuzzywuzzy's ratio, 200 x longest common subsequence / characters of both, rounded to a whole
    percentage. rapidfuzz computes it; without its C extension fuzzywuzzy uses difflib, which
    may differ by a few hundredths, and the published figures do not say which it was.

    Raises:
        ConfigError: rapidfuzz is not installed.
    """
    fuzz = library("rapidfuzz.fuzz", "rapidfuzz", "scoring lines of code")
    ratio: float = fuzz.ratio(first_line(answer), reference)
    return round(ratio) / 100


def first_line(answer: str) -> str:
    """Return the first line that is neither fence nor comment; empty if there is none."""
    lines = answer.lstrip("\n").split("\n")
    return next((line for line in lines if not any(sign in line for sign in _NOT_CODE)), "")
