"""Closed schemas: finite, enforceable, and never looser than what was asked for."""

from __future__ import annotations

import copy
import json
from typing import Any, Literal, Optional

import pytest
from pydantic import BaseModel, Field

from tests.constrained.writing import guide, shortest, write
from ttt_core.constrained import closed
from ttt_core.constrained.growth import growth, phrases
from ttt_core.constrained.schema import MAX_ITEMS, MAX_LENGTH
from ttt_core.errors import ConfigError


def property_of(schema: dict[str, Any]) -> dict[str, Any]:
    """A required property, closed."""
    whole = closed({"type": "object", "properties": {"a": schema}, "required": ["a"]})
    found: dict[str, Any] = whole["properties"]["a"]
    return found


def test_what_may_be_long_gets_a_limit() -> None:
    assert closed({"type": "string"})["maxLength"] == MAX_LENGTH
    assert closed({"type": "string", "minLength": 9999})["maxLength"] == 9999
    assert closed({"type": "array", "items": {"type": "null"}})["maxItems"] == MAX_ITEMS
    assert closed({"type": "object", "properties": {}})["additionalProperties"] is False
    assert {"minimum", "maximum"} <= closed({"type": "integer"}).keys()
    assert {"minimum", "maximum", "multipleOf"} <= closed({"type": "number"}).keys()


@pytest.mark.parametrize("said", [{"maxLength": 3}, {"minLength": 0}, {"maxLength": 0}])
def test_what_the_schema_says_of_strings_stays(said: dict[str, int]) -> None:
    assert property_of({"type": "string", **said}).items() >= said.items()


def test_required_strings_are_not_empty() -> None:
    assert property_of({"type": "string"})["minLength"] == 1
    assert property_of({"type": "string", "maxLength": 0})["minLength"] == 0
    assert "minLength" not in property_of({"type": "string", "enum": ["", "a"]})
    assert "minLength" not in closed({"properties": {"a": {"type": "string"}}})["properties"]["a"]


@pytest.mark.parametrize(
    "keyword",
    [
        {"uniqueItems": True},
        {"not": {"type": "null"}},
        {"if": {"maxItems": 1}, "then": {"minItems": 1}},
        {"contains": {"type": "null"}},
    ],
)
def test_what_cannot_be_enforced_is_named_with_its_place(keyword: dict[str, Any]) -> None:
    part = {"type": "array", "items": {"type": "null"}, **keyword}
    schema = {"type": "object", "properties": {"x": {"type": "array", "items": part}}}
    with pytest.raises(ConfigError, match=rf"\$\.properties\.x\.items has {next(iter(keyword))}"):
        closed(schema)
    text = write(guide(schema, strict=False), 60)
    assert text is not None
    assert isinstance(json.loads(text), dict)


def test_pattern_that_no_automaton_has_is_refused_or_left_out() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "string", "pattern": "(?=a)b"}}}
    with pytest.raises(ConfigError, match=r"\$\.properties\.x cannot be enforced: .*look-ahead"):
        closed(schema)
    part = closed(schema, strict=False)["properties"]["x"]
    assert part == {"type": "string", "maxLength": MAX_LENGTH}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    "schema",
    [
        {"enum": []},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"type": "string", "minLength": 5, "maxLength": 2},
        {"$ref": "#/$defs/missing"},
        {"$ref": "https://example.org/schema"},
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}},
        {"type": "complex"},
        {"type": "object", "properties": {"a": 3}},
        {"type": "string", "minLength": "long"},
        {"enum": [float("nan")]},
        {"default": object()},
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_schema_or_has_no_value_is_refused(schema: Any, strict: bool) -> None:
    with pytest.raises(ConfigError):
        closed(schema, strict=strict)


def test_one_of_with_common_values_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the schema at \$ has oneOf"):
        closed({"oneOf": [{"type": "number"}, {"type": "integer"}]})
    assert "anyOf" in closed({"oneOf": [{"type": "string"}, {"type": "integer"}]})


class Cat(BaseModel):
    """A cat."""

    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    """A dog."""

    kind: Literal["dog"] = "dog"
    friend: Optional[Cat] = None  # noqa: UP045


class Owner(BaseModel):
    """All that pydantic writes in its own way."""

    name: str = Field(description="who", examples=["Ann"])
    pet: Cat | Dog = Field(discriminator="kind")
    ages: dict[str, int]
    anything: Any
    pair: tuple[int, str]
    ratio: float = Field(gt=0, lt=1)
    others: list[Owner] = []


def test_pydantic_models_are_written_and_read() -> None:
    schema = Owner.model_json_schema()
    before = copy.deepcopy(schema)
    start = guide(schema)
    assert schema == before
    for seed in range(12):
        text = write(start.restart(), shortest(start) + 20 * seed, seed)
        assert text is not None
        assert Owner.model_validate_json(text).name


def test_all_of_is_merged_before_it_is_closed() -> None:
    base = {"properties": {"a": {"type": "integer", "minimum": 2}}, "required": ["a"]}
    more = {"properties": {"a": {"type": "number", "maximum": 4}, "b": {"const": 1}}}
    schema = {"type": "object", "allOf": [base, {**more, "required": ["b"]}]}
    text = write(guide(schema), 40)
    assert text is not None
    assert json.loads(text) in [{"a": a, "b": 1} for a in (2, 3, 4)]


def test_growth_counts_what_an_opened_object_requires() -> None:
    part = {"type": "object", "properties": {"n" * 90: {"type": "null"}}, "required": ["n" * 90]}
    small = growth('start: %json {"type": "array", "items": {"type": "null"}}')
    assert growth("start: %json " + json.dumps({"type": "array", "items": part})) > small + 90


def test_phrases_are_what_stands_outside_of_schemas() -> None:
    grammar = 'start: t "<call>\\n" %json {"const": "not this"}\nt[lazy]: /(?s:.*)<\\/think>\\n/'
    assert {"</think>\n", "<call>\n"} <= set(phrases(grammar))
    assert "not this" not in phrases(grammar)
