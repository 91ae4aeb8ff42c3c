"""TTTSynthesizer answers once, from the whole documents of however many pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import PromptTemplate, Settings, VectorStoreIndex
from llama_index.core.base.response.schema import PydanticResponse, Response, StreamingResponse
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import CompactAndRefine
from llama_index.core.schema import BaseNode, Document
from pydantic import BaseModel, Field

from llamaindex_ttt import TTTLLM
from llamaindex_ttt.synthesizer import TTTSynthesizer
from tests.llamaindex.retrieval import (
    ANIMALS,
    RECIPE,
    Calls,
    Fixed,
    index_of,
    noted_calls,
    orphan,
    say,
    scored,
    split,
    story,
)
from tests.scripted import ScriptedModel, scripted_tokenizer
from ttt_core import ConfigError, TTTEngine

OWLS, FOXES, ELKS = (Document(text=story(animal)) for animal in ANIMALS)
ALL = [OWLS, FOXES, ELKS]
PIECES = [split([document]) for document in ALL]


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel(say, scripted_tokenizer())


@pytest.fixture
def engine(model: ScriptedModel, tmp_path: Path) -> Iterator[TTTEngine]:
    tokenizer = scripted_tokenizer()
    with TTTEngine(model, tokenizer, adaptation=RECIPE, store=tmp_path / "store") as engine:
        yield engine


@pytest.fixture
def llm(engine: TTTEngine) -> TTTLLM:
    return TTTLLM(engine=engine, max_tokens=32)


@pytest.fixture
def calls() -> Iterator[Calls]:
    with noted_calls() as calls:
        yield calls


@pytest.fixture(scope="module")
def index() -> VectorStoreIndex:
    return index_of(ALL)


# Each asks in another way, and gives the answer's text and the response.


def whole(synthesizer: TTTSynthesizer, nodes: Sequence[BaseNode]) -> tuple[str, Any]:
    response = synthesizer.synthesize("Who is where?", scored(nodes))
    return str(response), response


def beside_loop(synthesizer: TTTSynthesizer, nodes: Sequence[BaseNode]) -> tuple[str, Any]:
    response = asyncio.run(synthesizer.asynthesize("Who is where?", scored(nodes)))
    return str(response), response


def streamed(synthesizer: TTTSynthesizer, nodes: Sequence[BaseNode]) -> tuple[str, Any]:
    synthesizer._streaming = True
    response = synthesizer.synthesize("Who is where?", scored(nodes))
    assert isinstance(response, StreamingResponse)
    pieces = list(response.response_gen)
    assert len(pieces) > 1
    return "".join(pieces), response


def streamed_beside_loop(synthesizer: TTTSynthesizer, nodes: Sequence[BaseNode]) -> tuple[str, Any]:
    synthesizer._streaming = True

    async def ask() -> tuple[list[str], Any]:
        response: Any = await synthesizer.asynthesize("Who is where?", scored(nodes))
        return [piece async for piece in response.async_response_gen()], response

    pieces, response = asyncio.run(ask())
    assert len(pieces) > 1
    return "".join(pieces), response


WAYS = [whole, beside_loop, streamed, streamed_beside_loop]


@pytest.mark.parametrize("way", WAYS)
def test_one_call_however_many_pieces(llm: TTTLLM, calls: Calls, way: Any) -> None:
    synthesizer = TTTSynthesizer(llm=llm, documents=ALL)
    for nodes in (PIECES[0], PIECES[0][2:3]):
        answer, response = way(synthesizer, nodes)
        assert answer == "24 of owl"
        assert [found.node for found in response.source_nodes] == nodes
    assert [done["source"] for done in calls.done] == ["trained", "memory"]
    assert {done["document_id"] for done in calls.done} == {llm.adapt(OWLS).id}
    assert {done["documents_from"] for done in calls.done} == {"passage"}


@pytest.mark.parametrize("way", WAYS)
def test_several_documents_are_read_together_in_one_order(
    llm: TTTLLM, calls: Calls, way: Any
) -> None:
    synthesizer = TTTSynthesizer(llm=llm, documents=ALL)
    for nodes in ([PIECES[2][0], PIECES[0][0]], [*PIECES[0], PIECES[2][1]]):
        assert way(synthesizer, nodes)[0] == "24 of owl, 24 of elk"
    # Documents that met once may never meet again.
    assert [done["source"] for done in calls.done] == ["read", "trained"]
    assert {done["document_id"] for done in calls.done} == {llm.adapt([OWLS, ELKS]).id}


@pytest.mark.parametrize("way", WAYS)
def test_pieces_without_a_document_stay_in_the_prompt(
    llm: TTTLLM, model: ScriptedModel, calls: Calls, way: Any
) -> None:
    synthesizer = TTTSynthesizer(llm=llm, documents=ALL, max_documents=1)
    nodes = [PIECES[0][1], PIECES[1][1], orphan("Lions are loud.")]
    answer, response = way(synthesizer, nodes)
    foxes = say(nodes[1].get_content())
    assert answer == f"24 of owl, {foxes}"
    assert foxes != "24 of fox"
    assert "Lions are loud." in model.prompts[-1]
    assert len(response.source_nodes) == 3
    assert [done["document_id"] for done in calls.done] == [llm.adapt(OWLS).id]


@pytest.mark.parametrize("way", WAYS)
def test_without_any_document_it_compacts_and_refines(llm: TTTLLM, calls: Calls, way: Any) -> None:
    synthesizer = TTTSynthesizer(llm=llm, documents=[ELKS])
    nodes = [PIECES[0][1], PIECES[1][1]]
    theirs = CompactAndRefine(llm=llm).synthesize("Who is where?", scored(nodes))
    assert way(synthesizer, nodes)[0] == str(theirs)
    assert [done["document_id"] for done in calls.done] == [None, None]


def test_documents_that_do_not_fit_are_left_to_refining(tmp_path: Path, calls: Calls) -> None:
    tokenizer = scripted_tokenizer()
    small = ScriptedModel(say, tokenizer, window=2048)
    with TTTEngine(small, tokenizer, adaptation=RECIPE, store=tmp_path / "store") as engine:
        llm = TTTLLM(engine=engine, max_tokens=32)
        long = Document(text=story("owl", 100))
        nodes = split([long])[:2]
        response = TTTSynthesizer(llm=llm, documents=[long]).synthesize("?", scored(nodes))
    assert str(response) == say("".join(node.get_content() for node in nodes))
    assert [done["document_id"] for done in calls.done] == [None]


def test_nothing_was_found(llm: TTTLLM, calls: Calls) -> None:
    synthesizer = TTTSynthesizer(llm=llm, documents=ALL)
    response = synthesizer.synthesize("?", [])
    assert str(response) == str(CompactAndRefine(llm=llm).synthesize("?", [])) == "Empty Response"
    assert calls.done == []


@pytest.mark.parametrize("streaming", [False, True])
def test_in_a_query_engine_from_the_docstore(
    llm: TTTLLM, calls: Calls, index: VectorStoreIndex, streaming: bool
) -> None:
    synthesizer = TTTSynthesizer(llm=llm, docstore=index.docstore, streaming=streaming)
    engine = RetrieverQueryEngine.from_args(
        index.as_retriever(similarity_top_k=3), llm=llm, response_synthesizer=synthesizer
    )
    for animal in ANIMALS:
        response: Any = engine.query(f"Where is the {animal}?")
        text = "".join(response.response_gen) if streaming else str(response)
        assert text == f"24 of {animal}"
        assert len(response.source_nodes) == 3
    assert len(calls.done) == 3


async def test_questions_about_different_documents_at_once(
    llm: TTTLLM, calls: Calls, index: VectorStoreIndex
) -> None:
    synthesizer = TTTSynthesizer(llm=llm, docstore=index.docstore)
    engine = RetrieverQueryEngine.from_args(
        index.as_retriever(similarity_top_k=2), llm=llm, response_synthesizer=synthesizer
    )
    answers = await asyncio.gather(*(engine.aquery(f"{animal}?") for animal in ANIMALS))
    assert [str(answer) for answer in answers] == [f"24 of {animal}" for animal in ANIMALS]
    assert len({done["document_id"] for done in calls.done}) == 3


def test_an_engine_without_it_reads_pieces(llm: TTTLLM, index: VectorStoreIndex) -> None:
    TTTSynthesizer(llm=llm, documents=ALL).synthesize("?", scored(PIECES[0]))
    answer = str(index.as_query_engine(llm=llm, similarity_top_k=2).query("fox?"))
    assert answer.endswith("of fox")
    assert answer != "24 of fox"


# Prompts.


def test_the_prompt_is_the_users(llm: TTTLLM, model: ScriptedModel) -> None:
    template = PromptTemplate("Read {context_str} and say: {query_str}")
    synthesizer = TTTSynthesizer(llm=llm, documents=ALL, text_qa_template=template)
    synthesizer.synthesize("Where {is} it?", scored(PIECES[0]))
    assert "Read (the document above) and say: Where {is} it?" in model.prompts[-1]
    assert synthesizer.get_prompts()["text_qa_template"] == template
    other = PromptTemplate("{context_str} Then: {query_str}")
    synthesizer.update_prompts({"text_qa_template": other})
    synthesizer.synthesize("Where?", scored(PIECES[0]))
    assert "(the document above) Then: Where?" in model.prompts[-1]


def test_other_arguments_of_the_prompt_arrive(llm: TTTLLM, model: ScriptedModel) -> None:
    template = PromptTemplate("{context_str} In {language}: {query_str}")
    synthesizer = TTTSynthesizer(llm=llm, documents=ALL, text_qa_template=template)
    synthesizer.synthesize("Where?", scored(PIECES[0]), language="French")
    assert "(the document above) In French: Where?" in model.prompts[-1]


# Objects.


class Place(BaseModel):
    animal: str
    tree: int = Field(default=3)


FOUND = '{"animal": "owl", "tree": 7}'


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("way", [whole, beside_loop])
@pytest.mark.parametrize("around", [False, True])
def test_objects_come_whole_in_one_call(
    llm: TTTLLM, model: ScriptedModel, calls: Calls, way: Any, around: bool, streaming: bool
) -> None:
    model.script = lambda prompt: FOUND if say(prompt) == "24 of owl" else "{}"
    asked: dict[str, Any] = {"llm": llm, "output_cls": Place}
    if around:
        asked = {"llm": llm.as_structured_llm(Place)}
    synthesizer = TTTSynthesizer(**asked, documents=ALL, streaming=streaming)
    _, response = way(synthesizer, PIECES[0])
    assert isinstance(response, PydanticResponse)
    assert response.response == Place(animal="owl", tree=7)
    assert len(response.source_nodes) == len(PIECES[0])
    assert {done["document_id"] for done in calls.done} == {llm.adapt(OWLS).id}


# What stays LlamaIndex's.


def test_a_filter_of_the_user_is_run_for_each_piece(llm: TTTLLM) -> None:
    asked = []

    def program(prompt: Any) -> Any:
        asked.append(prompt)
        raise RuntimeError("the user's")

    synthesizer = TTTSynthesizer(
        llm=llm, documents=ALL, structured_answer_filtering=True, program_factory=program
    )
    with pytest.raises(RuntimeError, match="the user's"):
        synthesizer.synthesize("?", scored(PIECES[0]))
    assert len(asked) == 1


def test_an_earlier_answer_is_refined(llm: TTTLLM, model: ScriptedModel) -> None:
    synthesizer = TTTSynthesizer(llm=llm, documents=ALL)
    synthesizer.synthesize("?", scored(PIECES[0]), prev_response="An earlier answer.")
    assert "An earlier answer." in model.prompts[-1]


class _Names(BaseEventHandler):
    names: list[str] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "_Names"

    def handle(self, event: BaseEvent, **_: Any) -> None:
        self.names.append(event.class_name())


@pytest.mark.parametrize("way", [whole, beside_loop])
def test_events_are_those_of_other_synthesizers(llm: TTTLLM, way: Any) -> None:
    llm.adapt(OWLS)
    synthesizer = TTTSynthesizer(llm=llm, documents=ALL)
    names, dispatcher = _Names(), get_dispatcher()
    dispatcher.add_event_handler(names)
    try:
        way(synthesizer, PIECES[0])
    finally:
        dispatcher.event_handlers.remove(names)
    assert names.names == [
        "SynthesizeStartEvent",
        "GetResponseStartEvent",
        "LLMPredictStartEvent",
        "LLMChatStartEvent",
        "LLMChatEndEvent",
        "LLMPredictEndEvent",
        "GetResponseEndEvent",
        "SynthesizeEndEvent",
    ]


@pytest.mark.parametrize("way", WAYS)
def test_errors_reach_the_caller(
    llm: TTTLLM, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch, way: Any
) -> None:
    def fail(prompt: str) -> str:
        raise ValueError("on purpose")  # LlamaIndex's refining makes "Empty Response" of these.

    llm.adapt(OWLS)
    model.script = fail
    with pytest.raises(ValueError, match="on purpose"):
        way(TTTSynthesizer(llm=llm, documents=ALL), PIECES[0])


# The object.


def test_only_a_ttt_llm_adapts(llm: TTTLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="expected llm as a TTTLLM, found MockLLM"):
        TTTSynthesizer(llm=MockLLM(), documents=ALL)
    with pytest.raises(ConfigError, match=r"documents=.*docstore="):
        TTTSynthesizer(llm=llm)
    with pytest.raises(ConfigError, match="max_documents is a whole number from 1, not True"):
        TTTSynthesizer(llm=llm, documents=ALL, max_documents=True)
    monkeypatch.setattr(Settings, "_llm", llm)
    assert isinstance(TTTSynthesizer(documents=ALL).synthesize("?", scored(PIECES[0])), Response)


def test_the_retriever_may_be_any(llm: TTTLLM) -> None:
    synthesizer = TTTSynthesizer(llm=llm, documents=ALL)
    engine = RetrieverQueryEngine.from_args(
        Fixed(PIECES[1]), llm=llm, response_synthesizer=synthesizer
    )
    assert str(engine.query("?")) == "24 of fox"
