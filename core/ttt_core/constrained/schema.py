"""JSON schemas that a small model cannot run away with: everything in them has an end.

What is generated under a closed schema also fits the original one. The reverse is not so: a
closed schema has no open objects, no endless strings and no endless digits.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from ttt_core.constrained.checking import FORMATS, PATTERNS, fits
from ttt_core.constrained.exclusive import exclusive
from ttt_core.constrained.merging import KEYWORDS, Flattener, Schema, all_of, as_list
from ttt_core.constrained.numbers import bounded_integer, bounded_number
from ttt_core.errors import ConfigError

MAX_LENGTH = 512
"""Characters of a string whose schema does not say."""

_LONG_PATTERN = 8192
"""Characters of a string whose pattern asks for more than MAX_LENGTH."""

MAX_ITEMS = 32
"""Items of a list whose schema does not say."""

MAX_ENTRIES = 16
"""Entries of an object with free names whose schema does not say."""

MAX_KEY = 64
"""Characters of a free name."""

_KINDS = {
    "object": (
        *("properties", "required", "additionalProperties", "patternProperties"),
        *("minProperties", "maxProperties", "propertyNames"),
    ),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "minLength", "maxLength", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
"""What a schema without `type` is about, told from its other keywords."""

_PLAIN: list[dict[str, Any]] = [{"type": kind} for kind in ("string", "number", "boolean", "null")]
_ANYTHING: dict[str, Any] = {
    "anyOf": [
        *_PLAIN,
        {"type": "array", "items": {"anyOf": _PLAIN}},
        {"type": "object", "additionalProperties": {"anyOf": _PLAIN}},
    ]
}
"""What stands for a schema that allows everything."""

_ROUNDS = 16


def closed(schema: dict[str, Any], *, strict: bool = True) -> dict[str, Any]:
    """Return a schema, as a new object, that can be enforced and whose values are all finite.

    Objects get no properties but their own, and what may be long gets a limit where the schema
    has none: the constants of this file and of numbers.py. Required strings are not empty. `$ref`
    may lead back to where it stands, as long as there is another way out.

    Args:
        schema: JSON schema of any draft from 6 on, as pydantic 1 and 2 write it, for example.
        strict: Refuse what cannot be enforced; else it is left out, and what is generated may not
            fit the original schema in this respect.

    Raises:
        ConfigError: It is no schema, has no value, or, if strict, has a keyword that cannot be
            enforced; the message names it and where it is.
    """
    try:
        json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the schema is not JSON: {error}") from None
    try:
        document = _Closer(schema, strict=strict).document()
    except ConfigError:
        raise
    except RecursionError:
        raise ConfigError(
            "the schema is nested too deeply: parts within parts, definitions that refer to each "
            "other in a long chain, or one that is merged with itself; make it flatter"
        ) from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"the schema has a keyword with a value of a wrong type: {error}"
        ) from None
    return _enforceable(document, strict=strict)


def json_grammar(schema: dict[str, Any]) -> str:
    """Return Lark for JSON that fits a closed schema, spaced the way json.dumps does it.

    Templates show schemas and calls that way. Models learned to write them so, and what a grammar
    forbids is what they would say next. Free whitespace would be the easiest way never to answer.
    """
    style = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    return "%json " + json.dumps({"x-guidance": style, **schema})


class _Closer:
    """Closes one document. What is referred to is closed once and referred to again."""

    def __init__(self, root: dict[str, Any], *, strict: bool) -> None:
        self._root = root
        self._strict = strict
        self._flattener = Flattener(root, self._refuse)
        self._names: dict[str, str] = {}
        self._definitions: dict[str, Any] = {}

    def document(self) -> dict[str, Any]:
        """The closed document with its definitions."""
        top = self.close(self._root, "$")
        if isinstance(top, bool):
            raise ConfigError("no value fits the schema; look for types that exclude each other")
        return {**top, "$defs": self._definitions} if self._definitions else top

    def close(self, schema: Any, path: str, *, filled: bool = False) -> Any:
        """Close a part. `filled`: a string in this place is not empty."""
        if isinstance(schema, dict) and ("$ref" in schema or "allOf" in schema):
            return self._reference(schema, path)
        node = self._flattener.flat(schema, path)
        if isinstance(node, bool):
            return self._anything() if node else False
        for choice in ("anyOf", "oneOf"):
            if choice in node:
                return self._choice(node, choice, path, filled=filled)
        if "enum" in node:
            return self._listed(node, path)
        kinds = _kinds(node)
        if not kinds:
            return self._anything()
        parts = [self._kind(kind, node, path, filled=filled) for kind in kinds]
        return parts[0] if len(parts) == 1 else {"anyOf": parts}

    def _listed(self, node: dict[str, Any], path: str) -> Any:
        """Keep the listed values that fit. What scalars must be like, llguidance looks at."""
        said = {key: value for key, value in node.items() if key != "enum"}
        plain = {"format": node["format"]} if node.get("format") in PATTERNS else {}
        values = [
            value
            for value in node["enum"]
            if fits(value, said if isinstance(value, dict | list) else plain, self._flattener, path)
        ]
        kept = ("type", *_KINDS["string"], *_KINDS["number"])
        rest = {key: said[key] for key in kept if key in said and key not in plain}
        return copy.deepcopy({"enum": values, **rest}) if values else False

    def _anything(self) -> dict[str, Any]:
        if "Any" not in self._definitions:
            self._definitions["Any"] = self.close(_ANYTHING, "$")
        return {"$ref": "#/$defs/Any"}

    def _reference(self, schema: dict[str, Any], path: str) -> dict[str, Any]:
        said = {k: v for k, v in schema.items() if k in KEYWORDS}
        key = json.dumps(said, sort_keys=True)
        if key not in self._names:
            name = self._names[key] = _name(schema, len(self._names))
            target = self._flattener.flat(schema, path)
            self._definitions[name] = self.close(target, path)
        return {"$ref": f"#/$defs/{self._names[key]}"}

    def _choice(self, node: dict[str, Any], key: str, path: str, *, filled: bool) -> Any:
        base = {k: v for k, v in node.items() if k not in (key, "discriminator")}
        tag = node.get("discriminator", {}).get("propertyName")
        branches = node[key]
        if tag is not None:  # Pydantic wants the tag, also where it has a default.
            base["required"] = [*base.get("required", ()), tag]
        if key == "oneOf":
            tagged = [all_of({"required": base.get("required", [])}, one) for one in branches]
            if not exclusive(tagged, self._flattener, path):
                self._refuse("oneOf (whose branches may have values in common)", path)
        parts = []
        for index, branch in enumerate(branches):
            where = f"{path}.{key}[{index}]"
            whole = {"allOf": [base, branch]} if base else branch
            part = self.close(whole, where, filled=filled)
            parts += [part] if part is not False else []
        return {"anyOf": parts} if parts else False

    def _kind(self, kind: str, node: dict[str, Any], path: str, *, filled: bool) -> dict[str, Any]:
        if kind == "object":
            return self._object(node, path)
        if kind == "array":
            return self._array(node, path)
        if kind == "string":
            if "pattern" in node and node.get("format") in PATTERNS:
                self._refuse("pattern (of a string with the format of a date or time)", path)
            return _string(node, filled=filled)
        if kind == "integer":
            return bounded_integer(node)
        if kind == "number":
            return bounded_number(node)
        if kind in ("boolean", "null"):
            return {"type": kind}
        raise ConfigError(f"the schema at {path} has the type {kind!r}, which JSON has not")

    def _object(self, node: dict[str, Any], path: str) -> dict[str, Any]:
        rest = node.get("additionalProperties", False)
        names = dict.fromkeys([*node.get("properties", ()), *node.get("required", ())])
        if not names and "patternProperties" not in node and rest is not False:
            return self._map(node, path)
        if "propertyNames" in node:
            self._refuse("propertyNames (of an object with properties)", path)
        required = list(node.get("required", ()))
        properties = {
            name: self.close(
                # An open object may have what it requires without a word about it.
                node.get("properties", {}).get(name, node.get("additionalProperties", True)),
                f"{path}.properties.{name}",
                filled=name in required,
            )
            for name in names
        }
        out: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
        for pattern, value in node.get("patternProperties", {}).items():
            values = self.close(value, f"{path}.patternProperties.{pattern}")
            out.setdefault("patternProperties", {})[pattern] = values
        counts: dict[str, Any] = {
            k: node[k] for k in ("minProperties", "maxProperties") if k in node
        }
        if "patternProperties" in out and node.get("minProperties", 0) > len(required) + 1:
            # The same name may come twice.
            self._refuse("minProperties (where names are free)", path)
        if "patternProperties" in out and all(name in required for name in names):
            fixed = len(names) + MAX_ENTRIES
            counts.setdefault("maxProperties", max(fixed, counts.get("minProperties", 0)))
        return {**out, **counts, "additionalProperties": False}

    def _map(self, node: dict[str, Any], path: str) -> dict[str, Any]:
        """Close an object with free names."""
        least = node.get("minProperties", 0)
        values = self.close(node["additionalProperties"], f"{path}.additionalProperties")
        keys = self._flattener.flat(node.get("propertyNames", True), f"{path}.propertyNames")
        if keys is False or (isinstance(keys, dict) and "enum" in keys):
            return self._names_listed(keys, values, node, path)
        keys = {} if isinstance(keys, bool) else keys
        if least > 1:  # The same name may come twice.
            self._refuse("minProperties (above 1, where names are free)", path)
        unknown = keys.keys() - {"type", "pattern", "minLength", "maxLength"}
        both = "pattern" in keys and ("minLength" in keys or "maxLength" in keys)
        if unknown or both or "string" not in as_list(keys.get("type", "string")):
            self._refuse("propertyNames", path)
        shortest = max(1, keys.get("minLength", 1))
        lengths = f"{shortest},{keys.get('maxLength', max(MAX_KEY, shortest))}"
        most = node.get("maxProperties", max(MAX_ENTRIES, least))
        return {
            "type": "object",
            "patternProperties": {keys.get("pattern", f"^.{{{lengths}}}$"): values},
            "minProperties": least,
            "maxProperties": most,
            "additionalProperties": False,
        }

    def _names_listed(
        self, keys: Schema, values: Any, node: dict[str, Any], path: str
    ) -> dict[str, Any]:
        """Close an object whose names are all known, and none required."""
        listed = keys.get("enum", []) if isinstance(keys, dict) else []
        where = f"{path}.propertyNames"
        names = [n for n in listed if isinstance(n, str) and fits(n, keys, self._flattener, where)]
        counts: dict[str, Any] = {
            k: node[k] for k in ("minProperties", "maxProperties") if k in node
        }
        return {
            "type": "object",
            "properties": {name: copy.deepcopy(values) for name in names},
            **counts,
            "additionalProperties": False,
        }

    def _array(self, node: dict[str, Any], path: str) -> dict[str, Any]:
        out: dict[str, Any] = {"type": "array"}
        least = node.get("minItems", 0)
        if "prefixItems" in node:
            out["prefixItems"] = [
                self.close(item, f"{path}.prefixItems[{index}]")
                for index, item in enumerate(node["prefixItems"])
            ]
            node = {"maxItems": max(len(out["prefixItems"]), least), **node}
        full = len(out.get("prefixItems", ())) >= node.get("maxItems", MAX_ITEMS)
        out["items"] = False if full else self.close(node.get("items", True), f"{path}.items")
        most = node.get("maxItems", max(MAX_ITEMS, least))
        return {**out, "minItems": least, "maxItems": most}

    def _refuse(self, keyword: str, path: str) -> None:
        if self._strict:
            raise ConfigError(
                f"the schema at {path} has {keyword}, which cannot be enforced; leave it out and "
                f"check it afterwards, or pass strict=False"
            )


def _name(schema: dict[str, Any], number: int) -> str:
    """A definition's new name: what it was called and a number, in characters of a plain `$ref`."""
    called = str(schema.get("$ref", "part")).rpartition("/")[2]
    return "".join(c for c in called if c.isalnum() and c.isascii()) + f"_{number}"


def _kinds(node: dict[str, Any]) -> list[str]:
    if "type" in node:
        kinds = list(dict.fromkeys(as_list(node["type"])))
        return [k for k in kinds if k != "integer" or "number" not in kinds]
    return [kind for kind, keys in _KINDS.items() if any(key in node for key in keys)][:1]


def _string(node: dict[str, Any], *, filled: bool) -> dict[str, Any]:
    out: dict[str, Any] = {k: node[k] for k in ("minLength", "maxLength", "pattern") if k in node}
    if node.get("format") in PATTERNS:
        out.setdefault("pattern", PATTERNS[node["format"]])
    if node.get("format") in FORMATS:
        out["format"] = node["format"]
    plain = "pattern" not in out and "format" not in out
    if filled and plain and "minLength" not in out:
        out["minLength"] = min(1, out.get("maxLength", 1))
    if "maxLength" not in out:
        limit = FORMATS.get(out.get("format", ""), MAX_LENGTH)
        out["maxLength"] = max(limit, out.get("minLength", 0))
        long = {**out, "maxLength": _LONG_PATTERN}
        if "pattern" in out and _reason(_typed(out)) and not _reason(_typed(long)):
            out = long
    return _typed(out)


def _typed(out: dict[str, Any]) -> dict[str, Any]:
    return {"type": "string", **out}


def _enforceable(document: dict[str, Any], *, strict: bool) -> dict[str, Any]:
    """Make sure that llguidance takes a closed document.

    Its own checks go beyond keywords: patterns with lookahead, ranges without a value, ...
    """
    for _ in range(_ROUNDS):
        reason = _reason(document)
        if not reason:
            return document
        if "recursion limit" in reason:
            raise ConfigError(
                "the schema is nested too deeply for llguidance, which takes about 60 objects "
                "within each other; move inner parts to $defs"
            )
        node, path = _blamed(document, document.get("$defs", {}), "$")
        if strict or "Unsatisfiable" in reason or not (isinstance(node, dict) and _relax(node)):
            raise ConfigError(f"the schema at {path} cannot be enforced: {reason}")
    raise ConfigError(f"the schema cannot be enforced: {_reason(document)}")


def _blamed(node: Any, definitions: dict[str, Any], path: str) -> tuple[Any, str]:
    """Return the smallest part that llguidance does not take, and where it is."""
    for part, where in _parts(node) if isinstance(node, dict) else ():
        alone = {"$defs": definitions, "anyOf": [part]}
        if part is not False and _reason(alone):
            return _blamed(part, definitions, path + where)
    return node, path


def _parts(node: Any) -> Iterator[tuple[Any, str]]:
    for key in ("$defs", "properties", "patternProperties"):
        for name, part in node.get(key, {}).items():
            yield part, f".{key}.{name}"
    for key in ("anyOf", "prefixItems"):
        for index, part in enumerate(node.get(key, ())):
            yield part, f".{key}[{index}]"
    if "items" in node:
        yield node["items"], ".items"


def _relax(node: dict[str, Any]) -> bool:
    """Leave out what a part asks for beyond its type; False if there is nothing to leave out."""
    before = dict(node)
    for key in ("format", "pattern", "multipleOf", "minProperties", "maxProperties"):
        node.pop(key, None)
    if node.get("type") in ("integer", "number") and before == node:
        node.clear()
        node.update(bounded_number({}) if before["type"] == "number" else bounded_integer({}))
    elif node.get("type") == "number":
        node.update(bounded_number(node))
    return node != before


def _reason(document: Any) -> str:
    from llguidance import LLMatcher

    grammar = LLMatcher.grammar_from_lark("start: " + json_grammar(document))
    is_error, messages = LLMatcher.validate_grammar_with_warnings(grammar)
    if not is_error:
        return ""
    first, *rest = messages[0].strip().split("\n")
    detail = [line for line in rest if line.startswith("error:")]  # Others quote the schema.
    return " ".join([first.removeprefix("at 1(8): failed to compile JSON schema: "), *detail])
