"""Query and chat engines with a plain TTTLLM: what they hand over becomes a document, or does not.

Random weights: texts are gibberish. What was done stands in `raw["ttt"]`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document, PromptTemplate, SummaryIndex
from llama_index.core.chat_engine import ContextChatEngine, SimpleChatEngine
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import ChatMessage
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.prompts import ChatPromptTemplate
from llama_index.core.response_synthesizers import ResponseMode
from llama_index.core.schema import QueryBundle
from pydantic import BaseModel, Field

from llamaindex_ttt import TTTLLM
from tests.conftest import build_model
from ttt_core import AdaptationConfig, TTTEngine
from ttt_core.integration.prompt import ABOVE
from ttt_core.integration.registry import registry_for
from ttt_core.integration.resolver import reasons

OWLS = "\n\n".join(
    f"The owl number {number} lives in tree {number * 7 % 10}.\nIt eats {number * 3 % 10} mice."
    for number in range(12)
)
FOXES = OWLS.replace("owl", "fox").replace("mice", "eggs")
QUESTION = "Where?"
WINDOW = 4096

RECIPE = AdaptationConfig(
    steps=2, learning_rate=0.01, gate=False, early_stopping=False, held_out=2, clozes_per_step=2,
    max_drift=1e9,
)  # fmt: skip


@pytest.fixture(scope="module")
def weights() -> Any:
    return build_model("qwen3", max_position_embeddings=WINDOW)


@pytest.fixture
def engine(weights: Any, tokenizer: Any, tmp_path: Path) -> Iterator[TTTEngine]:
    with TTTEngine(weights, tokenizer, adaptation=RECIPE, store=tmp_path / "store") as engine:
        yield engine


@pytest.fixture
def llm(engine: TTTEngine) -> TTTLLM:
    return TTTLLM(engine=engine, max_tokens=4, min_document_tokens=200)


class _Seen(BaseEventHandler):
    """Keeps the messages of every call, and what was done."""

    prompts: list[str] = Field(default_factory=list)
    raws: list[dict[str, Any]] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "Seen"

    def handle(self, event: Any, **kwargs: Any) -> None:
        if event.class_name() == "LLMChatEndEvent" and event.response is not None:
            self.prompts.append("\n".join(str(one.content) for one in event.messages))
            self.raws.append(event.response.raw)

    @property
    def done(self) -> list[tuple[str, str]]:
        return [(raw["ttt"]["documents_from"], raw["ttt"]["decision"]) for raw in self.raws]

    @property
    def last(self) -> dict[str, Any]:
        told: dict[str, Any] = self.raws[-1]["ttt"]
        return told


@pytest.fixture
def seen() -> Iterator[_Seen]:
    handler, dispatcher = _Seen(), get_dispatcher()
    dispatcher.add_event_handler(handler)
    yield handler
    dispatcher.event_handlers.remove(handler)


def index(text: str = OWLS, **metadata: Any) -> SummaryIndex:
    """An index of one document in one node."""
    return SummaryIndex.from_documents(
        [Document(text=text, metadata=metadata)],
        transformations=[SentenceSplitter(chunk_size=100_000)],
    )


def pieces(text: str = OWLS, size: int = 60) -> SummaryIndex:
    """An index of one document in many nodes that overlap."""
    splitter = SentenceSplitter(chunk_size=size, chunk_overlap=15)
    return SummaryIndex.from_documents([Document(text=text)], transformations=[splitter])


# A long passage that nobody named


def test_a_long_passage_is_read_at_first_sight_and_adapted_to_at_second(
    engine: TTTEngine, llm: TTTLLM, seen: _Seen
) -> None:
    queries = index().as_query_engine(llm=llm)
    for _ in range(3):
        queries.query(QUESTION)
    assert seen.done == [("passage", "read"), ("passage", "adapted"), ("passage", "adapted")]
    assert [raw["ttt"]["source"] for raw in seen.raws] == ["read", "trained", "memory"]
    assert seen.last["document_id"] == engine.adapt(OWLS).id
    assert engine.adapt(OWLS).source == "memory"


def test_a_short_passage_is_answered_in_context(llm: TTTLLM, seen: _Seen) -> None:
    queries = index("The owl lives here.").as_query_engine(llm=llm)
    queries.query(QUESTION)
    queries.query(QUESTION)
    assert seen.done == [(None, "no_document")] * 2
    assert "The owl lives here." in seen.prompts[0]


def test_pieces_that_change_are_never_adapted_to(llm: TTTLLM, seen: _Seen) -> None:
    for text in (OWLS, FOXES):
        index(text).as_query_engine(llm=llm).query(QUESTION)
    assert seen.done == [("passage", "read")] * 2


def test_paths_and_dates_do_not_make_another_document(llm: TTTLLM, seen: _Seen) -> None:
    for day in (1, 2):
        touched = index(file_path=f"/home/{day}/owls.txt", last_modified_date=f"2026-11-0{day}")
        touched.as_query_engine(llm=llm).query(QUESTION)
    assert seen.done == [("passage", "read"), ("passage", "adapted")]
    assert seen.raws[0]["ttt"]["document_id"] == seen.last["document_id"]


def test_switched_off_all_stays_in_the_prompt(engine: TTTEngine, seen: _Seen) -> None:
    llm = TTTLLM(engine=engine, max_tokens=4, min_document_tokens=200, documents_from="off")
    queries = index().as_query_engine(llm=llm)
    queries.query(QUESTION)
    queries.query(QUESTION)
    assert seen.done == [(None, "no_document")] * 2


# Documents that were named before


def test_one_adapter_serves_all_prompts(engine: TTTEngine, llm: TTTLLM, seen: _Seen) -> None:
    key = llm.adapt(OWLS).key
    whole = index()
    modes = (ResponseMode.COMPACT, ResponseMode.TREE_SUMMARIZE, ResponseMode.SIMPLE_SUMMARIZE,
             ResponseMode.ACCUMULATE, ResponseMode.REFINE)  # fmt: skip
    for mode in modes:
        whole.as_query_engine(llm=llm, response_mode=mode).query(QUESTION)
    bare = PromptTemplate("{context_str}\n\n{query_str}")
    whole.as_query_engine(llm=llm, text_qa_template=bare).query(QUESTION)
    chat = ContextChatEngine.from_defaults(retriever=whole.as_retriever(), llm=llm)
    chat.chat(QUESTION)
    assert len(seen.raws) == len(modes) + 2
    for raw in seen.raws:
        told = raw["ttt"]
        assert (told["documents_from"], told["source"]) == ("passage", "memory")
        assert told["reasons"][0] == reasons.KNOWN_PASSAGE
    assert engine.adapt(OWLS).key == key


def test_the_prompt_is_the_templates_behind_the_document(
    engine: TTTEngine, llm: TTTLLM, seen: _Seen
) -> None:
    adapted = llm.adapt(OWLS)
    template = ChatPromptTemplate.from_messages(
        [("system", "Be brief."), ("user", "Read this: {context_str}\nNow: {query_str}")]
    )
    asked = f"Be brief.\n\nRead this: {ABOVE}\nNow: {QUESTION}"
    wanted = engine.generate(adapted, asked, max_new_tokens=4)
    answer = llm.predict(template, context_str=OWLS, query_str=QUESTION)
    assert answer == wanted.text
    assert seen.raws[0]["usage"]["prompt_tokens"] == wanted.usage.prompt_tokens


def test_the_instances_own_system_prompt_is_told_behind_the_document(
    engine: TTTEngine, seen: _Seen
) -> None:
    llm = TTTLLM(engine=engine, max_tokens=4, system_prompt="You know owls.")
    adapted = llm.adapt(OWLS)
    asked = f"You know owls.\n\n{ABOVE}\n{QUESTION}"
    wanted = engine.generate(adapted, asked, max_new_tokens=4)
    template = PromptTemplate("{context_str}\n{query_str}")
    assert llm.predict(template, context_str=OWLS, query_str=QUESTION) == wanted.text
    assert seen.last["source"] == "memory"
    llm.for_documents(OWLS).chat([ChatMessage(content=QUESTION)])
    assert seen.last["source"] == "memory"


def test_prompts_that_ask_nothing_are_about_the_passage_itself(llm: TTTLLM, seen: _Seen) -> None:
    llm.adapt(OWLS)
    for _ in range(2):
        llm.predict(PromptTemplate("Sum this up: {context_str}"), context_str=OWLS)
    assert seen.done == [(None, "no_document")] * 2


def test_pieces_of_a_known_document_stay_in_the_prompt(
    engine: TTTEngine, llm: TTTLLM, seen: _Seen
) -> None:
    adapted = llm.adapt(OWLS)
    piece = "\n\n".join(OWLS.split("\n\n")[3:5])
    template = PromptTemplate("{context_str}\n{query_str}")
    wanted = engine.generate(adapted, f"{piece}\n{QUESTION}", max_new_tokens=4)
    assert llm.predict(template, context_str=piece, query_str=QUESTION) == wanted.text
    assert seen.last["document_id"] == adapted.id
    assert seen.last["reasons"][0] == reasons.KNOWN_PIECES


def test_many_overlapping_nodes_are_their_document(llm: TTTLLM, seen: _Seen) -> None:
    adapted = llm.adapt(OWLS)
    many = pieces()
    assert len(many.docstore.docs) > 2
    many.as_query_engine(llm=llm).query(QUESTION)
    assert len(seen.raws) == 1
    assert seen.last["document_id"] == adapted.id


def test_earlier_answers_are_no_part_of_the_document(llm: TTTLLM, seen: _Seen) -> None:
    adapted = llm.adapt(OWLS)
    many = pieces()
    many.as_query_engine(llm=llm, response_mode=ResponseMode.REFINE).query(QUESTION)
    assert len(seen.raws) == len(many.docstore.docs)
    assert {raw["ttt"]["document_id"] for raw in seen.raws} == {adapted.id}


def test_lists_are_joined(llm: TTTLLM, seen: _Seen) -> None:
    template = PromptTemplate("{context_str}\n{query_str}")
    llm.predict(template, context_str=["One owl.", "Two owls."], query_str=QUESTION)
    assert seen.prompts == ["One owl.\n\nTwo owls.\nWhere?"]
    summary = index('It\'s "here".').as_query_engine(
        llm=llm, response_mode=ResponseMode.SIMPLE_SUMMARIZE
    )
    summary.query(QUESTION)
    assert "['" not in seen.prompts[-1]
    assert 'It\'s "here".' in seen.prompts[-1]


def test_a_question_passed_as_context_is_a_question(llm: TTTLLM, seen: _Seen) -> None:
    llm.adapt(OWLS)
    HyDEQueryTransform(llm=llm).run(QueryBundle(QUESTION))
    assert seen.done == [(None, "no_document")]


@pytest.mark.parametrize("streaming", [False, True])
def test_asynchronous_and_streaming_engines(llm: TTTLLM, seen: _Seen, streaming: bool) -> None:
    adapted = llm.adapt(OWLS)
    queries = index().as_query_engine(llm=llm, streaming=streaming)

    async def ask() -> None:
        response: Any = await queries.aquery(QUESTION)
        if streaming:
            assert [piece async for piece in response.async_response_gen()]

    asyncio.run(ask())
    response: Any = queries.query(QUESTION)
    assert not streaming or list(response.response_gen)
    assert [raw["ttt"]["document_id"] for raw in seen.raws] == [adapted.id] * 2


# What does not fit


def test_a_passage_that_is_no_document_of_this_window_is_answered_in_context(
    engine: TTTEngine, seen: _Seen
) -> None:
    """Some of the window is kept from documents, and none from prompts."""
    llm = TTTLLM(engine=engine, max_tokens=4, min_document_tokens=200)
    long = "\n\n".join([OWLS] * 20)
    text = long[: int(len(long) * (WINDOW - 100) / engine.count_tokens(long))]
    llm.predict(PromptTemplate("{context_str}\n{query_str}"), context_str=text, query_str="?")
    assert seen.done == [(None, "no_document")]
    assert reasons.DOES_NOT_FIT in seen.last["reasons"]


@pytest.mark.parametrize("own", [False, True])
def test_pieces_that_do_not_fit_beside_their_document_are_left_out(
    engine: TTTEngine, seen: _Seen, own: bool
) -> None:
    lines = [f"The owl number {number} lives in tree {number * 7 % 31}." for number in range(75)]
    document = "\n\n".join(lines)
    llm = TTTLLM(engine=engine, max_tokens=4)
    llm = llm.for_documents(document) if own else llm
    adapted = llm.adapt(document)
    assert WINDOW / 2 < adapted.n_tokens < WINDOW * 0.8
    some = "\n\n".join(lines[: len(lines) * 3 // 4])
    llm.predict(PromptTemplate("{context_str}\n{query_str}"), context_str=some, query_str="?")
    assert seen.last["document_id"] == adapted.id
    assert reasons.PIECES_LEFT_OUT in seen.last["reasons"]


# Documents of the instance


def test_what_the_documents_hold_is_left_out_of_the_prompt(
    engine: TTTEngine, llm: TTTLLM, seen: _Seen
) -> None:
    owls = llm.for_documents(OWLS)
    pieces().as_query_engine(llm=owls).query(QUESTION)
    assert seen.done == [("instance", "adapted")]
    assert reasons.OWN_PASSAGE in seen.last["reasons"]
    assert seen.raws[0]["usage"]["prompt_tokens"] < 2 * engine.count_tokens(OWLS)


def test_what_they_do_not_hold_stays(llm: TTTLLM, seen: _Seen) -> None:
    owls = llm.for_documents(OWLS)
    index("Foxes have holes.").as_query_engine(llm=owls).query(QUESTION)
    template = PromptTemplate("{context_str}\n{query_str}")
    told = owls.chat([ChatMessage(content=f"Foxes have holes.\n{QUESTION}")])
    assert owls.predict(template, context_str="Foxes have holes.", query_str=QUESTION) == (
        told.message.content
    )


class Owl(BaseModel):
    tree: int


def test_structured_engines_find_documents(llm: TTTLLM, seen: _Seen) -> None:
    llm = llm.model_copy(update={"max_tokens": 64})
    adapted = llm.adapt(OWLS)
    structured = index().as_query_engine(llm=llm.as_structured_llm(Owl))
    options = index().as_query_engine(llm=llm, output_cls=Owl)
    assert isinstance(structured.query(QUESTION).response, Owl)
    assert isinstance(options.query(QUESTION).response, Owl)
    ids = [raw["ttt"]["document_id"] for raw in seen.raws if isinstance(raw, dict)]
    assert ids
    assert set(ids) == {adapted.id}


# Conversations


def test_a_long_conversation_loses_its_oldest_turns(engine: TTTEngine) -> None:
    llm = TTTLLM(engine=engine, max_tokens=8)
    owls = llm.for_documents(OWLS)
    history = [
        ChatMessage(role=role, content=f"{number} {role}. " * 20)
        for number in range(40)
        for role in ("user", "assistant")
    ]
    answer = owls.chat([*history, ChatMessage(content=QUESTION)])
    dropped = answer.raw["ttt"]["dropped_messages"]
    assert 0 < dropped < len(history)
    assert dropped % 2 == 0
    kept = owls.chat([*history[dropped:], ChatMessage(content=QUESTION)])
    assert kept.message.content == answer.message.content
    assert kept.raw["ttt"]["dropped_messages"] == 0
    strict = owls.model_copy(update={"trim_history": False})
    with pytest.raises(ValueError, match="window is 4,096"):
        strict.chat([*history, ChatMessage(content=QUESTION)])


def test_a_chat_engine_goes_on_for_longer_than_the_window(engine: TTTEngine) -> None:
    llm = TTTLLM(engine=engine, max_tokens=200).for_documents(OWLS)
    chat = SimpleChatEngine.from_defaults(llm=llm)
    for number in range(15):
        response = chat.chat(f"{number}: {QUESTION} " * 20)
        assert response.response is not None


def test_nothing_of_it_is_in_what_callbacks_learn_of_the_llm(llm: TTTLLM) -> None:
    llm.adapt(OWLS)
    registered = registry_for(llm._engine())
    assert registered.covering(OWLS) is not None
    assert "owl" not in json.dumps(llm.for_documents(OWLS).to_payload())
