"""Tools through LangChain: bound in any shape, called as asked for, answered, streamed."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from functools import reduce
from operator import add as plus
from pathlib import Path
from typing import Any

import pydantic.v1
import pytest
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import RunnableBinding
from langchain_core.tools import BaseTool, StructuredTool, tool
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from langchain_ttt import ChatTTT
from tests.conftest import build_model
from tests.scripted import Script, ScriptedModel, scripted_tokenizer
from ttt_core import AdaptationConfig, TTTEngine

RECIPE = AdaptationConfig(steps=1, gate=False, early_stopping=False, held_out=2, clozes_per_step=2)
OWLS = "\n".join(f"the owl number {number} lives in tree {number * 7 % 10}" for number in range(5))
FOXES = "\n".join(f"the fox number {number} eats {number * 3 % 10} eggs" for number in range(5))


def add(x: int) -> int:
    """Add a number.

    Args:
        x: The number.
    """
    return x


class Add(BaseModel):
    """Add a number."""

    x: int = Field(description="The number.", ge=0, le=99)


class OldAdd(pydantic.v1.BaseModel):
    """Add a number."""

    x: int


class TypedAdd(TypedDict):
    """Add a number."""

    x: int


class AddTool(BaseTool):
    name: str = "add"
    description: str = "Add a number."
    args_schema: type[BaseModel] = Add

    def _run(self, x: int) -> int:
        return x


@tool
def look_up(word: str) -> str:
    """Find a word."""
    return f"{word}!"


ADD: dict[str, Any] = {"type": "function", "function": {
    "name": "add", "description": "Add a number.", "parameters": {
        "type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}}
}  # fmt: skip
SHAPES: dict[str, Any] = {
    "function": add,
    "pydantic": Add,
    "pydantic v1": OldAdd,
    "TypedDict": TypedAdd,
    "dict": ADD,
    "bare dict": ADD["function"],
    "JSON schema": {"title": "add", "description": "Add a number.",
                    **ADD["function"]["parameters"]},
    "BaseTool": AddTool(),
    "StructuredTool": StructuredTool.from_function(add),
    "Anthropic": {"name": "add", "description": "Add a number.",
                  "input_schema": ADD["function"]["parameters"]},
}  # fmt: skip


def call_text(name: str = "add", **arguments: Any) -> str:
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


@pytest.fixture(scope="module")
def random_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TTTEngine]:
    model = build_model("qwen3", max_position_embeddings=4096)
    tokenizer = scripted_tokenizer(tools=True)
    store = tmp_path_factory.mktemp("tools")
    with TTTEngine(model, tokenizer, adaptation=RECIPE, store=store) as engine:
        yield engine


@pytest.fixture
def llm(random_engine: TTTEngine) -> ChatTTT:
    """Random weights."""
    return ChatTTT(engine=random_engine, max_tokens=100)


Make = Callable[..., tuple[ChatTTT, ScriptedModel]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    engines = []

    def make(script: Script, **options: Any) -> tuple[ChatTTT, ScriptedModel]:
        tokenizer = scripted_tokenizer(tools=True)
        model = ScriptedModel(script, tokenizer)
        engine = TTTEngine(model, tokenizer, adaptation=RECIPE, store=tmp_path / "store")
        engines.append(engine)
        return ChatTTT(engine=engine, **options), model

    yield make
    for engine in engines:
        engine.close()


def calls(message: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(call["name"], call["args"]) for call in message.tool_calls]


# Binding


@pytest.mark.parametrize("shape", list(SHAPES))
def test_tools_in_any_shape(llm: ChatTTT, shape: str) -> None:
    bound = llm.bind_tools([SHAPES[shape]], tool_choice="any", parallel_tool_calls=False)
    assert isinstance(bound, RunnableBinding)
    message = bound.invoke("Go!")
    [call] = message.tool_calls
    assert call["name"].lower().endswith("add")
    assert isinstance(call["args"]["x"], int)
    assert call["args"].keys() == {"x"}
    assert call["type"] == "tool_call"
    assert message.response_metadata["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ("any", {"add", "look_up"}),
        ("required", {"add", "look_up"}),
        (True, {"add", "look_up"}),
        ("add", {"add"}),
        ("look_up", {"look_up"}),
        ({"type": "function", "function": {"name": "look_up"}}, {"look_up"}),
        ({"type": "tool", "name": "look_up"}, {"look_up"}),
        ({"type": "any"}, {"add", "look_up"}),  # Anthropic's shape.
        ({"type": "auto"}, None),
        ("none", set()),
        ("auto", None),
        (None, None),
        (False, None),
    ],
)
def test_tool_choice(llm: ChatTTT, choice: Any, called: set[str] | None) -> None:
    bound = llm.bind_tools([add, look_up], tool_choice=choice)
    for seed in range(2):
        message = bound.invoke("Go!", temperature=1.0, seed=seed)
        names = {name for name, _ in calls(message)}
        assert called is None or names <= called
        assert called is None or bool(names) == bool(called)
        assert not message.invalid_tool_calls


@pytest.mark.parametrize("choice", ["any", True, {"type": "function", "function": {"name": "add"}}])
def test_tool_choice_of_the_call(llm: ChatTTT, choice: Any) -> None:
    message = llm.bind_tools([add]).invoke("Go!", tool_choice=choice)
    assert [name for name, _ in calls(message)][:1] == ["add"]


def test_errors_of_options_are_langchain_s(llm: ChatTTT) -> None:
    for options in ({"tool_choice": 3}, {"temperature": -1}, {"response_format": "json"}):
        with pytest.raises(ModelInvalidRequestError):
            llm.bind_tools([add]).invoke("Go!", **options)


def test_a_choice_that_is_no_tool_is_named(llm: ChatTTT) -> None:
    with pytest.raises(ModelInvalidRequestError, match="the tools are: add"):
        llm.bind_tools([add], tool_choice="sub").invoke("Go!")


def test_several_calls_or_one(make: Make) -> None:
    llm, _ = make(lambda prompt: "\n".join(call_text(x=number) for number in range(3)))
    expected = [("add", {"x": number}) for number in range(3)]
    assert calls(llm.bind_tools([add]).invoke("Go!")) == expected
    for choice in ("any", "auto"):
        several = llm.bind_tools([add], tool_choice=choice, parallel_tool_calls=True)
        assert calls(several.invoke("Go!")) == expected
        single = llm.bind_tools([add], tool_choice=choice, parallel_tool_calls=False)
        assert calls(single.invoke("Go!")) == expected[:1]


@pytest.mark.parametrize("strict", [None, True, False])
def test_strict(llm: ChatTTT, strict: bool | None) -> None:
    bound = llm.bind_tools([Add], tool_choice="any", strict=strict)
    for seed in range(3):
        for _, args in calls(bound.invoke("Go!", temperature=1.0, seed=seed)):
            assert 0 <= Add(**args).x <= 99


def test_what_cannot_be_enforced_is_left_out_if_not_strict(llm: ChatTTT) -> None:
    parameters = {
        "type": "object",
        "properties": {"x": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}},
        "required": ["x"],
    }
    unique = {"name": "unique", "description": "Unique.", "parameters": parameters}
    with pytest.raises(ModelInvalidRequestError, match="uniqueItems"):
        llm.bind_tools([unique], tool_choice="any", strict=True).invoke("Go!")
    message = llm.bind_tools([unique], tool_choice="any", strict=False).invoke("Go!")
    assert all(isinstance(args["x"], list) for _, args in calls(message))


def test_extra_options_of_agents(llm: ChatTTT) -> None:
    bound = llm.bind_tools([add], tool_choice="any", temperature=0.5, seed=1, max_tokens=90)
    assert bound.invoke("Go!").tool_calls
    assert llm.bind_tools([]).invoke("Go!", max_tokens=3).response_metadata


# Answers


def test_streams_merge_to_the_same_calls(llm: ChatTTT) -> None:
    for choice in ("any", "auto"):
        bound = llm.bind_tools([add, look_up], tool_choice=choice, temperature=1.0)
        for seed in range(2):
            whole = bound.invoke("Go!", seed=seed)
            chunks = list(bound.stream("Go!", seed=seed))
            merged = reduce(plus, chunks)
            assert isinstance(merged, AIMessageChunk)
            assert calls(merged) == calls(whole)
            assert merged.text == whole.text
            assert merged.usage_metadata == whole.usage_metadata
            finish = merged.response_metadata["finish_reason"]
            assert finish == whole.response_metadata["finish_reason"]
            assert all(call["id"] for call in merged.tool_calls)
            assert not merged.invalid_tool_calls


def test_async_streams_merge_to_the_same_calls(llm: ChatTTT) -> None:
    bound = llm.bind_tools([add, look_up], tool_choice="any")

    async def ask() -> tuple[Any, Any]:
        chunks = [chunk async for chunk in bound.astream("Go!")]
        return await bound.ainvoke("Go!"), reduce(plus, chunks)

    whole, merged = asyncio.run(ask())
    assert calls(merged) == calls(whole) == calls(bound.invoke("Go!"))


def test_ids_are_unique(llm: ChatTTT) -> None:
    messages = llm.bind_tools([add], tool_choice="any").batch(["a", "b", "c"])
    ids = [call["id"] for message in messages for call in message.tool_calls]
    assert len(set(ids)) == len(ids) >= 3


def test_text_before_a_call(make: Make) -> None:
    llm, _ = make(lambda prompt: f"I will add.\n{call_text(x=3)}")
    bound = llm.bind_tools([add])
    message = bound.invoke("Go!")
    assert (message.text, calls(message)) == ("I will add.", [("add", {"x": 3})])
    merged = reduce(plus, bound.stream("Go!"))
    assert (merged.text, calls(merged)) == ("I will add.", [("add", {"x": 3})])


def test_without_tools_a_call_is_text(make: Make) -> None:
    llm, _ = make(lambda prompt: call_text(x=3))
    message = llm.invoke("Go!")
    assert (message.text, message.tool_calls) == (call_text(x=3), [])
    banned = llm.bind_tools([add], tool_choice="none").invoke("Go!")
    assert not banned.tool_calls
    assert "<tool_call>" not in banned.text


def test_several_calls_with_unicode(make: Make) -> None:
    said = call_text("look_up", word='\u68df "owl"\n{}') + "\n" + call_text(x=3)
    llm, _ = make(lambda prompt: said)
    bound = llm.bind_tools([add, look_up])
    expected = [("look_up", {"word": '\u68df "owl"\n{}'}), ("add", {"x": 3})]
    assert calls(bound.invoke("Go!")) == expected
    assert calls(reduce(plus, bound.stream("Go!"))) == expected


MALFORMED = [
    ('<tool_call>\n{"name": "add", "arguments": {"x": }}\n</tool_call>', "add"),
    ('<tool_call>\n{"name": "add", "arguments": {"x": 3', "add"),
    ('<tool_call>\n{"name": "add", "arguments": {"x": [1, 2', "add"),
    ('<tool_call>\n{"arguments": {"x": 3}}\n</tool_call>', None),
    ("<tool_call>\nadd(3)\n</tool_call>", None),
    ('<tool_call>\n{"name": "add", "arguments": [3]}\n</tool_call>', "add"),
    ("<tool_call>", None),
]


@pytest.mark.parametrize(("said", "name"), MALFORMED)
def test_malformed_calls_are_invalid_calls(
    make: Make, monkeypatch: pytest.MonkeyPatch, said: str, name: str | None
) -> None:
    monkeypatch.setattr("ttt_core.asking._grammar_guide", lambda *args: None)
    llm, _ = make(lambda prompt: f"So: {said}")
    message = llm.bind_tools([add]).invoke("Go!")
    assert (message.text, message.tool_calls) == ("So:", [])
    [invalid] = message.invalid_tool_calls
    assert invalid["name"] == name
    assert invalid["error"]
    assert message.response_metadata["finish_reason"] == "stop"


@pytest.mark.parametrize(("said", "name"), MALFORMED)
def test_malformed_calls_are_invalid_when_streamed(
    make: Make, monkeypatch: pytest.MonkeyPatch, said: str, name: str | None
) -> None:
    monkeypatch.setattr("ttt_core.asking._grammar_guide", lambda *args: None)
    llm, _ = make(lambda prompt: f"So: {said}")
    merged = reduce(plus, llm.bind_tools([add]).stream("Go!"))
    assert merged.tool_calls == []
    assert len(merged.invalid_tool_calls) == 1


def test_calls_end_within_max_tokens(llm: ChatTTT) -> None:
    bound = llm.bind_tools([add, look_up], tool_choice="any")
    for seed in range(3):
        for limit in (70, 80):
            message = bound.invoke("Go!", temperature=1.0, seed=seed, max_tokens=limit)
            assert message.tool_calls
            assert not message.invalid_tool_calls
    with pytest.raises(ModelInvalidRequestError, match="max_tokens is 10"):
        bound.invoke("Go!", max_tokens=10)


def test_stop_strings_of_agents_do_not_break_calls(make: Make) -> None:
    """ReAct agents stop at `\\nObservation`; a template's own line breaks are no such thing."""
    llm, _ = make(lambda prompt: call_text("look_up", word="a\nObservation: b"))
    message = llm.bind_tools([look_up]).invoke("Go!", stop=["\nObservation"])
    assert calls(message) == [("look_up", {"word": "a\nObservation: b"})]


# Conversations


def history(result: ToolMessage | HumanMessage) -> list[BaseMessage]:
    return [
        SystemMessage("Be brief."),
        HumanMessage("What is three and one?"),
        AIMessage("", tool_calls=[{"name": "add", "args": {"x": 3}, "id": "call_1"}]),
        result,
    ]


@pytest.mark.parametrize(
    "result",
    [
        ToolMessage("forty", tool_call_id="call_1"),
        ToolMessage([{"type": "text", "text": "forty"}], tool_call_id="call_1"),
        ToolMessage([{"type": "text", "text": "for"}, "ty"], tool_call_id="call_1"),
        ToolMessage("forty", tool_call_id="call_1", status="error"),
        ToolMessage("forty", tool_call_id="call_1", name="add", artifact=object()),
        HumanMessage([{"type": "tool_result", "tool_use_id": "call_1", "content": "forty"}]),
        HumanMessage([
            {"type": "tool_result", "tool_use_id": "call_1", "is_error": True,
             "content": [{"type": "text", "text": "forty"}]}]),
    ],
)  # fmt: skip
def test_results_reach_the_model(make: Make, result: Any) -> None:
    llm, model = make(lambda prompt: "It is 40.")
    message = llm.bind_tools([add]).invoke(history(result))
    assert message.text == "It is 40."
    prompt = model.prompts[-1]
    assert "<tool_response>\nforty\n</tool_response>" in prompt
    assert '<tool_call>\n{"name": "add", "arguments": {"x": 3}}\n</tool_call>' in prompt
    assert prompt.index("Be brief") < prompt.index("three and one") < prompt.index("forty")
    assert message.usage_metadata is not None
    counted = llm.get_num_tokens_from_messages(history(result), tools=[add])
    assert message.usage_metadata["input_tokens"] == counted


def test_anthropic_histories(make: Make) -> None:
    llm, model = make(lambda prompt: "done")
    conversation = [
        HumanMessage("What is three and one?"),
        AIMessage(
            [
                {"type": "text", "text": "I add."},
                {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"x": 3}},
            ],
            tool_calls=[{"name": "add", "args": {"x": 3}, "id": "toolu_1"}],
        ),
        HumanMessage([
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": "4"},
            {"type": "text", "text": "And now?"},
        ]),
    ]  # fmt: skip
    assert llm.invoke(conversation).text == "done"
    prompt = model.prompts[-1]
    order = [prompt.index(said) for said in ("I add.", '{"x": 3}', "4\n</tool_resp", "And now?")]
    assert order == sorted(order)
    assert prompt.count('"name": "add"') == 1


def test_calls_that_are_only_blocks_are_not_lost(make: Make) -> None:
    llm, model = make(lambda prompt: "done")
    for block in (
        {"type": "tool_use", "id": "1", "name": "add", "input": {"x": 3}},
        {"type": "tool_call", "id": "1", "name": "add", "args": {"x": 3}},
    ):
        result = ToolMessage("4", tool_call_id="1")
        llm.invoke([HumanMessage("a"), AIMessage([block]), result])
        assert '{"x": 3}' in model.prompts[-1]


def test_an_agent_s_loop(make: Make) -> None:
    def script(prompt: str) -> str:
        results = prompt.count("<tool_response>")
        return call_text(x=results + 1) if results < 3 else f"It took {results} calls."

    llm, _ = make(script)
    owls = llm.with_documents(OWLS)
    owls.adapt()
    bound = owls.bind_tools([add])
    messages: list[BaseMessage] = [HumanMessage("Count.")]
    cached = set()
    while True:
        message = bound.invoke(messages)
        messages.append(message)
        assert message.usage_metadata is not None
        cached.add(message.usage_metadata["input_token_details"]["cache_read"])
        if not message.tool_calls:
            break
        messages += [AddTool().invoke(call) for call in message.tool_calls]
    assert message.text == "It took 3 calls."
    assert [m.content for m in messages if isinstance(m, ToolMessage)] == ["1", "2", "3"]
    assert len(cached) == 1
    assert cached.pop() > 100


def test_one_document_for_all_tool_sets(llm: ChatTTT) -> None:
    owls = llm.with_documents(OWLS)
    owls.adapt()
    ids, cached = set(), set()
    tool_sets: list[list[Any]] = [[add], [add, look_up], [look_up], []]
    for tools in tool_sets:
        message = owls.bind_tools(tools).invoke("Go!", max_tokens=90)
        ids.add(message.response_metadata["ttt"]["document_id"])
        assert message.usage_metadata is not None
        cached.add(message.usage_metadata["input_token_details"]["cache_read"])
        assert message.response_metadata["ttt"]["documents_from"] == "instance"
    assert len(ids) == len(cached) == 1
    assert owls.bind_tools([add]).invoke("Go!").response_metadata["ttt"]["source"] == "memory"


def test_batches_are_the_answers_one_by_one(llm: ChatTTT) -> None:
    bound = llm.with_documents(OWLS).bind_tools([add, look_up], tool_choice="any")
    questions: list[Any] = ["Go!", "Where?", "Why is it that the owl lives in a tree?"]
    single = [calls(bound.invoke(question)) for question in questions]
    assert [calls(message) for message in bound.batch(questions)] == single
    assert [calls(m) for m in asyncio.run(bound.abatch(questions))] == single


def test_two_threads_with_documents_and_tools_of_their_own(make: Make) -> None:
    def script(prompt: str) -> str:
        name = "add" if '"name": "add"' in prompt else "look_up"
        word = "owl" if "owl" in prompt else "fox"
        return call_text("look_up", word=word) if name == "look_up" else call_text(x=len(word))

    llm, _ = make(script)
    cases: list[tuple[Any, Any, str]] = [(OWLS, look_up, "owl"), (FOXES, look_up, "fox")]
    found: dict[str, list[Any]] = {"owl": [], "fox": []}

    def ask(documents: str, tool: Any, word: str) -> None:
        bound = llm.with_documents(documents).bind_tools([tool])
        for _ in range(4):
            found[word].append(calls(bound.invoke("Which?")))

    threads = [threading.Thread(target=ask, args=case) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for word, answers in found.items():
        assert answers == [[("look_up", {"word": word})]] * 4


def test_a_finish_reason_for_calls_only(make: Make) -> None:
    llm, _ = make(lambda prompt: "no tool is needed")
    message = llm.bind_tools([add]).invoke("Go!")
    assert message.response_metadata["finish_reason"] == "stop"
    assert message.content == "no tool is needed"


def test_a_message_with_calls_goes_back_as_it_came(make: Make) -> None:
    """Whole or merged from chunks; neither carries its calls twice."""
    llm, model = make(lambda prompt: "done" if "tool_response" in prompt else call_text(x=3))
    bound = llm.bind_tools([add])
    prompts = []
    for said in (bound.invoke("Go!"), reduce(plus, bound.stream("Go!"))):
        result = ToolMessage("4", tool_call_id=said.tool_calls[0]["id"] or "")
        assert bound.invoke([HumanMessage("Go!"), said, result]).text == "done"
        prompts.append(model.prompts[-1])
    assert prompts[0] == prompts[1]
    assert prompts[0].count('{"x": 3}') == 1
