"""RULER's string match: an answer is as good as the share of the references that it contains.

Hsieh et al. 2024, arXiv 2404.06654; checked against `scripts/eval/synthetic/constants.py` and
`postprocess_pred` in `scripts/eval/evaluate.py` of NVIDIA/RULER (from 0 to 1 here, percent there).
Case does not matter. An answer that lists everything scores 1: only its length is limited.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ttt_core.errors import ConfigError

_UNPRINTABLE = re.compile(r"[\x00-\x1f]")


def string_match_all(answer: str, references: Sequence[str]) -> float:
    """Return the share of the references that the answer contains, from 0 to 1.

    Raises:
        ConfigError: There are no references.
    """
    matches = _matches(answer, references)
    return sum(matches) / len(matches)


def string_match_part(answer: str, references: Sequence[str]) -> float:
    """Return 1 if the answer contains at least one of the references, else 0.

    Raises:
        ConfigError: There are no references.
    """
    return float(any(_matches(answer, references)))


def _matches(answer: str, references: Sequence[str]) -> list[bool]:
    """Tell for each reference whether the answer contains it."""
    if not references:
        raise ConfigError("string match needs at least one reference, found none")
    # As RULER does: a reference may hold a line end, but no other control character.
    cleaned = _UNPRINTABLE.sub("\n", answer.strip()).strip().lower()
    return [reference.lower() in cleaned for reference in references]
