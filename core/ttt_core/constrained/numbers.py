"""Numbers that end: JSON schemas of numbers get a smallest, a largest and a finest step."""

from __future__ import annotations

import math
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
    """Return a number's schema with both bounds and a finest step."""
    bounds = _bounds(node, LARGEST_NUMBER)
    out = {"type": "number", **_given(node), **bounds}
    low = max(out[key] for key in ("minimum", "exclusiveMinimum") if key in out)
    high = min(out[key] for key in ("maximum", "exclusiveMaximum") if key in out)
    if "multipleOf" in out:
        return out
    if low == high:
        return {"enum": [low]}
    return {**out, "multipleOf": float(f"1e-{_decimals(low, high)}")}


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
