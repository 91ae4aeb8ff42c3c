"""`predict`, `apredict`, `stream` and `astream`: from a template to text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.instrumentation.events.llm import LLMPredictEndEvent, LLMPredictStartEvent
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import ChatPromptTemplate

from tests.llamaindex.conformance.events import STARTS, listening
from tests.llamaindex.conformance.hooks import Capable, Hooks
from tests.llamaindex.scripts import reader

PLAIN = PromptTemplate("amber falcon: {town}\n\nWhere is {who}?")
CHAT = ChatPromptTemplate(
    message_templates=[
        ChatMessage(role="system", content="amber falcon: {town}"),
        ChatMessage(role="user", content="Where is {who}?"),
    ]
)
WORDS = {"town": "Oslo", "who": "amber falcon"}


def predict(llm: Any, prompt: Any, **words: Any) -> str:
    """`predict`."""
    return str(llm.predict(prompt, **words))


def apredict(llm: Any, prompt: Any, **words: Any) -> str:
    """`apredict`."""
    return str(asyncio.run(llm.apredict(prompt, **words)))


def stream(llm: Any, prompt: Any, **words: Any) -> str:
    """`stream`."""
    return "".join(llm.stream(prompt, **words))


def astream(llm: Any, prompt: Any, **words: Any) -> str:
    """`astream`."""

    async def collect() -> str:
        return "".join([token async for token in await llm.astream(prompt, **words)])

    return asyncio.run(collect())


FAMILY = [predict, apredict, stream, astream]
Predict = Callable[..., str]


class Prediction(Hooks):
    """The `predict` family."""

    @pytest.mark.parametrize("method", FAMILY)
    @pytest.mark.parametrize("prompt", [PLAIN, CHAT], ids=["plain", "chat"])
    def test_a_filled_template_is_answered(
        self, capable: Capable, prompt: Any, method: Predict
    ) -> None:
        llm, model = capable(reader)
        assert method(llm, prompt, **WORDS) == "It is in Oslo."
        assert ("<|im_start|>system\namber falcon: Oslo" in model.prompts[-1]) == (prompt is CHAT)

    @pytest.mark.parametrize("method", FAMILY)
    def test_the_system_prompt_comes_along(self, capable: Capable, method: Predict) -> None:
        llm, model = capable(reader, system_prompt="amber falcon: Lima")
        template = PromptTemplate("Where is {who}?")
        assert method(llm, template, who="amber falcon") == "It is in Lima."
        assert model.prompts[-1].startswith("<|im_start|>system\namber falcon: Lima")

    @pytest.mark.parametrize("method", FAMILY)
    def test_partial_templates_and_functions_fill_in(
        self, capable: Capable, method: Predict
    ) -> None:
        llm, _ = capable(reader)
        prompt = PLAIN.partial_format(town="Lima")
        assert method(llm, prompt, who="amber falcon") == "It is in Lima."

    @pytest.mark.parametrize("method", FAMILY)
    def test_a_prediction_is_one_call(self, capable: Capable, method: Predict) -> None:
        llm, _ = capable(reader)
        with listening() as listener:
            method(llm, PLAIN, **WORDS)
        assert listener.count(STARTS) == 1
        assert listener.count((LLMPredictStartEvent,)) == 1
        # LlamaIndex tells of no end where a stream is returned.
        assert listener.count((LLMPredictEndEvent,)) == (method in (predict, apredict))

    def test_a_passage_by_name_is_text_of_the_prompt(self, capable: Capable) -> None:
        llm, _ = capable(reader)
        prompt = PromptTemplate("{context_str}\n\n{query_str}")
        words = {"context_str": "quiet harbour: Oslo", "query_str": "Where is quiet harbour?"}
        assert llm.predict(prompt, **words) == "It is in Oslo."
