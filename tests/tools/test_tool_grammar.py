"""Grammars of answers: what may be said under each choice, and that what is said can be called."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer

from tests.tools.families import FORMATS, read
from ttt_core.errors import ConfigError
from ttt_core.loading import default_model
from ttt_core.tools import Tool, ToolCall, ToolFormat
from ttt_core.tools.grammar import compose

WEATHER = Tool(
    "get_weather",
    "Say how the weather is.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 4},
            "days": {"type": "integer", "minimum": 1, "maximum": 9},
            "unit": {"enum": ["C", "F"]},
            "fine": {"type": "boolean"},
        },
        "required": ["city", "unit"],
    },
)
CLOCK = Tool("get.time-now")
TREE = Tool(
    "grow",
    "",
    {
        "type": "object",
        "properties": {"tree": {"$ref": "#/$defs/Tree"}},
        "required": ["tree"],
        "$defs": {"Tree": {"type": "object", "properties": {"n": {"type": "integer"}},
                           "required": ["n"]}},
    },
)  # fmt: skip
TOOLS = (WEATHER, CLOCK, TREE)
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 3}, "age": {"enum": [1, 2]}},
    "required": ["name", "age"],
}
SUNNY = ToolCall("a1B2c3D4e", "get_weather", {"city": "Rome", "days": 3, "unit": "C"})
NOW = ToolCall("f5G6h7I8j", "get.time-now", {})
GROWN = ToolCall("k9L0m1N2o", "grow", {"tree": {"n": 7}})
EVERY = sorted(FORMATS)


class Judge:
    """A tokenizer, with the formats' tags as added tokens or without, and what it allows."""

    def __init__(self, tags: str) -> None:
        from llguidance.hf import from_tokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(default_model())
        self.tokenizer = tokenizer
        if tags != "plain":
            texts = {text for format in FORMATS.values() for text in format.control_tokens}
            added = [*sorted(texts), "<think>", "</think>"]
            self.tokenizer.add_tokens([AddedToken(t, special=tags == "special") for t in added])
        size, eos = len(self.tokenizer), self.tokenizer.eos_token_id
        self.added = self.tokenizer.added_tokens_encoder
        self.compiled = from_tokenizer(tokenizer, n_vocab=size, eos_token=eos)

    def literal(self, text: str) -> str:
        """As `Vocabulary.literal`."""
        return f"<[{self.added[text]}]>" if text in self.added else json.dumps(text)

    def matcher(self, grammar: str) -> Any:
        """Compile."""
        from llguidance import LLMatcher

        matcher = LLMatcher(self.compiled, LLMatcher.grammar_from_lark(grammar), log_level=0)
        assert not matcher.is_error(), matcher.get_error()
        return matcher

    def accepts(self, grammar: str, text: str) -> bool:
        """Whether this is a whole answer."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        matcher = self.matcher(grammar)
        return bool(matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting())

    def walk(self, grammar: str, rng: random.Random, end: float = 0.3) -> str | None:
        """Choose allowed tokens at random; None where that takes too long."""
        matcher = self.matcher(grammar)
        ids: list[int] = []
        for _ in range(400):
            if matcher.is_accepting() and (matcher.is_stopped() or rng.random() < end):
                return str(self.tokenizer.decode(ids, skip_special_tokens=False))
            mask = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
            bits = np.unpackbits(mask, bitorder="little")[: len(self.tokenizer)]
            allowed = [i for i in bits.nonzero()[0].tolist() if i != self.tokenizer.eos_token_id]
            allowed = allowed or [self.tokenizer.eos_token_id]
            ids.append(rng.choice(allowed))
            if ids[-1] == self.tokenizer.eos_token_id:
                return str(self.tokenizer.decode(ids[:-1], skip_special_tokens=False))
            assert matcher.consume_token(ids[-1])
        return None


@pytest.fixture(scope="module", params=["plain", "added", "special"])
def judge(request: pytest.FixtureRequest) -> Judge:
    """Tags as plain characters, as added tokens that are text, as special tokens."""
    return Judge(request.param)


def grammar(judge: Judge, format: ToolFormat, choice: str = "auto", **options: Any) -> str:
    """Compose with defaults."""
    given: dict[str, Any] = {
        "tools": TOOLS,
        "parallel": True,
        "response_schema": None,
        "strict": True,
        **options,
    }
    text = compose(tool_choice=choice, format=format, literal=judge.literal, **given)
    assert text is not None
    return text


@pytest.fixture(params=EVERY)
def format(request: pytest.FixtureRequest) -> ToolFormat:
    """Each in turn."""
    return FORMATS[request.param]


def test_calls_as_they_are_written_are_allowed(judge: Judge, format: ToolFormat) -> None:
    several = format.render([SUNNY, NOW, GROWN])
    for choice in ("auto", "required"):
        together = grammar(judge, format, choice)
        one = grammar(judge, format, choice, parallel=False)
        assert judge.accepts(together, several)
        for call in (SUNNY, NOW, GROWN):
            assert judge.accepts(one, format.render([call]))
        assert not judge.accepts(one, several)
        assert not judge.accepts(together, several + "more")
    assert not judge.accepts(grammar(judge, format, "none"), format.render([NOW]))
    named = grammar(judge, format, "get_weather")
    assert judge.accepts(named, format.render([SUNNY]))
    assert not judge.accepts(named, format.render([NOW]))
    assert not judge.accepts(named, format.render([SUNNY, SUNNY]))


def test_wrong_calls_are_not_allowed(judge: Judge, format: ToolFormat) -> None:
    every = grammar(judge, format)
    for name, arguments in (
        ("get_wether", SUNNY.arguments),
        ("get_weather", {"city": "Rome"}),
        ("get_weather", {"city": "Rome", "days": 0, "unit": "C"}),
        ("get_weather", {"city": "Rome", "unit": "K"}),
        ("get.time-now", {"zone": 1}),
        ("grow", {"tree": {}}),
    ):
        assert not judge.accepts(every, format.render([ToolCall("a1B2c3D4e", name, arguments)]))


def test_text_is_free_where_it_may_stand(judge: Judge, format: ToolFormat) -> None:
    text = 'Hi!\n\n{"a": [1, 2]} <b> / 50% \\ of it <tool'
    for choice in ("auto", "none"):
        assert judge.accepts(grammar(judge, format, choice), text)
        assert judge.accepts(grammar(judge, format, choice), "")
    assert not judge.accepts(grammar(judge, format, "required"), text)
    assert not judge.accepts(grammar(judge, format, "get_weather"), text)
    before = text + "\n" + format.render([SUNNY])
    if not format.only_at_start:
        assert judge.accepts(grammar(judge, format), before)
    assert not judge.accepts(grammar(judge, format, "required"), before)


def test_json_alone_or_beside_calls(judge: Judge, format: ToolFormat) -> None:
    person = '{"name": "Al", "age": 1}'
    beside = grammar(judge, format, response_schema=PERSON)
    alone = grammar(judge, format, "none", response_schema=PERSON)
    for one in (beside, alone, grammar(judge, format, tools=(), response_schema=PERSON)):
        assert judge.accepts(one, person)
        assert not judge.accepts(one, "Al is 1")
        assert not judge.accepts(one, '{"name": "Al"}')
    assert judge.accepts(beside, format.render([SUNNY, NOW]))
    assert not judge.accepts(alone, format.render([NOW]))
    required = grammar(judge, format, "required", response_schema=PERSON)
    assert judge.accepts(required, format.render([NOW]))
    assert not judge.accepts(required, person)
    anything = grammar(judge, format, "none", response_schema=True)
    assert judge.accepts(anything, '{"a": {"b": 1, "c": null}}')
    assert not judge.accepts(anything, "[1]")


@pytest.mark.parametrize("choice", ["required", "auto", "get_weather"])
def test_whatever_is_allowed_can_be_called(judge: Judge, format: ToolFormat, choice: str) -> None:
    rng, text = random.Random(f"{format.name}{choice}"), grammar(judge, format, choice)
    checks = {tool.name: tool for tool in TOOLS}
    for _ in range(6):
        answer = judge.walk(text, rng)
        if answer is None:
            continue
        said, _, calls, invalid = read(format, [answer])
        assert invalid == []
        assert (said == "" and calls) or choice == "auto"
        for call in calls:
            check_arguments(checks[call.name], call.arguments)
        if choice == "get_weather":
            assert [call.name for call in calls] == [choice]


def check_arguments(tool: Tool, arguments: dict[str, Any]) -> None:
    """Hold arguments against the schema, by hand: the schemas are these three."""
    if tool is CLOCK:
        assert arguments == {}
    elif tool is TREE:
        assert isinstance(arguments["tree"]["n"], int)
    else:
        assert set(arguments) <= {"city", "days", "unit", "fine"}
        assert isinstance(arguments["city"], str)
        assert arguments["unit"] in {"C", "F"}
        assert 1 <= arguments.get("days", 1) <= 9
        assert isinstance(arguments.get("fine", True), bool)


def test_random_text_holds_no_call_where_none_may_be(judge: Judge, format: ToolFormat) -> None:
    rng, text = random.Random(format.name), grammar(judge, format, "none")
    for _ in range(3):
        answer = judge.walk(text, rng, end=0.05)
        assert answer is not None
        _, deltas, calls, invalid = read(format, [answer])
        assert (deltas, calls, invalid) == ([], [], [])


def refuse(text: str) -> str:
    raise AssertionError(text)


@pytest.mark.parametrize(("choice", "tools"), [("required", ()), ("get_rain", TOOLS)])
def test_tools_that_are_not_there_cannot_be_called(choice: str, tools: tuple[Tool, ...]) -> None:
    with pytest.raises(ConfigError, match=f"tool_choice is '{choice}'"):
        made(choice, tools, refuse)


def test_nothing_to_enforce() -> None:
    assert made("auto", (), refuse) is None
    assert made("none", (), refuse) is None


def made(choice: str, tools: tuple[Tool, ...], literal: Callable[[str], str]) -> str | None:
    """Compose without a tokenizer."""
    return compose(
        tools=tools,
        tool_choice=choice,
        parallel=True,
        response_schema=None,
        format=FORMATS["hermes"],
        literal=literal,
        strict=True,
    )
