"""Questions about retrieved pieces are answered from the documents that they were cut from."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.node_parser import HierarchicalNodeParser
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import ResponseMode
from llama_index.core.schema import BaseNode, Document, NodeRelationship, NodeWithScore
from llama_index.core.storage.docstore import SimpleDocumentStore
from pydantic import BaseModel, SecretStr

from llamaindex_ttt import TTTLLM
from llamaindex_ttt.parents import ParentFinder, Parents
from llamaindex_ttt.postprocessor import TTTDocumentPostprocessor
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


def find(llm: TTTLLM, nodes: Sequence[BaseNode], most: int = 4, **sources: Any) -> Parents:
    finder = ParentFinder(sources.get("documents"), sources.get("docstore"))
    found = finder.find(scored(nodes), llm, most)
    assert asyncio.run(finder.afind(scored(nodes), llm, most)) == found
    return found


def stored(nodes: Sequence[BaseNode]) -> SimpleDocumentStore:
    docstore = SimpleDocumentStore()
    docstore.add_documents(nodes)
    return docstore


def texts(parents: Parents) -> list[str]:
    return [document.text for document in parents.documents]


def pages(path: str, *parts: str, **metadata: str) -> list[Document]:
    return [
        Document(text=part, metadata={"file_path": path, "page_label": str(n), **metadata})
        for n, part in enumerate(parts, 1)
    ]


# Where documents come from.


def test_documents_are_put_together_again_from_the_docstore(llm: TTTLLM) -> None:
    owls, foxes = split([OWLS]), split([FOXES])
    assert len(owls) > 3
    docstore = stored([*owls, *foxes])
    parents = find(llm, [foxes[1], owls[2], foxes[3]], docstore=docstore)
    assert texts(parents) == [FOXES.text, OWLS.text]
    assert parents.places == (0, 1, 0)
    assert parents.others == []


@pytest.mark.parametrize("by", ["id", "file_path", "hash"])
def test_the_users_documents_are_found_by(llm: TTTLLM, by: str) -> None:
    indexed = Document(text=OWLS.text, metadata={"file_path": "/a"} if by == "file_path" else {})
    piece = split([indexed])[1]
    own = {
        "id": Document(text=story("owl", 30), id_=indexed.id_),
        "file_path": Document(text=story("owl", 30), metadata={"file_path": "/a", "size": 1}),
        "hash": Document(text=OWLS.text),
    }[by]
    assert texts(find(llm, [piece], documents=[FOXES, own])) == [own.text]
    assert texts(find(llm, [piece], documents=[FOXES])) == []


def test_the_users_documents_come_before_the_docstores(llm: TTTLLM) -> None:
    nodes = split([OWLS, FOXES])
    newer = Document(text=story("owl", 30), id_=OWLS.id_)
    parents = find(llm, [nodes[0], nodes[-1]], documents=[newer], docstore=stored(nodes))
    assert texts(parents) == [newer.text, FOXES.text]


@pytest.mark.parametrize("given_by_user", [True, False])
def test_pages_of_one_file_are_one_document(llm: TTTLLM, given_by_user: bool) -> None:
    file = pages("/a.pdf", *(story(animal) for animal in ANIMALS))
    nodes = split([*file, *pages("/b.pdf", "Something else.")])
    sources = {"documents": file} if given_by_user else {"docstore": stored(nodes)}
    parents = find(llm, [nodes[-2], nodes[0]], **sources)
    assert texts(parents) == ["\n\n".join(page.text for page in file)]
    assert parents.places == (0, 0)


def test_pages_stand_in_their_order_whatever_the_docstores(llm: TTTLLM) -> None:
    file = pages("/a.pdf", *(f"{story('owl', 4)} {n}" for n in range(11)))
    nodes = split([file[n] for n in (3, 10, 1, 0, 2, 9, 4, 8, 6, 5, 7)])
    parents = find(llm, nodes[:1], docstore=stored(nodes))
    assert texts(parents) == ["\n\n".join(page.text for page in file)]


def test_a_file_that_was_indexed_twice_is_read_once(llm: TTTLLM) -> None:
    parts = (story("owl"), story("fox"))
    once, again = pages("/a.pdf", *parts), pages("/a.pdf", *parts)
    nodes = [*split(once), *split(again)]
    parents = find(llm, [nodes[0], nodes[-1]], docstore=stored(nodes))
    assert texts(parents) == ["\n\n".join(parts)]


def test_an_older_edition_of_a_file_is_another_document(llm: TTTLLM) -> None:
    old = pages("/a.pdf", story("owl", 20), last_modified_date="2026-01-01")
    new = pages("/a.pdf", story("owl"), last_modified_date="2026-02-02")
    nodes = [*split(old), *split(new)]
    assert texts(find(llm, nodes[-1:], docstore=stored(nodes))) == [new[0].text]


def test_nodes_within_nodes_are_read_once(llm: TTTLLM) -> None:
    parser = HierarchicalNodeParser.from_defaults(chunk_sizes=[256, 64], chunk_overlap=10)
    nodes = parser.get_nodes_from_documents([OWLS])
    parents = find(llm, nodes[-1:], docstore=stored(nodes))
    assert "".join(texts(parents)[0].split()) == "".join(OWLS.text.split())


def test_a_docstore_that_lacks_a_piece_does_not_give_half_a_document(llm: TTTLLM) -> None:
    nodes = split([OWLS, FOXES])
    docstore = stored(nodes)
    docstore._kvstore.delete(nodes[1].node_id, docstore._node_collection)
    parents = find(llm, [nodes[0], nodes[-1]], docstore=docstore)
    assert texts(parents) == [FOXES.text]
    assert parents.places == (None, 0)


def test_nodes_that_the_docstore_does_not_know_have_no_document(llm: TTTLLM) -> None:
    nodes = split([OWLS])
    stranger = orphan("The owl number 3 is a stranger.")
    stranger.relationships[NodeRelationship.SOURCE] = OWLS.as_related_node_info()
    parents = find(llm, [orphan("a"), stranger], docstore=stored(nodes))
    assert parents.documents == ()
    assert parents.others == ["a", "The owl number 3 is a stranger."]


def test_documents_that_are_known_are_read_as_they_are_known(llm: TTTLLM) -> None:
    spaced = OWLS.text.replace("\n", "  \n  ")
    handle = llm.adapt(spaced)
    nodes = split([OWLS])
    parents = find(llm, nodes[:1], docstore=stored(nodes))
    assert llm.adapt(parents.in_order).id == handle.id


# Which of them are read, and in which order.


def test_at_most_so_many_documents_the_best_first(llm: TTTLLM) -> None:
    nodes = [split([document])[1] for document in (ELKS, OWLS, FOXES)]
    parents = find(llm, nodes, 2, documents=ALL)
    assert texts(parents) == [ELKS.text, OWLS.text]
    assert parents.places == (0, 1, None)
    assert parents.others == [nodes[2].get_content()]
    worst_first = scored(nodes)[::-1]
    found = ParentFinder(ALL, None).find(worst_first, llm, 2)
    assert texts(found) == [ELKS.text, OWLS.text]
    assert found.places == (None, 1, 0)


def test_documents_that_do_not_fit_together_are_left_out_from_the_end(
    model: ScriptedModel, tmp_path: Path
) -> None:
    tokenizer = scripted_tokenizer()
    nodes = [split([document])[0] for document in ALL]
    for window, fit in ((1000, 0), (2200, 1), (2600, 2), (3500, 3)):
        small = ScriptedModel(say, tokenizer, window=window)
        with TTTEngine(small, tokenizer, adaptation=RECIPE, store=None) as engine:
            llm = TTTLLM(engine=engine, max_tokens=32)
            parents = find(llm, nodes, documents=ALL)
            assert len(parents.documents) == fit
            assert len(parents.others) == 3 - fit


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(3)), from_user=st.booleans())
def test_the_same_documents_are_read_in_one_order(
    llm: TTTLLM, order: list[int], from_user: bool
) -> None:
    nodes = [split([ALL[number]])[0] for number in order]
    every = [node for document in ALL for node in split([document])]
    docstore = stored([*every, *nodes])
    sources = {"documents": ALL} if from_user else {"docstore": docstore}
    parents = ParentFinder(sources.get("documents"), sources.get("docstore")).find(  # type: ignore
        scored(nodes), llm, 3
    )
    in_order = [document.text for document in parents.in_order]
    by_hash = [one.text for one in sorted(parents.documents, key=lambda one: one.hash)]
    assert in_order == ([one.text for one in ALL] if from_user else by_hash)
    assert len(in_order) == 3


# What the postprocessor does for engines.


def ask(engine: Any, question: str, *, beside_loop: bool) -> RESPONSE_TYPE:
    response: RESPONSE_TYPE
    response = asyncio.run(engine.aquery(question)) if beside_loop else engine.query(question)
    return response


@pytest.mark.parametrize("beside_loop", [False, True])
@pytest.mark.parametrize("own", [True, False])
def test_a_query_engine_answers_from_the_whole_document(
    llm: TTTLLM, calls: Calls, index: VectorStoreIndex, own: bool, beside_loop: bool
) -> None:
    sources: dict[str, Any] = {"documents": ALL} if own else {"docstore": index.docstore}
    post = TTTDocumentPostprocessor(llm=llm, **sources)
    engine = index.as_query_engine(llm=llm, similarity_top_k=2, node_postprocessors=[post])
    plain = index.as_retriever(similarity_top_k=2).retrieve("owl")
    for question in ("Where is the owl?", "What does an owl do?"):
        response = ask(engine, question, beside_loop=beside_loop)
        assert str(response) == "24 of owl"
    assert [done["source"] for done in calls.done] == ["trained", "memory"]
    assert {done["document_id"] for done in calls.done} == {llm.adapt(OWLS).id}
    assert {node.node.ref_doc_id for node in response.source_nodes} == {OWLS.id_}
    assert len(response.source_nodes) == len(plain) == 2
    assert all(node.score for node in response.source_nodes)


def test_without_it_the_engine_reads_pieces(llm: TTTLLM, index: VectorStoreIndex) -> None:
    answer = str(index.as_query_engine(llm=llm, similarity_top_k=2).query("Where is the owl?"))
    assert answer.endswith("of owl")
    assert answer != "24 of owl"


def test_an_engine_about_other_documents_is_not_affected(
    llm: TTTLLM, calls: Calls, index: VectorStoreIndex
) -> None:
    post = TTTDocumentPostprocessor(llm=llm, documents=ALL)
    index.as_query_engine(llm=llm, similarity_top_k=2, node_postprocessors=[post]).query("owl?")
    without = index.as_query_engine(llm=llm, similarity_top_k=2)
    assert str(without.query("fox?")) not in ("24 of fox", "24 of owl")
    assert calls.done[-1]["document_id"] is None


def test_nodes_go_on_as_they_are(llm: TTTLLM) -> None:
    post = TTTDocumentPostprocessor(llm=llm, documents=ALL)
    nodes = scored([*split([OWLS])[:2], orphan("a")])
    before = [node.model_copy(deep=True) for node in nodes]
    after = post.postprocess_nodes(nodes, query_str="?")
    assert all(one is other for one, other in zip(after, nodes, strict=True))
    assert after == before
    assert post.postprocess_nodes([], query_str="?") == []


@pytest.mark.parametrize("beside_loop", [False, True])
def test_pieces_of_several_documents_are_read_as_one_group(
    llm: TTTLLM, calls: Calls, beside_loop: bool
) -> None:
    post = TTTDocumentPostprocessor(llm=llm, documents=ALL)
    owls, foxes = split([OWLS]), split([FOXES])
    for nodes in ([foxes[0], owls[1]], [owls[2], foxes[1], foxes[2]]):
        engine = RetrieverQueryEngine.from_args(Fixed(nodes), llm=llm, node_postprocessors=[post])
        answer = ask(engine, "Who is where?", beside_loop=beside_loop)
        assert str(answer) == "24 of owl, 24 of fox"
    # Documents that met once may never meet again.
    assert [done["source"] for done in calls.done] == ["read", "trained"]
    assert {done["document_id"] for done in calls.done} == {llm.adapt([OWLS, FOXES]).id}


def test_a_piece_without_a_document_stays_in_the_prompt(
    llm: TTTLLM, model: ScriptedModel, calls: Calls
) -> None:
    post = TTTDocumentPostprocessor(llm=llm, documents=[OWLS])
    nodes = [*split([OWLS])[:3], orphan("Lions are loud.")]
    engine = RetrieverQueryEngine.from_args(Fixed(nodes), llm=llm, node_postprocessors=[post])
    assert str(engine.query("Who is where?")) == "24 of owl"
    assert calls.done[0]["document_id"] == llm.adapt(OWLS).id
    assert "Lions are loud." in model.prompts[-1]


@pytest.mark.parametrize("adapt_first", [False, True])
def test_pieces_without_a_document_stay_however_many(
    llm: TTTLLM, model: ScriptedModel, calls: Calls, adapt_first: bool
) -> None:
    post = TTTDocumentPostprocessor(llm=llm, documents=[OWLS], adapt_first=adapt_first)
    others = split([FOXES])[:2]
    nodes = [split([OWLS])[0], *others]
    engine = RetrieverQueryEngine.from_args(Fixed(nodes), llm=llm, node_postprocessors=[post])
    answer = str(engine.query("Who is where?"))
    assert "24 of owl" in answer
    assert "of fox" in answer
    assert "24 of fox" not in answer
    assert all(node.get_content() in model.prompts[-1] for node in others)
    assert calls.done[0]["document_id"] == llm.adapt(OWLS).id


def test_one_document_at_most_leaves_the_others_pieces(llm: TTTLLM, calls: Calls) -> None:
    post = TTTDocumentPostprocessor(llm=llm, documents=ALL, max_documents=1)
    nodes = [split([OWLS])[0], split([FOXES])[0], split([ELKS])[0]]
    engine = RetrieverQueryEngine.from_args(Fixed(nodes), llm=llm, node_postprocessors=[post])
    assert "24 of owl" in str(engine.query("Who is where?"))
    assert [done["source"] for done in calls.done] == ["trained"]


def test_combinations_are_adapted_to_first_where_that_is_asked_for(
    llm: TTTLLM, calls: Calls
) -> None:
    post = TTTDocumentPostprocessor(llm=llm, documents=ALL, adapt_first=True)
    nodes = [split([OWLS])[0], split([FOXES])[0]]
    engine = RetrieverQueryEngine.from_args(Fixed(nodes), llm=llm, node_postprocessors=[post])
    engine.query("Who is where?")
    assert calls.done[0]["decision"] == "adapted"
    assert calls.done[0]["source"] == "memory"


def test_an_engine_without_it_reads_the_pieces(llm: TTTLLM, calls: Calls) -> None:
    """On the same LLM, the same pieces and questions, before and afterwards."""
    post = TTTDocumentPostprocessor(llm=llm, documents=ALL)
    pieces = Fixed(split([OWLS])[:2])
    plain = RetrieverQueryEngine.from_args(pieces, llm=llm)
    whole = RetrieverQueryEngine.from_args(pieces, llm=llm, node_postprocessors=[post])
    answers = [str(engine.query("Who is where?")) for engine in (plain, whole, plain, whole, plain)]
    assert answers[1] == answers[3] == "24 of owl"
    assert answers[0] == answers[2] == answers[4] != "24 of owl"
    assert [done["document_id"] is None for done in calls.done] == [True, False, True, False, True]


def test_an_updated_document_is_answered_from_its_new_text(llm: TTTLLM) -> None:
    shown = split([OWLS])[:1]
    newer = Document(text=f"{OWLS.text}\n{FOXES.text}", id_=OWLS.id_)
    answers = []
    for documents in ([OWLS], [newer], [OWLS]):
        post = TTTDocumentPostprocessor(llm=llm, documents=documents)
        engine = RetrieverQueryEngine.from_args(Fixed(shown), llm=llm, node_postprocessors=[post])
        answers.append(str(engine.query("Who is where?")))
    assert answers == ["24 of owl", "24 of owl, 24 of fox", "24 of owl"]


def test_pieces_without_any_document_are_worth_a_warning(
    llm: TTTLLM, caplog: pytest.LogCaptureFixture
) -> None:
    post = TTTDocumentPostprocessor(llm=llm, documents=[OWLS])
    post.postprocess_nodes([NodeWithScore(node=orphan("Lions are loud."))])
    (record,) = caplog.records
    assert "none of their documents" in record.message
    assert "Lions" not in record.message
    caplog.clear()
    post.postprocess_nodes([])
    assert not caplog.records


@pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize", "simple_summarize"])
def test_with_every_synthesizer(
    llm: TTTLLM, calls: Calls, index: VectorStoreIndex, mode: str
) -> None:
    post = TTTDocumentPostprocessor(llm=llm, docstore=index.docstore)
    engine = index.as_query_engine(
        llm=llm,
        similarity_top_k=2,
        node_postprocessors=[post],
        response_mode=ResponseMode(mode),
    )
    assert str(engine.query("Where is the elk?")) == "24 of elk"
    assert {done["document_id"] for done in calls.done} == {llm.adapt(ELKS).id}


def test_metadata_above_pieces_is_no_hindrance(
    llm: TTTLLM, model: ScriptedModel, calls: Calls
) -> None:
    files = [
        Document(
            text=story(animal), metadata={"file_path": f"/home/{animal}.txt", "topic": "trees"}
        )
        for animal in ANIMALS
    ]
    index = index_of(files)
    post = TTTDocumentPostprocessor(llm=llm, docstore=index.docstore)
    engine = index.as_query_engine(llm=llm, similarity_top_k=2, node_postprocessors=[post])
    assert str(engine.query("owl?")) == "24 of owl"
    assert calls.done[0]["document_id"] == llm.adapt(story("owl")).id
    assert not any("/home" in prompt for prompt in model.prompts)


def test_streams(llm: TTTLLM, calls: Calls, index: VectorStoreIndex) -> None:
    post = TTTDocumentPostprocessor(llm=llm, docstore=index.docstore)
    engine: Any = index.as_query_engine(
        llm=llm, similarity_top_k=2, node_postprocessors=[post], streaming=True
    )
    pieces = list(engine.query("Where is the elk?").response_gen)
    assert len(pieces) > 1
    assert "".join(pieces) == "24 of elk"
    assert calls.done[0]["document_id"] == llm.adapt(ELKS).id


def test_adapt_first_leaves_reading_for_the_call(
    llm: TTTLLM, calls: Calls, index: VectorStoreIndex
) -> None:
    post = TTTDocumentPostprocessor(llm=llm, docstore=index.docstore, adapt_first=True)
    engine = index.as_query_engine(llm=llm, similarity_top_k=2, node_postprocessors=[post])
    assert str(engine.query("owl?")) == "24 of owl"
    assert str(ask(engine, "fox?", beside_loop=True)) == "24 of fox"
    assert [done["source"] for done in calls.done] == ["memory", "memory"]


async def test_questions_about_different_documents_at_once(
    llm: TTTLLM, calls: Calls, index: VectorStoreIndex
) -> None:
    post = TTTDocumentPostprocessor(llm=llm, docstore=index.docstore)
    engine = index.as_query_engine(llm=llm, similarity_top_k=2, node_postprocessors=[post])
    asked = [animal for animal in ANIMALS for _ in range(2)]
    answers = await asyncio.gather(*(engine.aquery(f"Where is the {one}?") for one in asked))
    assert [str(answer) for answer in answers] == [f"24 of {one}" for one in asked]
    assert len({done["document_id"] for done in calls.done}) == 3


def test_questions_from_threads_at_once(llm: TTTLLM, index: VectorStoreIndex) -> None:
    post = TTTDocumentPostprocessor(llm=llm, docstore=index.docstore)
    engine = index.as_query_engine(llm=llm, similarity_top_k=2, node_postprocessors=[post])
    answers: dict[str, str] = {}

    def work(animal: str) -> None:
        answers[animal] = str(engine.query(f"Where is the {animal}?"))

    threads = [threading.Thread(target=work, args=(animal,)) for animal in ANIMALS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {animal: f"24 of {animal}" for animal in ANIMALS}


class _Watched(SimpleDocumentStore):
    """Notes in which thread it is asked, and how."""

    def __init__(self, nodes: Sequence[BaseNode]) -> None:
        super().__init__()
        self.asked: list[tuple[str, str]] = []
        self.add_documents(nodes)

    def _note(self, name: str) -> None:
        self.asked.append((name, threading.current_thread().name))

    def get_ref_doc_info(self, ref_doc_id: str) -> Any:
        self._note("sync")
        return super().get_ref_doc_info(ref_doc_id)

    async def aget_ref_doc_info(self, ref_doc_id: str) -> Any:
        self._note("async")
        return await super().aget_ref_doc_info(ref_doc_id)

    def get_document(self, doc_id: str, raise_error: bool = True) -> Any:
        self._note("sync")
        return super().get_document(doc_id, raise_error)

    async def aget_document(self, doc_id: str, raise_error: bool = True) -> Any:
        self._note("async")
        return await super().aget_document(doc_id, raise_error)


async def test_beside_a_loop_the_docstore_is_asked_in_it(llm: TTTLLM) -> None:
    nodes = split([OWLS])
    docstore = _Watched(nodes)
    post = TTTDocumentPostprocessor(llm=llm, docstore=docstore)
    docstore.asked.clear()
    await post.apostprocess_nodes(scored(nodes[:1]), query_str="?")
    assert set(docstore.asked) == {("async", threading.current_thread().name)}


# Chat engines.


@pytest.mark.parametrize("kind", [ContextChatEngine, CondensePlusContextChatEngine])
def test_chat_engines_answer_from_the_whole_document_turn_by_turn(
    llm: TTTLLM, calls: Calls, index: VectorStoreIndex, kind: Any
) -> None:
    chat = kind.from_defaults(
        index.as_retriever(similarity_top_k=2),
        llm=llm,
        memory=ChatMemoryBuffer.from_defaults(),
        node_postprocessors=[TTTDocumentPostprocessor(llm=llm, docstore=index.docstore)],
        system_prompt="Be brief.",
        **({"skip_condense": True} if kind is CondensePlusContextChatEngine else {}),
    )
    answers = [str(chat.chat(f"And the owl number {n}?")) for n in range(2)]
    answers.append("".join(chat.stream_chat("Where is the owl?").response_gen))
    answers.append(str(asyncio.run(chat.achat("What about the owl?"))))
    assert answers == ["24 of owl"] * 4
    assert [done["source"] for done in calls.done] == ["trained", *["memory"] * 3]
    assert len({done["document_id"] for done in calls.done}) == 1
    assert len(chat.chat_history) == 8


def test_the_condensed_question_is_what_finds_the_document(
    llm: TTTLLM, model: ScriptedModel, calls: Calls, index: VectorStoreIndex
) -> None:
    model.script = lambda prompt: "Where is the fox?" if "standalone" in prompt else say(prompt)
    chat = CondensePlusContextChatEngine.from_defaults(
        index.as_retriever(similarity_top_k=2),
        llm=llm,
        memory=ChatMemoryBuffer.from_defaults(),
        node_postprocessors=[TTTDocumentPostprocessor(llm=llm, docstore=index.docstore)],
    )
    assert str(chat.chat("Where is the owl?")) == "24 of owl"
    assert str(chat.chat("And the other one?")) == "24 of fox"
    known = [done["document_id"] for done in calls.done if done["document_id"]]
    assert known == [llm.adapt(OWLS).id, llm.adapt(FOXES).id]


# The object.


def test_only_a_ttt_llm_adapts(llm: TTTLLM) -> None:
    with pytest.raises(ConfigError, match="expected llm as a TTTLLM, found MockLLM"):
        TTTDocumentPostprocessor(llm=MockLLM(), documents=ALL)
    with pytest.raises(ConfigError, match=r"documents=.*docstore="):
        TTTDocumentPostprocessor(llm=llm)
    with pytest.raises(ConfigError, match="max_documents is a whole number from 1, not 0"):
        TTTDocumentPostprocessor(llm=llm, documents=ALL, max_documents=0)
    for wrong in ("secret", ["secret"], [1], 1):
        with pytest.raises(ConfigError, match="as LlamaIndex has them") as caught:
            TTTDocumentPostprocessor(llm=llm, documents=wrong)  # type: ignore[arg-type]
        assert "secret" not in str(caught.value)


class Place(BaseModel):
    tree: int


def test_a_structured_llm_is_one_around_a_ttt_llm(llm: TTTLLM) -> None:
    post = TTTDocumentPostprocessor(llm=llm.as_structured_llm(Place), documents=ALL)
    assert post.llm is llm


def test_the_llm_of_the_settings(llm: TTTLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "_llm", llm)
    assert TTTDocumentPostprocessor(documents=ALL).llm is llm


def test_serialised_without_texts(llm: TTTLLM) -> None:
    named = TTTLLM(model="some/model", max_tokens=7)
    post = TTTDocumentPostprocessor(llm=named, documents=ALL, max_documents=2, adapt_first=True)
    data = json.loads(json.dumps(post.to_dict()))
    assert "owl" not in json.dumps(data) + repr(post)
    assert data["class_name"] == "TTTDocumentPostprocessor"
    again = TTTDocumentPostprocessor.from_dict(data, documents=ALL)
    assert again.to_dict() == post.to_dict()
    assert again.llm.max_tokens == 7
    with pytest.raises(ConfigError, match="expected documents="):
        TTTDocumentPostprocessor.from_dict(data)


def test_pickled_with_its_documents(llm: TTTLLM) -> None:
    named = TTTLLM(model="some/model")
    post = TTTDocumentPostprocessor(llm=named, documents=ALL, max_documents=2)
    again = pickle.loads(pickle.dumps(post))
    assert again.to_dict() == post.to_dict()
    assert list(again.documents) == ALL
    found = again._finder.find(scored(split([OWLS])[:1]), llm, 1)
    assert texts(found) == [OWLS.text]


def test_not_pickled_without_its_llm() -> None:
    secret = TTTLLM(model="some/model", namespace="a", namespace_secret=SecretStr("s" * 32))
    post = TTTDocumentPostprocessor(llm=secret, documents=ALL)
    with pytest.raises(TypeError, match="secret"):
        pickle.dumps(post)
