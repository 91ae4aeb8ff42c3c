"""How many tokens one token can make necessary: an opened object must be filled and closed.

An estimate from above, read from the grammar's text. It decides from when on an answer is watched
closely, token by token.
"""

from __future__ import annotations

import json
import re
from typing import Any

_FEW = 64
"""For numbers, escapes, and text between schemas."""

_NESTED = 2
"""Objects or lists that one token opens, as `[{"` does."""

_MOST = 4096

_SPACES = {"n": "\n", "t": "\t", "r": "\r"}


def growth(grammar: str) -> int:
    """Return an estimate for a grammar with `%json` in it, in tokens."""
    first, *pieces = grammar.split("%json ")
    try:
        parsed = [json.JSONDecoder().raw_decode(piece) for piece in pieces]
    except ValueError:  # A schema that spells "%json " itself, or one with comments.
        return _MOST
    rest = [piece[end:] for piece, (_, end) in zip(pieces, parsed, strict=True)]
    text = "".join([first, *rest]).strip()
    # What must be there from the beginning is no growth.
    inner = text == "start:" and len(pieces) == 1
    try:
        sizes = [_largest(schema, inner=inner) for schema, _ in parsed]
    except RecursionError:  # A long chain of definitions.
        return _MOST
    return min(_MOST, _NESTED * max(sizes, default=0) + len(text) + _FEW)


def phrases(grammar: str) -> list[str]:
    """Return texts of a grammar outside its schemas that may end free text in it.

    Its strings, and what its regular expressions end with: `</think>` in `/(?s:.*)<\\/think>/`.
    """
    outside = [grammar.partition("%json ")[0]]
    for piece in grammar.split("%json ")[1:]:
        try:
            outside.append(piece[json.JSONDecoder().raw_decode(piece)[1] :])
        except ValueError:
            continue
    text = "".join(outside)
    strings = [json.loads(found) for found in re.findall(r'"(?:[^"\\\n]|\\.)+"', text)]
    tails = re.findall(r"[)*+?\]}]((?:[^()*+?\[\]{}|\\/\n]|\\.)+)/", text)
    plain = [re.sub(r"\\(.)", lambda found: _SPACES.get(found[1], found[1]), t) for t in tails]
    return list(dict.fromkeys([*plain, *strings]))


def _largest(schema: Any, *, inner: bool) -> int:
    sizes = _Sizes(schema)
    whole = sizes.least(schema)
    return sizes.largest if inner else max(sizes.largest, min(whole, _MOST))


class _Sizes:
    """Characters of the shortest value of each part of a closed schema.

    Attributes:
        largest: The largest of them.
    """

    def __init__(self, root: Any) -> None:
        self.largest = 0
        self._definitions = root.get("$defs", {}) if isinstance(root, dict) else {}
        self._known: dict[str, int] = {}

    def least(self, schema: Any) -> int:
        """Return the size of the shortest value, and note those of the parts."""
        if not isinstance(schema, dict):
            return _MOST
        if "$ref" in schema:
            return self._definition(schema["$ref"])
        return self._size(schema)

    def _part(self, schema: Any) -> int:
        size = self.least(schema)
        if size < _MOST:
            self.largest = max(self.largest, size)
        return size

    def _size(self, schema: dict[str, Any]) -> int:
        if "anyOf" in schema:
            return min((self._part(part) for part in schema["anyOf"]), default=_MOST)
        if "enum" in schema:
            return max((len(json.dumps(value)) for value in schema["enum"]), default=_MOST)
        if schema.get("type") == "object":
            return self._object(schema)
        if schema.get("type") == "array":
            fixed = [self._part(part) + 1 for part in schema.get("prefixItems", ())]
            item = self._part(schema["items"]) if "items" in schema else _FEW
            least = int(schema.get("minItems", 0))
            return 2 + sum(fixed[:least]) + max(0, least - len(fixed)) * (item + 1)
        if schema.get("type") == "string":
            return int(schema.get("minLength", 0)) + 2
        return 20

    def _object(self, schema: dict[str, Any]) -> int:
        required = schema.get("required", ())
        sizes = {
            name: len(json.dumps(name)) + 2 + self._part(part)
            for name, part in schema.get("properties", {}).items()
        }
        free = [self._part(part) for part in schema.get("patternProperties", {}).values()]
        entries = int(schema.get("minProperties", 0)) * (8 + min(free, default=0))
        return 2 + sum(sizes.get(name, _FEW) for name in required) + entries

    def _definition(self, reference: str) -> int:
        """A part within itself counts as endless: the shortest value does not take that way."""
        if reference not in self._known:
            self._known[reference] = _MOST
            name = reference.rpartition("/")[2]
            self._known[reference] = self._part(self._definitions.get(name))
        return self._known[reference]
