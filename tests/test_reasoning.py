"""Reasoning models think where, and as long as, a request says. A script stands in for thought."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import CHATML
from tests.scripted import Script, ScriptedModel, scripted_tokenizer
from ttt_core import ConfigError, TTTEngine
from ttt_core.reasoning import ThinkingGuide

_SWITCH = "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
SWITCHED = CHATML.replace("assistant\n{% endif %}", f"assistant\n{_SWITCH}{{% endif %}}")
"""As Qwen3: an empty thought unless thinking is wanted."""
OPENED = "{# </think> #}" + CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
"""As DeepSeek-R1: the prompt itself opens the thought."""

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["a"],
}
FORM = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": SCHEMA}}

Make = Callable[..., TTTEngine]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    engines = []

    def make(script: Script, template: str = SWITCHED, special: Sequence[str] = ()) -> TTTEngine:
        tokenizer = scripted_tokenizer(template)
        if special:
            more = {"additional_special_tokens": ["<|im_start|>", *special]}
            tokenizer.add_special_tokens(more)
        engine = TTTEngine(ScriptedModel(script, tokenizer), tokenizer, store=tmp_path / "store")
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()


def tokens(text: str) -> int:
    return len(scripted_tokenizer()(text, add_special_tokens=False)["input_ids"])


# Through the engine


def test_thinking_is_taken_apart_from_the_answer(make: Make) -> None:
    thought = "<think>\nhm, yes\n</think>"
    answer = make(lambda prompt: f"{thought}\n\nParis").generate(None, "?", enable_thinking=True)
    assert (answer.reasoning, answer.text, answer.finish_reason) == ("hm, yes", "Paris", "stop")
    assert answer.usage.reasoning_tokens == tokens(thought)
    assert answer.usage.completion_tokens == len(answer.token_ids) + 1


def test_thinking_is_forced_on_who_would_not(make: Make) -> None:
    engine = make(lambda prompt: "Paris")
    answer = engine.generate(None, "?", enable_thinking=True, max_new_tokens=40)
    decoded = str(engine.tokenizer.decode(list(answer.token_ids)))
    assert decoded.startswith("<think>")
    assert engine.generate(None, "?").text == "Paris"
    assert engine.generate(None, "?").usage.reasoning_tokens == 0


def test_a_model_that_thinks_unasked_is_understood(make: Make) -> None:
    answer = make(lambda prompt: "<think>hm</think>Paris").generate(None, "?")
    assert (answer.reasoning, answer.text) == ("hm", "Paris")


def test_a_prompt_that_opens_the_thought(make: Make) -> None:
    answer = make(lambda prompt: "hm, yes\n</think>\n\nParis", OPENED).generate(None, "?")
    assert (answer.reasoning, answer.text) == ("hm, yes", "Paris")
    assert answer.usage.reasoning_tokens == tokens("hm, yes\n</think>")


@pytest.mark.parametrize("budget", [0, 1, 7])
@pytest.mark.parametrize("template", [SWITCHED, OPENED])
def test_the_budget_ends_the_thought(make: Make, budget: int, template: str) -> None:
    opened = template == OPENED
    engine = make(lambda prompt: ("" if opened else "<think>") + "x" * 200, template)
    answer = engine.generate(None, "?", enable_thinking=True, thinking_budget=budget)
    assert answer.reasoning == "x" * budget
    decoded = str(engine.tokenizer.decode(list(answer.token_ids)))
    begin = "" if opened else "<think>"
    assert decoded.startswith(f"{begin}{'x' * budget}</think>")
    if budget:
        shown = f"{begin}{'x' * budget}</think>"
        assert answer.usage.reasoning_tokens == tokens(shown)


def test_without_a_budget_nothing_ends_free_thought(make: Make) -> None:
    engine = make(lambda prompt: f"<think>{'x' * 40}</think>yes")
    answer = engine.generate(None, "?", enable_thinking=True, max_new_tokens=80)
    assert (answer.reasoning, answer.text) == ("x" * 40, "yes")


@pytest.mark.parametrize("template", [SWITCHED, OPENED])
def test_the_grammar_begins_behind_the_thought(make: Make, template: str) -> None:
    begin = "" if template == OPENED else "<think>"
    engine = make(lambda prompt: f'{begin}{{"b": ]</think>\n\n{{"a": 7}}', template)
    answer = engine.generate(None, "?", enable_thinking=True, response_format=FORM)
    assert answer.reasoning == '{"b": ]'
    assert json.loads(answer.text) == {"a": 7}


def test_calls_behind_the_thought(make: Make) -> None:
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 3}}\n</tool_call>'
    engine = make(lambda prompt: f"<think>{call}</think>\n{call}")
    answer = engine.generate(None, "?", enable_thinking=True, tools=[TOOL])
    assert (answer.reasoning, answer.text, answer.finish_reason) == (call, "", "tool_calls")
    assert [(each.name, each.arguments) for each in answer.tool_calls] == [("add", {"a": 3})]


def test_by_default_half_is_left_for_what_is_enforced(make: Make) -> None:
    engine = make(lambda prompt: "<think>" + "x" * 500)
    answer = engine.generate(
        None, "?", enable_thinking=True, response_format=FORM, max_new_tokens=60
    )
    assert answer.reasoning == "x" * 30
    assert SCHEMA["required"] == list(json.loads(answer.text))


def test_whoever_ends_in_the_thought_still_gives_what_is_enforced(make: Make) -> None:
    answer = make(lambda prompt: "<think>hm").generate(
        None, "?", enable_thinking=True, response_format=FORM
    )
    assert list(json.loads(answer.text)) == ["a"]


def test_a_budget_leaves_room_for_what_is_enforced(make: Make) -> None:
    answer = make(lambda prompt: "<think>" + "x" * 500).generate(
        None, "?", enable_thinking=True, response_format=FORM, thinking_budget=100,
        max_new_tokens=60,
    )  # fmt: skip
    assert list(json.loads(answer.text)) == ["a"]


def test_what_cannot_be_thought_and_said_is_refused_at_once(make: Make) -> None:
    engine = make(lambda prompt: "<think>" + "x" * 500)
    with pytest.raises(ConfigError, match="max_"):
        engine.generate(None, "?", enable_thinking=True, response_format=FORM, max_new_tokens=20)


def test_thinking_that_was_cut_is_counted_right(make: Make) -> None:
    answer = make(lambda prompt: "<think>" + "x" * 50).generate(
        None, "?", enable_thinking=True, max_new_tokens=20
    )
    assert (answer.text, answer.finish_reason) == ("", "length")
    assert answer.usage.reasoning_tokens == answer.usage.completion_tokens == 20


@pytest.mark.parametrize("template", [SWITCHED, OPENED])
def test_tags_that_are_special_tokens(make: Make, template: str) -> None:
    begin = "" if template == OPENED else "<think>"
    engine = make(lambda p: f"{begin}hm</think>\n\nyes", template, ["<think>", "</think>"])
    answer = engine.generate(None, "?", enable_thinking=True)
    assert (answer.reasoning, answer.text) == ("hm", "yes")


def test_a_template_without_thinking_refuses(make: Make) -> None:
    engine = make(lambda prompt: "yes", CHATML)
    with pytest.raises(ConfigError, match="knows no thinking"):
        engine.generate(None, "?", enable_thinking=True)
    assert engine.generate(None, "?", thinking_budget=3).text == "yes"


def test_streams_say_what_is_thought(make: Make) -> None:
    engine = make(lambda prompt: "<think>hm, yes</think>\n\nParis it is")
    stream = engine.stream(None, "?", enable_thinking=True)
    pieces = list(stream.pieces())
    whole = engine.generate(None, "?", enable_thinking=True)
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == whole.text
    thought = "".join(getattr(piece, "text", "") for piece in pieces)
    assert thought == whole.reasoning == stream.answer.reasoning == "hm, yes"
    assert stream.answer.usage == whole.usage
    assert "".join(engine.stream(None, "?", enable_thinking=True)) == "Paris it is"


def test_a_stream_closed_in_the_thought_keeps_it(make: Make) -> None:
    engine = make(lambda prompt: "<think>hm, yes</think>\n\nParis")
    stream = engine.stream(None, "?", enable_thinking=True)
    next(stream.pieces())
    stream.close()
    answer = stream.answer
    assert answer.text == ""
    assert "hm, yes".startswith(answer.reasoning)
    assert answer.reasoning != ""
    assert answer.finish_reason == "cancelled"
    assert answer.usage.reasoning_tokens <= answer.usage.completion_tokens


def test_counted_prompts_are_those_that_are_used(make: Make) -> None:
    engine = make(lambda prompt: "<think>hm</think>yes")
    for thinking in (False, True):
        counted = engine.count_prompt_tokens("Where?", enable_thinking=thinking)
        used = engine.generate(None, "Where?", enable_thinking=thinking).usage.prompt_tokens
        assert counted == used


def test_rows_of_one_batch_have_budgets_of_their_own(make: Make) -> None:
    """The longest question has the least room; its half is less than that of the others."""
    engine = make(lambda prompt: "<think>" + "x" * 9000)
    options: dict[str, Any] = {"enable_thinking": True, "response_format": FORM}
    long = "y" * (engine.window - engine.count_prompt_tokens("y", **options) - 80)
    [alone] = engine.generate_batch(None, [long], **options)
    together = engine.generate_batch(None, ["Why?", long], **options)[1]
    assert json.loads(alone.text).keys() == {"a"}
    assert together.text == alone.text


# The guide alone


class Only:
    """Allows one token after another, and then the end (0)."""

    def __init__(self, *order: int) -> None:
        self.order = list(order)
        self.left = [*order, 0]

    def mask(self, logits: torch.Tensor, remaining: int) -> torch.Tensor:
        out = torch.full_like(logits, -torch.inf)
        out[self.left[0]] = 0
        return out

    def accept(self, token: int) -> None:
        assert token == self.left.pop(0)

    def restart(self) -> Only:
        return Only(*self.order)


BEGIN, END = (7, 8), (9, 5)


def guide(budget: int, inner: Only | None = None, *, begin: Sequence[int] = BEGIN) -> ThinkingGuide:
    def ended(ids: Sequence[int]) -> bool:
        return any(tuple(ids[n : n + 2]) == END for n in range(len(ids)))

    return ThinkingGuide(begin=begin, end=END, ended=ended, budget=budget, inner=inner)


def walk(one: ThinkingGuide, seed: int) -> list[int]:
    """The greedy answer of random logits, up to the end token behind the thought."""
    generator = torch.Generator().manual_seed(seed)
    out: list[int] = []
    assert isinstance(one._inner, Only)
    while one._inner.left:
        assert len(out) < 30
        token = int(one.mask(torch.randn(10, generator=generator), 30 - len(out)).argmax())
        one.accept(token)
        out.append(token)
    return out


@settings(max_examples=200)
@given(seed=st.integers(0, 2**31), budget=st.integers(0, 12), begin=st.sampled_from([(), BEGIN]))
def test_random_models_think_within_the_budget(
    seed: int, budget: int, begin: tuple[int, ...]
) -> None:
    one = guide(budget, Only(1, 2), begin=begin)
    again = one.restart()
    answer = walk(one, seed)
    assert walk(again, seed) == answer
    assert tuple(answer[: len(begin)]) == begin
    thought = answer[len(begin) :]
    ends = next(n for n in range(len(thought)) if tuple(thought[n : n + 2]) == END)
    assert ends <= budget
    assert thought[ends + 2 :] == [1, 2, 0]


def test_a_restarted_guide_begins_anew() -> None:
    one = guide(3, Only(1))
    for token in (*BEGIN, 4, *END, 1):
        one.accept(token)
    again = one.restart()
    logits = torch.zeros(10)
    assert int(again.mask(logits, 9).argmax()) == BEGIN[0]
    assert int(one.mask(logits, 9).argmax()) == 0, "the first one stands where it stood"


def test_forced_tokens_may_be_impossible_for_the_model() -> None:
    logits = torch.full((10,), -torch.inf)
    logits[3] = 1.0
    assert int(guide(3).mask(logits, 9).argmax()) == BEGIN[0]
    logits[BEGIN[0]] = torch.nan
    masked = guide(3).mask(logits, 9)
    assert not masked.isnan().any()
    assert int(masked.argmax()) == BEGIN[0]


def test_masks_are_new_tensors() -> None:
    logits = torch.zeros(10)
    guide(3).mask(logits, 9)
    assert logits.tolist() == [0.0] * 10
