"""Function calling: calls are offered, enforced, told apart and answered."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool

from tests.llamaindex.conformance.hooks import Capable, Hooks, needs_tools
from tests.llamaindex.scripts import call, clerk, hello


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def flip(up: bool) -> str:
    """Turn the page up or down."""
    return "up" if up else "down"


def refuse(a: int, b: int) -> int:
    """Multiply, if that could be done."""
    raise RuntimeError("out of numbers")


MULTIPLY = FunctionTool.from_defaults(multiply)
FLIP = FunctionTool.from_defaults(flip)
ONE = "What is 6 times 7?"
TWO = "What are 6 times 7 and 2 times 3?"

Method = Callable[..., Sequence[Any]]


def chat(llm: Any, tools: Sequence[Any], **options: Any) -> Sequence[Any]:
    """`chat_with_tools`."""
    return [llm.chat_with_tools(tools, **options)]


def achat(llm: Any, tools: Sequence[Any], **options: Any) -> Sequence[Any]:
    """`achat_with_tools`."""
    return [asyncio.run(llm.achat_with_tools(tools, **options))]


def stream(llm: Any, tools: Sequence[Any], **options: Any) -> Sequence[Any]:
    """`stream_chat_with_tools`."""
    return list(llm.stream_chat_with_tools(tools, **options))


def astream(llm: Any, tools: Sequence[Any], **options: Any) -> Sequence[Any]:
    """`astream_chat_with_tools`."""

    async def collect() -> Sequence[Any]:
        return [r async for r in await llm.astream_chat_with_tools(tools, **options)]

    return asyncio.run(collect())


FAMILY = [chat, achat, stream, astream]
STREAMS = [stream, astream]


def calls_of(llm: Any, response: Any) -> list[tuple[str, dict[str, Any]]]:
    """The calls of a response, without their ids."""
    found = llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
    return [(selection.tool_name, selection.tool_kwargs) for selection in found]


class Tools(Hooks):
    """The `chat_with_tools` family, and `predict_and_call` on top of it."""

    @pytest.fixture
    def calling(self, capable: Capable) -> Capable:
        """As `capable`, where tools are claimed."""

        def make(script: Any, **options: Any) -> Any:
            llm, model = capable(script, **options)
            needs_tools(llm)
            return llm, model

        return make

    @pytest.mark.parametrize("method", FAMILY)
    def test_the_model_calls_a_tool(self, calling: Capable, method: Method) -> None:
        llm, _ = calling(clerk)
        last = method(llm, [MULTIPLY, FLIP], user_msg=ONE)[-1]
        assert calls_of(llm, last) == [("multiply", {"a": 6, "b": 7})]

    @pytest.mark.parametrize("method", FAMILY)
    def test_calls_are_in_both_places_that_users_of_llama_index_look_in(
        self, calling: Capable, method: Method
    ) -> None:
        llm, _ = calling(clerk)
        message = method(llm, [MULTIPLY], user_msg=ONE)[-1].message
        (block,) = [b for b in message.blocks if isinstance(b, ToolCallBlock)]
        arguments = block.tool_kwargs
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
        assert (block.tool_name, arguments) == ("multiply", {"a": 6, "b": 7})
        assert len(message.additional_kwargs["tool_calls"]) == 1

    @pytest.mark.parametrize("method", STREAMS)
    def test_every_chunk_can_be_asked_for_calls(self, calling: Capable, method: Method) -> None:
        llm, _ = calling(clerk)
        seen = [calls_of(llm, chunk) for chunk in method(llm, [MULTIPLY], user_msg=ONE)]
        counts = [len(calls) for calls in seen]
        assert counts == sorted(counts)
        assert all(isinstance(kwargs, dict) for calls in seen for _, kwargs in calls)
        assert all(name == "multiply" for calls in seen for name, _ in calls)

    @pytest.mark.parametrize("method", FAMILY)
    def test_the_text_of_a_call_is_not_the_text_of_the_answer(
        self, calling: Capable, method: Method
    ) -> None:
        llm, _ = calling(clerk)
        responses = method(llm, [MULTIPLY], user_msg=ONE)
        assert all("multiply" not in (r.message.content or "") for r in responses)
        assert all("multiply" not in (r.delta or "") for r in responses)

    @pytest.mark.parametrize("method", FAMILY)
    def test_where_nothing_is_called_there_are_no_calls(
        self, calling: Capable, method: Method
    ) -> None:
        llm, _ = calling(hello)
        last = method(llm, [MULTIPLY], user_msg="Hello!")[-1]
        assert calls_of(llm, last) == []
        assert last.message.content == "Hello."
        with pytest.raises(ValueError, match="tool"):
            llm.get_tool_calls_from_response(last, error_on_no_tool_call=True)

    @pytest.mark.parametrize("method", FAMILY)
    def test_a_required_call_is_made_by_a_model_that_would_not(
        self, calling: Capable, method: Method
    ) -> None:
        llm, _ = calling(hello)
        last = method(llm, [FLIP], user_msg="Hello!", tool_required=True)[-1]
        ((name, arguments),) = calls_of(llm, last)
        assert name == "flip"
        assert arguments.keys() == {"up"}
        assert isinstance(arguments["up"], bool)

    @pytest.mark.parametrize("method", FAMILY)
    def test_a_named_tool_is_the_one_that_is_called(self, calling: Capable, method: Method) -> None:
        llm, _ = calling(clerk)
        last = method(llm, [MULTIPLY, FLIP], user_msg=ONE, tool_choice="flip")[-1]
        assert {name for name, _ in calls_of(llm, last)} == {"flip"}

    @pytest.mark.parametrize("method", FAMILY)
    def test_no_tool_choice_is_free_choice(self, calling: Capable, method: Method) -> None:
        llm, _ = calling(hello)
        last = method(llm, [FLIP], user_msg="Hello!", tool_choice=None)[-1]
        assert calls_of(llm, last) == []

    @pytest.mark.parametrize("method", FAMILY)
    @pytest.mark.parametrize("parallel", [True, False], ids=["parallel", "one"])
    def test_as_many_calls_at_once_as_are_allowed(
        self, calling: Capable, method: Method, parallel: bool
    ) -> None:
        llm, _ = calling(clerk)
        last = method(llm, [MULTIPLY], user_msg=TWO, allow_parallel_tool_calls=parallel)[-1]
        both = [("multiply", {"a": 6, "b": 7}), ("multiply", {"a": 2, "b": 3})]
        assert calls_of(llm, last) == (both if parallel else both[:1])

    def test_ids_of_calls_are_unique(self, calling: Capable) -> None:
        llm, _ = calling(clerk)
        responses = [
            llm.chat_with_tools([MULTIPLY], user_msg=TWO, allow_parallel_tool_calls=True)
            for _ in range(2)
        ]
        ids = [
            selection.tool_id
            for response in responses
            for selection in llm.get_tool_calls_from_response(response)
        ]
        assert all(ids)
        assert len(set(ids)) == len(ids) == 4

    @pytest.mark.parametrize("method", FAMILY)
    def test_the_history_stays_the_caller_s(self, calling: Capable, method: Method) -> None:
        llm, _ = calling(clerk)
        history = [ChatMessage(role="system", content="Be brief.")]
        before = copy.deepcopy(history)
        method(llm, [MULTIPLY], user_msg=ONE, chat_history=history)
        assert history == before

    @pytest.mark.parametrize("through_json", [False, True], ids=["as it is", "through JSON"])
    def test_the_result_of_a_call_is_told_to_the_model(
        self, calling: Capable, through_json: bool
    ) -> None:
        llm, model = calling(clerk)
        asked = ChatMessage(role="user", content=ONE)
        response = llm.chat_with_tools([MULTIPLY], chat_history=[asked])
        (selection,) = llm.get_tool_calls_from_response(response)
        result = ChatMessage(
            role="tool", content="42", additional_kwargs={"tool_call_id": selection.tool_id}
        )
        history = [asked, response.message, result]
        if through_json:
            history = [ChatMessage.model_validate_json(m.model_dump_json()) for m in history]
        answer = llm.chat_with_tools([MULTIPLY], chat_history=history)
        assert answer.message.content == "I get 42."
        assert calls_of(llm, answer) == []
        assert call("multiply", a=6, b=7) in model.prompts[-1]

    def test_predict_and_call_calls(self, calling: Capable) -> None:
        llm, _ = calling(clerk)
        assert llm.predict_and_call([MULTIPLY], user_msg=ONE).response == "42"
        found = asyncio.run(llm.apredict_and_call([MULTIPLY], user_msg=ONE))
        assert found.response == "42"
        many = llm.predict_and_call([MULTIPLY], user_msg=TWO, allow_parallel_tool_calls=True)
        assert [source.content for source in many.sources] == ["42", "6"]

    def test_a_tool_s_error_is_raised_where_that_is_asked_for(self, calling: Capable) -> None:
        llm, _ = calling(clerk)
        broken = FunctionTool.from_defaults(refuse, name="multiply")
        assert "out of numbers" in llm.predict_and_call([broken], user_msg=ONE).response
        with pytest.raises(ValueError, match="out of numbers"):
            llm.predict_and_call([broken], user_msg=ONE, error_on_tool_error=True)
        with pytest.raises(ValueError, match="out of numbers"):
            asyncio.run(llm.apredict_and_call([broken], user_msg=ONE, error_on_tool_error=True))

    def test_tools_show_in_the_payload_of_no_other_call(self, calling: Capable) -> None:
        llm, model = calling(clerk)
        llm.chat_with_tools([MULTIPLY], user_msg=ONE)
        llm.chat([ChatMessage(role="user", content=ONE)])
        assert '"name": "multiply"' in model.prompts[0]
        assert '"name": "multiply"' not in model.prompts[-1]
