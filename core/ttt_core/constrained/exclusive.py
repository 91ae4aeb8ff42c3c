"""Whether two JSON schemas have no value in common, as far as that is plain to see.

`oneOf` forbids values that fit two branches. Where no value can, it means the same as `anyOf`,
and that is what a grammar can enforce.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

from ttt_core.constrained.merging import Flattener, Schema, as_list

_DEPTH = 4


def exclusive(branches: list[Any], flattener: Flattener, path: str) -> bool:
    """Whether no value fits two of the branches; False also if that is not plain."""
    flat = [flattener.flat(branch, path) for branch in branches]
    return all(_apart(a, b, flattener, path, _DEPTH) for a, b in combinations(flat, 2))


def _apart(left: Schema, right: Schema, flattener: Flattener, path: str, depth: int) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is False or right is False
    if "anyOf" in left or "anyOf" in right or depth == 0:
        return False
    if _kinds(left).isdisjoint(_kinds(right)):
        return True
    if "enum" in left and "enum" in right:
        return all(value not in right["enum"] for value in left["enum"])
    objects = _kinds(left) == _kinds(right) == {"object"}
    return objects and any(
        _lacks(left, name)
        or _lacks(right, name)
        or _apart(
            _flat(left, name, flattener, path),
            _flat(right, name, flattener, path),
            flattener,
            path,
            depth - 1,
        )
        for name in _required(left, right)
    )


def _required(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    """Names that one side requires; both must, unless the other one does not know the name."""
    both = [name for name in left.get("required", ()) if name in right.get("required", ())]
    only = {*left.get("required", ()), *right.get("required", ())} - set(both)
    return both + [name for name in only if _lacks(left, name) or _lacks(right, name)]


def _lacks(schema: dict[str, Any], name: str) -> bool:
    """Whether no object of this schema has the property."""
    closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
    return closed and name not in schema.get("properties", {})


def _flat(schema: dict[str, Any], name: str, flattener: Flattener, path: str) -> Schema:
    return flattener.flat(schema.get("properties", {}).get(name, True), path)


def _kinds(schema: dict[str, Any]) -> set[str]:
    everything = {"object", "array", "string", "number", "boolean", "null"}
    if "enum" in schema and "type" not in schema:
        return {_kind(value) for value in schema["enum"]}
    kinds = {str(kind) for kind in as_list(schema.get("type", list(everything)))}
    return {"number" if kind == "integer" else kind for kind in kinds}


def _kind(value: Any) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array"}
    return "null" if value is None else names.get(type(value), "object")
