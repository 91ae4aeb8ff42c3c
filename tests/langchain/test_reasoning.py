"""What a reasoning model thinks, as LangChain's users see it. A script stands in for thought."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from functools import reduce
from operator import add as plus
from pathlib import Path
from typing import Any

import pytest
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from pydantic import BaseModel, Field

from langchain_ttt import ChatTTT
from tests.conftest import CHATML
from tests.scripted import CHATML_TOOLS, Script, ScriptedModel, scripted_tokenizer
from ttt_core import TTTEngine

_OPENING = "{{ '<|im_start|>assistant\n' }}"
_SWITCH = "{% if not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
SWITCHED = CHATML_TOOLS.replace(_OPENING, _OPENING + _SWITCH)
"""As Qwen3."""
REPLY = "<think>\nhm, yes\n</think>\n\nParis"
CALL = '<tool_call>\n{"name": "add", "arguments": {"x": 3}}\n</tool_call>'

Make = Callable[..., tuple[ChatTTT, ScriptedModel]]


class City(BaseModel):
    """A city."""

    people: int = Field(ge=0, le=9)


def add(x: int) -> int:
    """Add a number."""
    return x


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    engines = []

    def make(script: Script, template: str = SWITCHED, **options: Any) -> Any:
        tokenizer = scripted_tokenizer(template)
        model = ScriptedModel(script, tokenizer)
        engine = TTTEngine(model, tokenizer, store=tmp_path / "store")
        engines.append(engine)
        return ChatTTT(engine=engine, **options), model

    yield make
    for engine in engines:
        engine.close()


def reasoning(message: Any) -> str:
    """What LangChain's standard blocks call reasoning."""
    blocks = message.content_blocks
    return "".join(b["reasoning"] for b in blocks if b["type"] == "reasoning")


def test_the_template_s_switch_is_there() -> None:
    assert SWITCHED != CHATML_TOOLS


@pytest.mark.parametrize("way", ["field", "call", "bind"])
def test_thinking_is_apart_from_the_text(make: Make, way: str) -> None:
    llm, model = make(lambda prompt: REPLY)
    if way == "field":
        message = llm.model_copy(update={"enable_thinking": True}).invoke("?")
    elif way == "call":
        message = llm.invoke("?", enable_thinking=True)
    else:
        message = llm.bind(enable_thinking=True).invoke("?")
    assert message.text == message.content == "Paris"
    assert message.additional_kwargs["reasoning_content"] == "hm, yes"
    assert reasoning(message) == "hm, yes"
    assert model.prompts[-1].endswith("assistant\n")


def test_usage_tells_the_tokens_of_thought(make: Make) -> None:
    llm, _ = make(lambda prompt: REPLY, enable_thinking=True)
    usage = llm.invoke("?").usage_metadata
    assert usage is not None
    thought = scripted_tokenizer()(REPLY.partition("\n\nParis")[0])["input_ids"]
    assert usage["output_token_details"] == {"reasoning": len(thought)}
    assert usage["output_tokens"] > len(thought)


def test_streams_merge_to_the_same_message(make: Make) -> None:
    llm, _ = make(lambda prompt: REPLY, enable_thinking=True)
    whole = llm.invoke("?")
    chunks = list(llm.stream("?"))
    merged = reduce(plus, chunks)
    assert isinstance(merged, AIMessageChunk)
    assert (merged.text, reasoning(merged)) == (whole.text, reasoning(whole))
    assert merged.additional_kwargs == whole.additional_kwargs
    assert merged.usage_metadata == whole.usage_metadata
    said = [chunk for chunk in chunks if chunk.content or chunk.additional_kwargs]
    thinking = [bool(chunk.additional_kwargs) for chunk in said]
    assert thinking == sorted(thinking, reverse=True), "thought first"
    assert sum(thinking) > 1, "thought comes as it is thought"


def test_async(make: Make) -> None:
    llm, _ = make(lambda prompt: REPLY, enable_thinking=True)

    async def ask() -> Any:
        chunks = [chunk async for chunk in llm.astream("?")]
        return await llm.ainvoke("?"), reduce(plus, chunks)

    whole, merged = asyncio.run(ask())
    assert (whole.text, reasoning(whole)) == ("Paris", "hm, yes")
    assert (merged.text, reasoning(merged)) == ("Paris", "hm, yes")


def test_output_version_v1(make: Make) -> None:
    llm, _ = make(lambda prompt: REPLY, enable_thinking=True, output_version="v1")
    for message in (llm.invoke("?"), reduce(plus, llm.stream("?"))):
        kinds = [block["type"] for block in message.content_blocks]
        assert kinds == ["reasoning", "text"]
        assert (message.text, reasoning(message)) == ("Paris", "hm, yes")


def test_the_budget(make: Make) -> None:
    llm, _ = make(lambda prompt: "<think>" + "x" * 90, enable_thinking=True, thinking_budget=5)
    assert llm.invoke("?").additional_kwargs["reasoning_content"] == "x" * 5
    longer = llm.invoke("?", thinking_budget=9)
    assert longer.additional_kwargs["reasoning_content"] == "x" * 9


def test_structured_output_behind_thought(make: Make) -> None:
    llm, _ = make(lambda prompt: '<think>three?</think>\n{"people": 3}', enable_thinking=True)
    for method in ("json_schema", "json_mode"):
        found = llm.with_structured_output(City, method=method, include_raw=True).invoke("?")
        assert found["parsed"] == City(people=3)
        assert found["raw"].additional_kwargs["reasoning_content"] == "three?"


def test_structured_output_of_who_thinks_too_long(make: Make) -> None:
    llm, _ = make(lambda prompt: "<think>" + "x" * 900, enable_thinking=True, max_tokens=120)
    for method in ("json_schema", "function_calling", "json_mode"):
        value = llm.with_structured_output(City, method=method).invoke("?")
        assert isinstance(value, City)


def test_calls_behind_thought_and_the_way_back(make: Make) -> None:
    def script(prompt: str) -> str:
        return "It is 3." if "<tool_response>" in prompt else f"<think>I add.</think>\n{CALL}"

    llm, model = make(script, enable_thinking=True)
    bound = llm.bind_tools([add])
    for called in (bound.invoke("?"), reduce(plus, bound.stream("?"))):
        assert [call["args"] for call in called.tool_calls] == [{"x": 3}]
        assert reasoning(called) == "I add."
        assert called.response_metadata["finish_reason"] == "tool_calls"
        result = ToolMessage("3", tool_call_id=called.tool_calls[0]["id"] or "")
        answer = bound.invoke([HumanMessage("?"), called, result], enable_thinking=False)
        assert answer.text == "It is 3."
        assert "I add." not in model.prompts[-1], "earlier thoughts are not repeated"


def test_thoughts_of_other_models_are_left_out(make: Make) -> None:
    llm, model = make(lambda prompt: "Paris")
    thought = {"type": "thinking", "thinking": "hm", "signature": "x"}
    others: list[Any] = [
        [thought, {"type": "text", "text": "Rome"}],
        [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "Rome"}],
    ]
    for content in others:
        llm.invoke([HumanMessage("a"), AIMessage(content), HumanMessage("b")])
        assert "Rome" in model.prompts[-1]
        assert "hm" not in model.prompts[-1]


def test_counts_with_thinking(make: Make) -> None:
    llm, _ = make(lambda prompt: REPLY)
    for thinking in (True, False):
        own = llm.model_copy(update={"enable_thinking": thinking})
        usage = own.invoke("Where?").usage_metadata
        assert usage is not None
        counted = own.get_num_tokens_from_messages([HumanMessage("Where?")])
        assert usage["input_tokens"] == counted


def test_documents_with_thinking(make: Make) -> None:
    """The switch changes what follows the document, not the document."""
    llm, _ = make(lambda prompt: REPLY)
    owls = llm.with_documents("the owl lives in the old tree. " * 5)
    owls.adapt()
    usages = [owls.invoke("?", enable_thinking=each).usage_metadata for each in (False, True)]
    cached = {usage["input_token_details"]["cache_read"] for usage in usages if usage}
    assert len(cached) == 1
    assert cached.pop() > 100


def test_models_that_cannot_think_refuse(make: Make) -> None:
    llm, _ = make(lambda prompt: "Paris", CHATML)
    with pytest.raises(ModelInvalidRequestError, match="knows no thinking"):
        llm.invoke("?", enable_thinking=True)


def test_thoughts_are_json(make: Make) -> None:
    llm, _ = make(lambda prompt: REPLY, enable_thinking=True)
    assert json.loads(llm.invoke("?").model_dump_json())["content"] == "Paris"
