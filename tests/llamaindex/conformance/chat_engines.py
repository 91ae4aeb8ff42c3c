"""Chat engines, with their memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.memory import ChatMemoryBuffer, Memory

from tests.llamaindex.conformance.hooks import Capable, Hooks, forgetful_memory
from tests.llamaindex.conformance.synthesis import DOCUMENTS, Letters
from tests.llamaindex.scripts import reader, rememberer

FIRST = "Where is amber falcon?"
SECOND = "Where is quiet harbour?"
MODES = ["context", "condense_plus_context", "condense_question"]


def engine_of(llm: Any, mode: str, **options: Any) -> Any:
    """A chat engine over the suite's documents."""
    Settings.embed_model = Letters()
    index = VectorStoreIndex.from_documents(DOCUMENTS)
    return index.as_chat_engine(chat_mode=ChatMode(mode), llm=llm, **options)


@forgetful_memory
class ChatEngines(Hooks):
    """Conversations about an index, and about nothing."""

    @pytest.mark.parametrize("mode", MODES)
    def test_a_conversation_is_answered_from_the_index(self, capable: Capable, mode: str) -> None:
        llm, _ = capable(reader)
        engine = engine_of(llm, mode)
        assert str(engine.chat(FIRST)) == "It is in Oslo."
        assert str(engine.chat(SECOND)) == "It is in Lima."
        assert [message.role.value for message in engine.chat_history] == ["user", "assistant"] * 2

    @pytest.mark.parametrize("mode", MODES)
    def test_a_conversation_goes_on_beside_the_event_loop(
        self, capable: Capable, mode: str
    ) -> None:
        llm, _ = capable(reader)
        engine = engine_of(llm, mode)

        async def talk() -> list[str]:
            return [str(await engine.achat(FIRST)), str(await engine.achat(SECOND))]

        assert asyncio.run(talk()) == ["It is in Oslo.", "It is in Lima."]

    @pytest.mark.parametrize("mode", MODES)
    def test_answers_are_streamed_and_remembered(self, capable: Capable, mode: str) -> None:
        llm, _ = capable(reader)
        engine = engine_of(llm, mode)
        assert "".join(engine.stream_chat(FIRST).response_gen) == "It is in Oslo."
        assert "".join(engine.stream_chat(SECOND).response_gen) == "It is in Lima."
        said = [message.content for message in engine.chat_history]
        assert said == [FIRST, "It is in Oslo.", SECOND, "It is in Lima."]

    @pytest.mark.parametrize("mode", MODES)
    def test_answers_are_streamed_beside_the_event_loop(self, capable: Capable, mode: str) -> None:
        llm, _ = capable(reader)
        engine = engine_of(llm, mode)

        async def talk() -> str:
            response = await engine.astream_chat(FIRST)
            return "".join([piece async for piece in response.async_response_gen()])

        assert asyncio.run(talk()) == "It is in Oslo."

    @pytest.mark.parametrize("mode", ["context", "condense_plus_context"])
    def test_the_model_is_told_what_was_said_before(self, capable: Capable, mode: str) -> None:
        llm, model = capable(reader)
        engine = engine_of(llm, mode, system_prompt="Be brief.")
        engine.chat(FIRST)
        engine.chat(SECOND)
        assert FIRST in model.prompts[-1]
        assert "Be brief." in model.prompts[-1]
        assert model.prompts[-1].index(FIRST) < model.prompts[-1].rindex(SECOND)

    @pytest.mark.parametrize("kind", [ChatMemoryBuffer, Memory])
    def test_a_simple_engine_remembers(self, capable: Capable, kind: Any) -> None:
        llm, _ = capable(rememberer)
        engine = SimpleChatEngine.from_defaults(llm=llm, memory=kind.from_defaults(token_limit=900))
        engine.chat("My name is Ann.")
        assert str(engine.chat("Who am I?")) == "You are Ann."
        assert "".join(engine.stream_chat("And now?").response_gen) == "You are Ann."
        assert str(asyncio.run(engine.achat("Still?"))) == "You are Ann."
        engine.reset()
        assert str(engine.chat("Who am I?")) == "I do not know you."

    def test_a_reset_conversation_is_forgotten(self, capable: Capable) -> None:
        llm, model = capable(reader)
        engine = engine_of(llm, "context")
        engine.chat(FIRST)
        engine.reset()
        engine.chat(SECOND)
        assert FIRST not in model.prompts[-1]
