"""Keywords together: what is generated fits both of them, or the schema is refused."""

from __future__ import annotations

import json
from datetime import date, datetime, time
from functools import cache
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]

from tests.constrained.writing import guide, shortest, write
from ttt_core.constrained import closed
from ttt_core.errors import ConfigError

SMALL: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 5}
MANY: list[Any] = [{"a": 1}, {"b": 1}, {"a": "x", "b": 2}, [1], [1, 2, 9], "a", "ab", 1, 0.5, True]

KEYWORDS: dict[str, list[dict[str, Any]]] = {
    "object": [
        {"properties": {"a": SMALL, "b": {"type": "null"}}},
        {"properties": {"a": {"type": "number", "maximum": 2}, "x1": SMALL}},
        {"required": ["a"]},
        {"required": ["x1", "b"]},
        {"additionalProperties": False},
        {"additionalProperties": SMALL},
        {"additionalProperties": {"enum": [2, 7, "x"]}},
        {"patternProperties": {"^x": {"enum": [1, 2]}}},
        {"patternProperties": {"^[ab]$": {"enum": [3, 9]}}},
        {"minProperties": 1},
        {"minProperties": 2},
        {"maxProperties": 1},
        {"maxProperties": 0},
        {"propertyNames": {"enum": ["a", "b", 3]}, "additionalProperties": SMALL},
        {"propertyNames": {"pattern": "^[ab]+$"}, "additionalProperties": SMALL},
        {"propertyNames": {"minLength": 70}, "additionalProperties": SMALL},
        {"propertyNames": {"maxLength": 2}, "additionalProperties": SMALL},
        {"propertyNames": {"pattern": "^[ab]+$", "minLength": 2}, "additionalProperties": SMALL},
        {"propertyNames": False, "additionalProperties": SMALL},
        {"unevaluatedProperties": False},
        {"anyOf": [{"required": ["a"]}, {"properties": {"b": SMALL}}]},
        {"enum": MANY},
        {"const": {"a": 1}},
        {"not": {}},
        {"if": {}, "then": {"required": ["a"]}},
        {"dependentRequired": {"a": ["b"]}},
    ],
    "array": [
        {"items": SMALL},
        {"items": {"maximum": 3}},
        {"items": False},
        {"prefixItems": [{"type": "integer"}]},
        {"prefixItems": [{"maximum": 2}, {"type": ["string", "integer"], "maxLength": 2}]},
        {"minItems": 1},
        {"minItems": 3},
        {"maxItems": 2},
        {"maxItems": 0},
        {"unevaluatedItems": False},
        {"uniqueItems": True},
        {"contains": {}},
        {"anyOf": [{"minItems": 2}, {"items": {"type": "null"}}]},
        {"enum": MANY},
        {"const": [1]},
    ],
    "string": [
        {"minLength": 3},
        {"minLength": 30},
        {"maxLength": 4},
        {"maxLength": 20},
        {"pattern": "^2.*$"},
        {"pattern": "[A-Z]"},
        {"format": "date"},
        {"format": "time"},
        {"format": "date-time"},
        {"format": "ipv4"},
        {"enum": ["2", "ABCD", "2020-02-29", "2021-02-29", 3]},
        {"const": "2020-02-29"},
        {"anyOf": [{"minLength": 12}, {"const": "A"}]},
    ],
    "number": [
        {"minimum": 0},
        {"minimum": -0.5},
        {"maximum": 0.001},
        {"maximum": 3},
        {"exclusiveMinimum": 0},
        {"exclusiveMinimum": 2},
        {"exclusiveMaximum": 0.001},
        {"exclusiveMaximum": 3},
        {"multipleOf": 0.5},
        {"multipleOf": 5},
        {"type": "integer"},
        {"enum": [0, 0.0005, 0.5, 2.5, 3, "a", True]},
        {"anyOf": [{"minimum": 2}, {"maximum": 0}]},
    ],
}
PAIRS = [
    (kind, left, right) for kind, said in KEYWORDS.items() for left, right in combinations(said, 2)
]


@cache
def checker() -> FormatChecker:
    """Of the formats that jsonschema looks at only with packages that are not here."""
    found = FormatChecker(formats=["ipv4"])

    def iso(text: str) -> str:
        return text.replace("Z", "+00:00")  # Python 3.10 does not read the Z.

    found.checks("date", raises=ValueError)(
        lambda said: not isinstance(said, str) or bool(date.fromisoformat(said))
    )
    found.checks("time", raises=ValueError)(
        lambda said: not isinstance(said, str) or time.fromisoformat(iso(said)).tzinfo is not None
    )
    found.checks("date-time", raises=ValueError)(
        lambda said: (
            not isinstance(said, str) or datetime.fromisoformat(iso(said)).tzinfo is not None
        )
    )
    return found


def agrees(schema: dict[str, Any], seeds: range) -> int:
    """Check what is written under a schema; return how many answers there were."""
    try:
        start = guide(schema)
        least = shortest(start)
    except ConfigError:
        return 0
    validator = Draft202012Validator(schema, format_checker=checker())
    for seed in seeds:
        text = write(start.restart(), least + 4 * (seed % 8), seed, sharpness=8)
        assert text is not None
        validator.validate(json.loads(text))
    return len(seeds)


def together(kind: str, left: dict[str, Any], right: dict[str, Any], form: str) -> dict[str, Any]:
    """Both keywords in one schema, or in two of which both must hold."""
    if form == "flat" and not left.keys() & right.keys():
        return {"type": kind, **left, **right}
    if form == "reference":
        return {"type": kind, "$ref": "#/$defs/A", **left, "$defs": {"A": right}}
    return {"type": kind, "allOf": [left, right]}


@settings(max_examples=150)
@given(
    st.sampled_from(PAIRS),
    st.sampled_from(["flat", "parts", "reference"]),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_what_is_written_fits_both_keywords(
    pair: tuple[str, dict[str, Any], dict[str, Any]], form: str, inside: bool, seed: int
) -> None:
    schema = together(*pair, form)
    if inside and form != "reference":
        schema = {"type": "object", "properties": {"in": schema}, "required": ["in"]}
    agrees(schema, range(seed, seed + 3))


A, B = {"a": 1}, {"b": 1}
TIGHT: dict[str, dict[str, Any]] = {
    "small": {"type": "number", "exclusiveMinimum": 0, "maximum": 0.001},
    "steps": {"type": "number", "exclusiveMinimum": 0, "maximum": 0.01, "multipleOf": 0.001},
    "large": {"type": "number", "minimum": 2.5, "exclusiveMaximum": 2.501},
    "listed": {"enum": [A, B], "required": ["a"]},
    "nested": {"enum": [[1], [A], ["x"]], "items": {"anyOf": [{"minLength": 1}, SMALL]}},
    "dates": {"enum": ["2021-02-29", "2020-02-29"], "format": "date"},
    "items": {"type": "array", "allOf": [{"prefixItems": [SMALL]}, {"items": {"maximum": 3}}]},
    "some": {
        "type": "object",
        "additionalProperties": SMALL,
        "propertyNames": {"enum": ["a", "b"]},
        "minProperties": 1,
    },
    "one": {
        "type": "object",
        "additionalProperties": SMALL,
        "propertyNames": {"enum": ["a", "b"]},
        "maxProperties": 1,
    },
    "none": {"type": "object", "additionalProperties": SMALL, "propertyNames": False},
    "bounded date": {"type": "string", "format": "date", "minLength": 3, "maxLength": 30},
}


@pytest.mark.parametrize("schema", TIGHT.values(), ids=TIGHT)
def test_what_can_be_kept_is_kept(schema: dict[str, Any]) -> None:
    assert agrees(schema, range(40))


LOST: dict[str, dict[str, Any]] = {
    "propertyNames": {
        "type": "object",
        "additionalProperties": SMALL,
        "propertyNames": {"pattern": "^a", "minLength": 3},
    },
    "allOf (patternProperties": {
        "type": "object",
        "allOf": [{"patternProperties": {"^x": SMALL}}, {"additionalProperties": False}],
    },
    "minProperties": {
        "type": "object",
        "patternProperties": {"^x": SMALL},
        "minProperties": 2,
    },
    "unevaluatedItems": {"type": "array", "unevaluatedItems": False, "maxItems": 2},
    "unevaluatedProperties": {"type": "object", "unevaluatedProperties": False},
    "pattern": {"type": "string", "format": "date", "pattern": "^2.*$"},
    "not": {"type": "string", "not": {}},
    "if": {"type": "array", "if": {}, "then": {"minItems": 1}},
    "format": {"enum": [["a"]], "items": {"format": "email"}},
}


@pytest.mark.parametrize("keyword", LOST)
def test_what_would_be_lost_is_refused_or_left_out(keyword: str) -> None:
    with pytest.raises(ConfigError) as caught:
        closed(LOST[keyword])
    assert f"the schema at $ has {keyword}" in str(caught.value)
    text = write(guide(LOST[keyword], strict=False), 200)
    assert text is not None
    Draft202012Validator({"type": LOST[keyword].get("type", "array")}).validate(json.loads(text))


def test_own_pattern_of_a_date_stays_where_one_of_both_must_go() -> None:
    said = {"type": "string", "format": "date", "pattern": "^2.*$"}
    assert closed(said, strict=False)["pattern"] == "^2.*$"


@pytest.mark.parametrize("said", [{"minLength": 30}, {"maxLength": 4}])
def test_date_of_a_length_that_none_has_is_refused(said: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="Unsatisfiable"):
        closed({"type": "string", "format": "date", **said})


@pytest.mark.parametrize("values", [[B], [[1]], []])
def test_list_in_which_nothing_fits_is_refused(values: list[Any]) -> None:
    with pytest.raises(ConfigError, match="no value fits"):
        closed({"type": "object", "enum": values, "required": ["a"]})


def nested(depth: int) -> dict[str, Any]:
    """Objects within each other."""
    return {"type": "object", "properties": {"a": nested(depth - 1)}} if depth else {}


def chain(length: int) -> dict[str, Any]:
    """Definitions, each of which refers to the next one."""
    parts: dict[str, Any] = {
        f"D{i}": {"type": "object", "properties": {"a": {"$ref": f"#/$defs/D{i + 1}"}}}
        for i in range(length)
    }
    return {"$ref": "#/$defs/D0", "$defs": {**parts, f"D{length}": SMALL}}


@pytest.mark.parametrize("schema", [nested(100), nested(180), chain(400)])
def test_nested_too_deeply_is_called_that(schema: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="nested too deeply"):
        closed(schema)


@pytest.mark.parametrize("schema", [nested(40), chain(60)])
def test_what_is_nested_less_is_taken(schema: dict[str, Any]) -> None:
    assert agrees(schema, range(2))
