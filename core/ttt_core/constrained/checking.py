"""Whether a value that a schema lists also fits what else the schema says.

A grammar spells listed values as they are, so the other keywords are looked at here.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from ttt_core.constrained.merging import Flattener, as_list

_DAYS = (
    r"[1-9][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    r"|02-(0[1-9]|1[0-9]|2[0-8]))|[1-9][0-9](0[48]|[2468][048]|[13579][26])-02-29"
)
_TIME = (
    r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
PATTERNS = {
    "date": f"^({_DAYS})$",
    "time": f"^{_TIME}$",
    "date-time": f"^({_DAYS})T{_TIME}$",
}
"""Formats as RFC 3339 has them, without what no calendar has: a 30th of February, a second 60."""

FORMATS = {
    "duration": 32,
    "email": 64,
    "hostname": 64,
    "ipv4": 15,
    "ipv6": 39,
    "uuid": 36,
    "uri": 256,
}
"""Formats that are enforced, and their characters. Others are annotations."""


def fits(value: Any, schema: Any, flattener: Flattener, path: str) -> bool:
    """Whether a value fits a schema; what cannot be told is refused, or not looked at.

    Raises:
        ConfigError: The schema is none, or has what cannot be told and the flattener refuses that.
    """
    node = flattener.flat(schema, path)
    if isinstance(node, bool):
        return node
    if "type" in node and not any(_is(value, kind) for kind in as_list(node["type"])):
        return False
    if "enum" in node and not any(_same(value, one) for one in node["enum"]):
        return False
    if "anyOf" in node and not any(fits(value, one, flattener, path) for one in node["anyOf"]):
        return False
    if "oneOf" in node and sum(fits(value, one, flattener, path) for one in node["oneOf"]) != 1:
        return False
    if isinstance(value, dict):
        return _object(value, node, flattener, path)
    if isinstance(value, list):
        return _array(value, node, flattener, path)
    if isinstance(value, str):
        return _string(value, node, flattener, path)
    return not _is(value, "number") or _number(value, node)


def _object(value: dict[str, Any], node: dict[str, Any], flattener: Flattener, path: str) -> bool:
    if not _within(len(value), node, "Properties"):
        return False
    if any(name not in value for name in node.get("required", ())):
        return False
    names = node.get("propertyNames", True)
    return all(
        fits(name, names, flattener, path)
        and all(fits(part, one, flattener, path) for one in _parts(name, node, flattener, path))
        for name, part in value.items()
    )


def _parts(name: str, node: dict[str, Any], flattener: Flattener, path: str) -> list[Any]:
    """The schemas that a property of this name must fit."""
    named = [node["properties"][name]] if name in node.get("properties", ()) else []
    for pattern, part in node.get("patternProperties", {}).items():
        named += [part] if _found(pattern, name, flattener, path) else []
    return named or [node.get("additionalProperties", True)]


def _array(value: list[Any], node: dict[str, Any], flattener: Flattener, path: str) -> bool:
    first = node.get("prefixItems", [])
    parts = [*first, *[node.get("items", True)] * max(0, len(value) - len(first))]
    return _within(len(value), node, "Items") and all(
        fits(item, part, flattener, path) for item, part in zip(value, parts, strict=False)
    )


def _string(value: str, node: dict[str, Any], flattener: Flattener, path: str) -> bool:
    if node.get("format") in FORMATS:
        flattener.refuse("format (of listed values)", path)
    patterns = [node["pattern"]] if "pattern" in node else []
    patterns += [PATTERNS[node["format"]]] if node.get("format") in PATTERNS else []
    return _within(len(value), node, "Length") and all(
        _found(pattern, value, flattener, path) for pattern in patterns
    )


def _number(value: float, node: dict[str, Any]) -> bool:
    if "multipleOf" in node and Fraction(str(value)) % Fraction(str(node["multipleOf"])):
        return False
    return (
        node.get("minimum", value) <= value <= node.get("maximum", value)
        and ("exclusiveMinimum" not in node or node["exclusiveMinimum"] < value)
        and ("exclusiveMaximum" not in node or node["exclusiveMaximum"] > value)
    )


def _within(count: int, node: dict[str, Any], what: str) -> bool:
    most: int = node.get(f"max{what}", count)
    least: int = node.get(f"min{what}", 0)
    return least <= count <= most


def _found(pattern: str, text: str, flattener: Flattener, path: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        flattener.refuse("pattern (of listed values, and not one that Python has)", path)
        return True


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or kind == "boolean":
        return isinstance(value, bool) and kind == "boolean"
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    kinds: dict[str, Any] = {"object": dict, "array": list, "string": str, "null": type(None)}
    return isinstance(value, kinds.get(kind, (int, float)))


def _same(left: Any, right: Any) -> bool:
    """In Python True is 1, in JSON it is not."""
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)
