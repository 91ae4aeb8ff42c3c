"""Figures as text, with no more digits than they are worth, and a true minus sign."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ttt_core.evaluation.analysis.comparing import Versus

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
"""Stands where there is no value."""


def points(value: float | None, questions: int) -> str:
    """A score of 0 to 1 in points of 100; decimals as the standard error of n coin flips allows."""
    if value is None:
        return NONE
    return signed_points(value, 0.5 / math.sqrt(questions)).removeprefix("+")


def signed_points(value: float, standard_error: float | None) -> str:
    """A difference in points, with its sign, which zero has none of."""
    text = f"{abs(100 * value):.{_decimals(standard_error)}f}"
    if not float(text):
        return text
    return f"{MINUS if value < 0 else '+'}{text}"


def difference_with_interval(one: Versus) -> str:
    """Such as `+12 [+5, +19]`."""
    ends = (one.difference, one.low, one.high)
    value, low, high = (signed_points(end, one.standard_error) for end in ends)
    return f"{value} [{low}, {high}]"


def p_text(p: float) -> str:
    """Such as `= 0.03` or `< 0.001`; two digits at most, and never `= 0`."""
    if p < 0.001:
        return "< 0.001"
    return f"= {_significant(p)}" if p < 0.995 else "= 1"


def amount(value: float | None) -> str:
    """Two digits and a magnitude: `3.1e12`, `0.12`, `850`."""
    if value is None:
        return NONE
    if not value:
        return "0"
    if not 1e-3 <= abs(value) < 1e4:
        digits, power = f"{value:.1e}".split("e")
        return f"{digits}e{int(power)}"
    return _significant(value)


def share(value: float | None) -> str:
    """Such as `80 %`."""
    return NONE if value is None else f"{100 * value:.0f} %"


def counted(number: int, name: str) -> str:
    """Such as `1 document`, or `2,000 documents`."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def _decimals(standard_error: float | None) -> int:
    """One decimal once the standard error is below a point, else none."""
    return 1 if standard_error and standard_error < 0.01 else 0


def _significant(value: float) -> str:
    """Round to two digits; whole numbers keep theirs."""
    magnitude = math.floor(math.log10(abs(float(f"{value:.1e}"))))
    return f"{value:,.{max(0, 1 - magnitude)}f}"
