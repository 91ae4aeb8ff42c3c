"""Response synthesizers and query engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core import (
    Document,
    PromptHelper,
    Settings,
    SummaryIndex,
    VectorStoreIndex,
    get_response_synthesizer,
)
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.prompts.default_prompt_selectors import (
    DEFAULT_REFINE_PROMPT_SEL,
    DEFAULT_TEXT_QA_PROMPT_SEL,
)
from llama_index.core.response_synthesizers import ResponseMode
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import BaseModel

from tests.conftest import build_model
from tests.llamaindex.conformance.hooks import Capable, Hooks
from tests.llamaindex.scripts import FACTS, author, reader

NODES = [
    NodeWithScore(node=TextNode(text=f"In the list:\n{who}: {town}"), score=1.0)
    for who, town in FACTS.items()
]
DOCUMENTS = [Document(text=node.text) for node in NODES]
QUESTION = "Where is quiet harbour?"
ANSWER = "It is in Lima."

ANSWERING = [
    ResponseMode.REFINE,
    ResponseMode.COMPACT,
    ResponseMode.SIMPLE_SUMMARIZE,
    ResponseMode.TREE_SUMMARIZE,
    ResponseMode.ACCUMULATE,
    ResponseMode.COMPACT_ACCUMULATE,
]
"""Those that answer from the nodes."""

STREAMING = [
    ResponseMode.REFINE,
    ResponseMode.COMPACT,
    ResponseMode.SIMPLE_SUMMARIZE,
    ResponseMode.TREE_SUMMARIZE,
    ResponseMode.GENERATION,
]
"""Those that can."""


class Letters(BaseEmbedding):
    """Texts are near each other that are made of the same letters."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return [1.0 + text.lower().count(chr(97 + n)) for n in range(26)]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class Song(BaseModel):
    """A song."""

    title: str
    year: int


class Synthesis(Hooks):
    """From retrieved nodes to answers."""

    @pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
    @pytest.mark.parametrize("mode", ANSWERING)
    def test_a_synthesizer_answers_from_the_nodes(
        self, capable: Capable, mode: ResponseMode, use_async: bool
    ) -> None:
        llm, _ = capable(reader)
        synthesizer = get_response_synthesizer(response_mode=mode, llm=llm)
        if use_async:
            response = asyncio.run(synthesizer.asynthesize(QUESTION, NODES))
        else:
            response = synthesizer.synthesize(QUESTION, NODES)
        assert ANSWER in str(response)
        assert [node.node_id for node in response.source_nodes] == [n.node_id for n in NODES]

    @pytest.mark.parametrize("mode", ANSWERING)
    def test_the_nodes_reach_the_model_as_they_are(
        self, capable: Capable, mode: ResponseMode
    ) -> None:
        llm, model = capable(reader)
        get_response_synthesizer(response_mode=mode, llm=llm).synthesize(QUESTION, NODES)
        told = "".join(model.prompts)
        assert all(node.text in told for node in NODES)
        assert "['" not in told
        assert "\\n" not in told

    @pytest.mark.parametrize("mode", STREAMING)
    def test_a_synthesizer_streams(self, capable: Capable, mode: ResponseMode) -> None:
        llm, _ = capable(reader)
        options = {"response_mode": mode, "llm": llm, "streaming": True}
        expected = "I do not know." if mode == ResponseMode.GENERATION else ANSWER
        response: Any = get_response_synthesizer(**options).synthesize(QUESTION, NODES)
        assert "".join(response.response_gen) == expected

        async def collect() -> str:
            again: Any = await get_response_synthesizer(**options).asynthesize(QUESTION, NODES)
            return "".join([piece async for piece in again.async_response_gen()])

        assert asyncio.run(collect()) == expected

    def test_modes_without_nodes_or_calls_work(self, capable: Capable) -> None:
        llm, model = capable(reader)
        Settings.llm = llm  # LlamaIndex asks for it where no LLM is used at all.

        def ask(mode: ResponseMode) -> str:
            synthesizer = get_response_synthesizer(response_mode=mode, llm=llm)
            return str(synthesizer.synthesize(QUESTION, NODES))

        assert ask(ResponseMode.GENERATION) == "I do not know."
        asked = len(model.prompts)
        assert ask(ResponseMode.NO_TEXT) in ("", "None")
        assert all(node.text in ask(ResponseMode.CONTEXT_ONLY) for node in NODES)
        assert len(model.prompts) == asked

    @pytest.mark.parametrize(
        "mode", [ResponseMode.COMPACT, ResponseMode.REFINE, ResponseMode.TREE_SUMMARIZE]
    )
    def test_a_synthesizer_makes_objects(self, capable: Capable, mode: ResponseMode) -> None:
        llm, _ = capable(author)
        synthesizer = get_response_synthesizer(response_mode=mode, llm=llm, output_cls=Song)
        response: Any = synthesizer.synthesize("Describe a Song.", NODES[:1])
        assert response.response == Song(title="Night", year=1999)

    @pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])
    @pytest.mark.parametrize("kind", [SummaryIndex, VectorStoreIndex])
    def test_an_index_answers_questions(self, capable: Capable, kind: Any, use_async: bool) -> None:
        llm, _ = capable(reader)
        Settings.embed_model = Letters()
        engine = kind.from_documents(DOCUMENTS).as_query_engine(llm=llm)
        if use_async:
            assert str(asyncio.run(engine.aquery(QUESTION))) == ANSWER
        else:
            assert str(engine.query(QUESTION)) == ANSWER

    @pytest.mark.parametrize("kind", [SummaryIndex, VectorStoreIndex])
    def test_an_index_streams_answers(self, capable: Capable, kind: Any) -> None:
        llm, _ = capable(reader)
        Settings.embed_model = Letters()
        engine = kind.from_documents(DOCUMENTS).as_query_engine(llm=llm, streaming=True)
        assert "".join(engine.query(QUESTION).response_gen) == ANSWER

    def test_the_global_setting_is_enough(self, capable: Capable) -> None:
        llm, _ = capable(reader)
        Settings.llm = llm
        assert Settings.llm is llm
        engine = SummaryIndex.from_documents(DOCUMENTS).as_query_engine()
        assert str(engine.query(QUESTION)) == ANSWER

    def test_a_structured_llm_answers_in_a_query_engine(self, capable: Capable) -> None:
        llm, _ = capable(author)
        songs = llm.as_structured_llm(Song)
        engine = SummaryIndex.from_documents(DOCUMENTS[:1]).as_query_engine(llm=songs)
        response: Any = engine.query("Describe a Song.")
        assert response.response == Song(title="Night", year=1999)

    @pytest.mark.parametrize("window", [1024, 4096, 32768])
    def test_prompts_leave_room_for_nodes(
        self, make_llm: Callable[..., Any], tokenizer: Any, window: int
    ) -> None:
        """With the prompts and settings that LlamaIndex and the class have by default."""
        llm = make_llm(build_model("qwen3", max_position_embeddings=window), tokenizer)
        assert 0 < llm.metadata.num_output < llm.metadata.context_window <= window
        helper = PromptHelper.from_llm_metadata(llm.metadata)
        for selector in (DEFAULT_TEXT_QA_PROMPT_SEL, DEFAULT_REFINE_PROMPT_SEL):
            prompt = selector.select(llm=llm).partial_format(query_str=QUESTION)
            assert helper.repack(prompt, ["the owl " * 20], llm=llm)
