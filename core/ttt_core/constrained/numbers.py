"""Numbers that end: JSON schemas of numbers get a smallest, a largest and a finest step."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

LARGEST_INTEGER = 10**15 - 1
"""Where a schema has no bound: 15 digits, which every JSON reader keeps exactly."""

LARGEST_NUMBER = 10**9 - 1
DECIMALS = 6
_DIGITS = 15
"""Decimal digits that a double keeps; more of them could round a value over its bound."""

_HUGE = 10**15
"""Bounds beyond this one say as little as none; llguidance does not compile all of them."""


def bounded_integer(node: dict[str, Any]) -> dict[str, Any]:
    """Return an integer's schema with both bounds."""
    return {"type": "integer", **_given(node), **_bounds(node, LARGEST_INTEGER)}


def bounded_number(node: dict[str, Any]) -> dict[str, Any]:
    """Return a number's schema with both bounds and a finest step.

    Exclusive bounds become the next step: llguidance writes some of them.
    """
    bounds = _bounds(node, LARGEST_NUMBER)
    out = {"type": "number", **_given(node), **bounds}
    low = max(out[key] for key in ("minimum", "exclusiveMinimum") if key in out)
    high = min(out[key] for key in ("maximum", "exclusiveMaximum") if key in out)
    if low >= high and bounds.keys() & {"exclusiveMinimum", "exclusiveMaximum"}:
        return out  # Without a value, which is not said here.
    if "multipleOf" not in out and low == high:
        return {"enum": [low]}
    if "multipleOf" not in out and low < high:
        out["multipleOf"] = float(f"1e-{_decimals(low, high)}")
    return _inclusive(out) if out.get("multipleOf", 0) > 0 else out


def _inclusive(out: dict[str, Any]) -> dict[str, Any]:
    """Replace exclusive bounds with the first multiple inside of them."""
    step = Fraction(str(out["multipleOf"]))
    if "exclusiveMinimum" in out:
        count = math.floor(Fraction(str(out.pop("exclusiveMinimum"))) / step) + 1
        out["minimum"] = max(_plain(count * step), out.get("minimum", -math.inf))
    if "exclusiveMaximum" in out:
        count = math.ceil(Fraction(str(out.pop("exclusiveMaximum"))) / step) - 1
        out["maximum"] = min(_plain(count * step), out.get("maximum", math.inf))
    return out


def _plain(value: Fraction) -> float:
    return int(value) if value.denominator == 1 else float(value)


def _given(node: dict[str, Any]) -> dict[str, Any]:
    return {"multipleOf": node["multipleOf"]} if "multipleOf" in node else {}


def _bounds(node: dict[str, Any], limit: int) -> dict[str, Any]:
    lows = [k for k in ("minimum", "exclusiveMinimum") if k in node and node[k] >= -_HUGE]
    highs = [k for k in ("maximum", "exclusiveMaximum") if k in node and node[k] <= _HUGE]
    out: dict[str, Any] = {key: node[key] for key in (*lows, *highs)}
    if not lows:
        out["minimum"] = math.floor(min([-limit, *(node[key] - limit for key in highs)]))
    if not highs:
        out["maximum"] = math.ceil(max([limit, *(node[key] + limit for key in lows)]))
    return out


def _decimals(low: float, high: float) -> int:
    """Enough decimals for at least ten steps between the bounds."""
    whole = len(str(int(max(abs(low), abs(high)))))
    return max(0, min(DECIMALS, _DIGITS - whole), 1 - math.floor(math.log10(high - low)))
