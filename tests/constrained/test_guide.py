"""Whatever a model would say: what comes out is valid, and ends within the budget."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from tests.constrained.writing import (
    ends,
    guide,
    shortest,
    size,
    token_of,
    tokenizer,
    vocabulary,
    write,
)
from ttt_core.constrained import closed, json_grammar
from ttt_core.errors import ConfigError

NAMES = st.sampled_from(["a", "b", "the name", "größe", "\U0001f642", 'say "x"', "<tool_call>"])
SEEDS = st.integers(0, 2**31)


def strings() -> st.SearchStrategy[dict[str, Any]]:
    lengths = st.tuples(st.integers(0, 5), st.integers(0, 20)).map(
        lambda two: {"minLength": two[0], "maxLength": two[0] + two[1]}
    )
    patterns = st.sampled_from(["^[A-Z]{2}-\\d+$", "^(red|green)$", "b"])
    return st.one_of(
        st.just({"type": "string"}),
        lengths.map(lambda said: {"type": "string", **said}),
        patterns.map(lambda said: {"type": "string", "pattern": said}),
        st.sampled_from(["date", "uuid", "password"]).map(
            lambda said: {"type": "string", "format": said}
        ),
    )


def numbers() -> st.SearchStrategy[dict[str, Any]]:
    bounds = st.tuples(st.integers(-2000, 2000), st.integers(1, 10**6))
    lows, highs = ["minimum", "exclusiveMinimum"], ["maximum", "exclusiveMaximum"]
    said = st.builds(
        lambda low, high, two: {low: two[0], high: two[0] + two[1] + 1},
        st.sampled_from([*lows, "x-low"]),
        st.sampled_from([*highs, "x-high"]),
        bounds,
    )
    return st.builds(
        lambda kind, said: {"type": kind, **said}, st.sampled_from(["integer", "number"]), said
    )


def scalars() -> st.SearchStrategy[dict[str, Any]]:
    values = st.one_of(st.none(), st.booleans(), st.integers(-99, 99), NAMES)
    return st.one_of(
        strings(),
        numbers(),
        st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["string", "null"]}]),
        st.lists(values, min_size=1, max_size=4).map(lambda said: {"enum": said}),
        values.map(lambda said: {"const": said}),
    )


def objects(parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(NAMES, parts, max_size=4).flatmap(
        lambda said: st.sets(st.sampled_from(sorted(said)) if said else st.nothing()).map(
            lambda needed: {"type": "object", "properties": said, "required": sorted(needed)}
        )
    )


def containers(parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    counts = st.tuples(st.integers(0, 2), st.integers(0, 3))
    lists = st.builds(
        lambda part, two: {
            "type": "array",
            "items": part,
            "minItems": two[0],
            "maxItems": two[0] + two[1],
        },
        parts,
        counts,
    )
    optional = parts.map(lambda part: {"anyOf": [part, {"type": "null"}], "default": None})
    maps = parts.map(lambda part: {"type": "object", "additionalProperties": part})
    merged = st.tuples(objects(parts), objects(parts)).map(
        lambda two: {
            "allOf": [
                {"type": "object", "properties": {"left": two[0]}, "required": ["left"]},
                {"type": "object", "properties": {"right": two[1]}},
            ]
        }
    )
    return st.one_of(objects(parts), lists, optional, maps, merged)


SCHEMAS = st.recursive(scalars(), containers, max_leaves=6)


@settings(max_examples=150)
@given(SCHEMAS, SEEDS, st.integers(0, 80), st.sampled_from([0.5, 3.0, 10.0]))
def test_every_answer_is_valid_and_ends(
    schema: dict[str, Any], seed: int, spare: int, sharpness: float
) -> None:
    start = guide(schema)
    text = write(start.restart(), shortest(start) + spare, seed, sharpness)
    assert text is not None
    Draft202012Validator(schema).validate(json.loads(text))


TREE: dict[str, Any] = {
    "$ref": "#/$defs/Tree",
    "$defs": {
        "Tree": {
            "type": "object",
            "properties": {
                "value": {"type": "string", "maxLength": 8},
                "children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}, "minItems": 0},
                "next": {"anyOf": [{"$ref": "#/$defs/Tree"}, {"type": "null"}]},
            },
            "required": ["value", "children", "next"],
        }
    },
}
KINDS: dict[str, Any] = {
    "$ref": "#/definitions/Node",
    "definitions": {
        "Node": {"oneOf": [{"$ref": "#/definitions/Inner"}, {"$ref": "#/definitions/Leaf"}]},
        "Inner": {
            "type": "object",
            "properties": {
                "kind": {"const": "inner"},
                "of": {"type": "array", "minItems": 1, "items": {"$ref": "#/definitions/Node"}},
            },
            "required": ["kind", "of"],
        },
        "Leaf": {
            "type": "object",
            "properties": {"kind": {"const": "leaf"}, "name": {"type": "string"}},
            "required": ["kind", "name"],
        },
    },
}
"""The first letter of a tag decides whether there is an end."""


@pytest.mark.parametrize("schema", [TREE, KINDS], ids=["tree", "kinds"])
@pytest.mark.parametrize("spare", [0, 1, 7, 60, 200])
def test_recursive_schemas_are_closed_in_time(schema: dict[str, Any], spare: int) -> None:
    start = guide(schema)
    for seed in range(6):
        text = write(start.restart(), shortest(start) + spare, seed)
        assert text is not None
        Draft202012Validator(schema).validate(json.loads(text))


def test_required_objects_that_are_opened_late_still_fit() -> None:
    """One brace makes many more tokens necessary than were needed before it."""
    inner = {f"property number {i}": {"type": "integer"} for i in range(12)}
    whole = {"type": "object", "properties": inner, "required": sorted(inner)}
    schema = {"type": "object", "properties": {"list": {"type": "array", "items": whole}}}
    start = guide(schema)
    for seed, budget in enumerate(range(3, 400, 9)):
        text = write(start.restart(), budget, seed, sharpness=8)
        assert text is not None
        Draft202012Validator(schema).validate(json.loads(text))


@pytest.mark.parametrize("kind", ["integer", "number"])
def test_number_ends_within_the_budget(kind: str) -> None:
    """It is complete after every digit, and yet an answer only with its end token."""
    for seed in range(20):
        text = write(guide({"type": kind}), 2 + seed % 5, seed)
        assert text is not None
        assert abs(json.loads(text)) < 10**15


def test_empty_object_schema_gives_an_empty_object() -> None:
    assert write(guide({"type": "object"}), 20) == "{}"


def test_too_small_a_budget_is_refused_with_the_number_that_would_do() -> None:
    start = guide({"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]})
    least = shortest(start)
    assert write(start.restart(), least) == '{"a": null}'
    with pytest.raises(ConfigError, match=f"takes {least} tokens, and max_tokens is {least - 1};"):
        start.restart().mask(torch.zeros(size()), least - 1)


def test_schema_without_a_finite_value_is_refused() -> None:
    endless = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    with pytest.raises(ConfigError, match="contains itself"):
        guide(endless).mask(torch.zeros(size()), 50)


def test_complete_grammar_allows_only_the_ends() -> None:
    row = guide({"const": 7})
    assert not row.done
    assert not row.accepting
    row.accept(token_of("7"))
    assert row.done
    assert row.accepting
    assert row.mask(torch.zeros(size()), 5).isfinite().nonzero().flatten().tolist() == ends()
    row.accept(ends()[1])
    assert row.done
    with pytest.raises(ConfigError, match="not allowed"):
        row.accept(1)


def test_every_end_token_ends_where_the_answer_may_end() -> None:
    row = vocabulary().guide("start: /[ab]*/")
    allowed = row.mask(torch.zeros(size()), 400).isfinite()
    assert row.accepting
    assert not row.done
    assert all(allowed[token] for token in ends())


def test_text_is_not_ended_because_it_may_end() -> None:
    row = vocabulary().guide("start: /(?s:.*)/")
    letter = token_of("a")
    logits = torch.zeros(size())
    logits[letter] = 20
    for remaining in range(30, 0, -1):
        assert row.mask(logits, remaining)[letter] == 20
        row.accept(letter)


def test_token_that_is_not_allowed_is_refused() -> None:
    row = guide({"type": "object"})
    with pytest.raises(ConfigError, match="token 5 is not allowed"):
        row.accept(5)


def test_mask_changes_nothing_and_keeps_what_is_allowed() -> None:
    logits = torch.randn(size())
    before = logits.clone()
    masked = guide({"type": "boolean"}).mask(logits, 10)
    assert torch.equal(logits, before)
    texts = [str(tokenizer().decode([i])) for i in masked.isfinite().nonzero().flatten().tolist()]
    assert texts
    assert all("true".startswith(text) or "false".startswith(text) for text in texts)


@given(SEEDS, st.integers(20, 90))
@settings(max_examples=20)
def test_restart_gives_the_same_masks_and_rows_are_independent(seed: int, budget: int) -> None:
    start = guide(TREE)
    budget += shortest(start)
    alone = write(start.restart(), budget, seed)
    used = start.restart()
    write(used, budget, seed + 1)
    assert write(used.restart(), budget, seed) == alone

    first, second = start.restart(), start.restart()
    other = torch.Generator().manual_seed(seed + 2)
    source = torch.Generator().manual_seed(seed)
    for used_tokens in range(10):
        logits = torch.randn(size(), generator=source)
        mask = first.mask(logits, budget - used_tokens)
        if used_tokens < 5:
            side = second.mask(torch.randn(size(), generator=other), budget - used_tokens)
            second.accept(int(side.argmax()))
        fresh = first.mask(logits, budget - used_tokens)
        assert torch.equal(mask, fresh)
        first.accept(int(mask.argmax()))


@pytest.mark.parametrize("text", ["<tool_call>", "<|im_end|>", "a <tool_call> b"])
def test_added_tokens_as_text_are_spelled(text: str) -> None:
    """llguidance forces the token there, and refuses it."""
    written = write(guide({"const": text}), 40)
    assert written is not None
    assert json.loads(written) == text


THOUGHT = {
    "tag": r"start: thought {}" + "\n" + r"thought[lazy]: /(?s:.*)<\/think>\n/",
    "token": "start: TEXT <[{token}]> {}\nTEXT: /(?s:.*)/",
}


@pytest.mark.parametrize("grammar", THOUGHT.values(), ids=THOUGHT)
@pytest.mark.parametrize("spare", [0, 5, 40, 400])
def test_free_text_before_json_leaves_room_for_it(grammar: str, spare: int) -> None:
    body = json_grammar(closed({"type": "object", "properties": {"a": {"type": "string"}}}))
    tag = token_of("<tool_call>")
    start = vocabulary().guide(grammar.replace("{}", body).replace("{token}", str(tag)))
    for seed in range(5):
        text = write(start.restart(), shortest(start) + spare, seed)
        assert text is not None
        assert re.search(r"(<tool_call>|</think>\n)\{.*\}$", text, re.DOTALL)
