"""JSON schemas without `$ref` and `allOf` at their top: several that must all hold become one.

Objects that are closed one by one, with `additionalProperties: false` on each, would exclude each
other's properties; so they are merged first and closed then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from ttt_core.errors import ConfigError

Schema = dict[str, Any] | bool

_LARGEST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_SMALLEST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_LISTS = ("allOf", "required")
_CHOICES = 64
"""Branches of a merged `anyOf`."""

KEYWORDS = frozenset(
    (
        *("$ref", "allOf", "anyOf", "oneOf", "const", "enum", "type", "discriminator"),
        *("properties", "patternProperties", "additionalProperties", "required"),
        *("items", "prefixItems", "pattern", "format", "multipleOf", "propertyNames"),
        *_LARGEST,
        *_SMALLEST,
    )
)
"""What says something about a value and is understood here."""

REFUSED: dict[str, Any] = {
    "not": False,
    "if": None,
    "uniqueItems": False,
    "contains": None,
    "dependentRequired": {},
    "dependentSchemas": {},
    "dependencies": {},
    "unevaluatedItems": True,
    "unevaluatedProperties": True,
    "$dynamicRef": None,
    "$recursiveRef": None,
}
"""What says something about a value that no grammar here can enforce, and when it says nothing."""


class Flattener:
    """Resolves and merges within one document."""

    def __init__(self, root: dict[str, Any], refuse: Callable[[str, str], None]) -> None:
        """Take the document, and what to call with keyword and path where one cannot be kept."""
        self._root = root
        self.refuse = refuse

    def flat(self, schema: Any, path: str, seen: tuple[str, ...] = ()) -> Schema:
        """Return an equal schema without `$ref` and `allOf` at its top, and without annotations.

        Raises:
            ConfigError: It is no schema, refers to what is not there, or refers to itself without
                anything in between.
        """
        node = self._known(schema, path)
        if isinstance(node, bool):
            return node
        merged: Schema = {k: v for k, v in node.items() if k not in ("$ref", "allOf")}
        if "$ref" in node:
            reference = node["$ref"]
            if reference in seen:
                raise ConfigError(f"the schema at {path} refers to itself and to nothing else")
            target = self.flat(self._resolve(reference, path), path, (*seen, reference))
            merged = self.merge(target, merged, path)
        for index, part in enumerate(node.get("allOf", ())):
            where = f"{path}.allOf[{index}]"
            merged = self.merge(merged, self.flat(part, where, seen), path)
        return merged

    def merge(self, left: Schema, right: Schema, path: str) -> Schema:
        """Return a flat schema of the values that fit both flat ones."""
        if isinstance(left, bool):
            return right if left else False
        if isinstance(right, bool):
            return left if right else False
        out = {**left, **right}
        for key in left.keys() & right.keys():
            if left[key] != right[key]:
                out[key] = self._both(key, left[key], right[key], path)
        if "properties" in left or "properties" in right:
            out["properties"] = _properties(left, right)
        if "prefixItems" in left or "prefixItems" in right:
            out["prefixItems"] = _prefix(left, right)
        if _crossed(left, right) or _crossed(right, left):
            self.refuse("allOf (patternProperties and other properties)", path)
        return False if out.get("type") == [] or out.get("enum") == [] else out

    def _both(self, key: str, left: Any, right: Any, path: str) -> Any:
        if key in _LARGEST:
            return max(left, right)
        if key in _SMALLEST:
            return min(left, right)
        if key == "type":
            return _types(as_list(left), as_list(right))
        if key == "enum":
            return [value for value in left if value in right]
        if key in _LISTS:
            return [*left, *(item for item in right if item not in left)]
        if key == "anyOf" and len(left) * len(right) <= _CHOICES:
            return [{"allOf": [a, b]} for a in left for b in right]
        if key in ("items", "additionalProperties"):
            return all_of(left, right)
        if key == "prefixItems":  # See _prefix.
            return left
        if key in ("properties", "patternProperties"):
            return {**left, **{k: all_of(left.get(k, True), v) for k, v in right.items()}}
        self.refuse(f"allOf (two different values of {key})", path)
        return left

    def _known(self, schema: Any, path: str) -> Schema:
        """Return what says something about a value; refuse what cannot be kept."""
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise ConfigError(
                f"the schema at {path} is a {type(schema).__name__}; expected an object, true or "
                f"false"
            )
        for key, nothing in REFUSED.items():
            if schema.get(key) not in (None, nothing):
                self.refuse(key, path)
        node = {key: value for key, value in schema.items() if key in KEYWORDS}
        if "const" in node:
            const = node.pop("const")
            node["enum"] = [const] if const in node.get("enum", [const]) else []
        return _tuple_items(node, schema)

    def _resolve(self, reference: Any, path: str) -> Any:
        found: Any = self._root
        try:
            head, *parts = unquote(str(reference)).split("/")
            if head != "#":
                raise KeyError(head)
            for part in parts:
                name = part.replace("~1", "/").replace("~0", "~")
                found = found[int(name) if isinstance(found, list) else name]
        except (KeyError, IndexError, ValueError, TypeError):
            raise ConfigError(
                f"the schema at {path} refers to {reference!r}, which is not in it; expected a "
                f"place in the same schema, like '#/$defs/Name'"
            ) from None
        return found


def as_list(value: Any) -> list[Any]:
    """Return a list of one for what is no list."""
    return value if isinstance(value, list) else [value]


def all_of(left: Any, right: Any) -> Any:
    """Return a schema of what fits both."""
    if left is True or left == right:
        return right
    return left if right is True else {"allOf": [left, right]}


def _tuple_items(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Say in today's words what drafts before 2020-12 said with a list in `items`."""
    if isinstance(node.get("items"), list):
        node["prefixItems"] = node["items"]
        node["items"] = schema.get("additionalItems", True)
    return node


def _types(left: list[str], right: list[str]) -> list[str]:
    both = [kind for kind in left if kind in right]
    if ("integer" in left and "number" in right) or ("number" in left and "integer" in right):
        both += ["integer"] if "integer" not in both and "number" not in both else []
    return both


def _properties(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """A property that one side does not name must fit its `additionalProperties`."""
    names = [*left.get("properties", ()), *right.get("properties", ())]
    return {
        name: all_of(_property(left, name), _property(right, name)) for name in dict.fromkeys(names)
    }


def _prefix(left: dict[str, Any], right: dict[str, Any]) -> list[Any]:
    """An item that one side does not list must fit its `items`."""
    count = max(len(side.get("prefixItems", ())) for side in (left, right))
    return [all_of(_item(left, index), _item(right, index)) for index in range(count)]


def _item(schema: dict[str, Any], index: int) -> Any:
    first = schema.get("prefixItems", [])
    return first[index] if index < len(first) else schema.get("items", True)


def _crossed(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Whether the left side's patterns decide what the right side's properties must fit."""
    if "patternProperties" not in left:
        return False
    rest = left.get("additionalProperties", True) is not True and "properties" in right
    return rest or right.get("additionalProperties", True) is not True


def _property(schema: dict[str, Any], name: str) -> Any:
    own = schema.get("properties", {})
    if name in own:
        return own[name]
    return True if "patternProperties" in schema else schema.get("additionalProperties", True)
