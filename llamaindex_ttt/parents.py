"""The documents that retrieved nodes were cut from: given by the user, or out of a docstore.

A retriever's pieces are what a question is about; the whole documents are what can be adapted to.
Nothing is guessed from prompts: nodes know their sources.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore

from llamaindex_ttt.llms import TTTLLM
from llamaindex_ttt.sources import GivenDocuments, StoredDocuments, path_of, source_of
from ttt_core import ConfigError, Document
from ttt_core.integration import run_in_thread
from ttt_core.progress import ProgressCallback, ignore_progress

if TYPE_CHECKING:
    from llama_index.core.storage.docstore import BaseDocumentStore
    from llama_index.core.storage.docstore.types import RefDocInfo

_log = logging.getLogger(__name__)

MOST_DOCUMENTS = 4
"""Documents that a question is about, unless the user says otherwise."""

_RESERVE = 8
"""One part in so many of the window is left for question, template and history."""

_MOST_LENGTHS = 1 << 12


@dataclass(frozen=True)
class Parents:
    """Retrieved nodes, and the documents that they were cut from.

    Attributes:
        documents: The best node's first.
        nodes: All that were retrieved, in the order given.
        places: For each node which of `documents` it was cut from; None: another one.
        ranks: For each document where it stands among those that are read together.
    """

    documents: tuple[Document, ...] = field(default=(), repr=False)
    nodes: tuple[NodeWithScore, ...] = field(default=(), repr=False)
    places: tuple[int | None, ...] = ()
    ranks: tuple[tuple[int, str], ...] = ()

    @property
    def excerpts(self) -> list[str]:
        """The pieces of the documents, with metadata, as prompts show them."""
        return self._contents(left_out=False)

    @property
    def others(self) -> list[str]:
        """The pieces of other documents: they must stay in the prompt."""
        return self._contents(left_out=True)

    @property
    def in_order(self) -> tuple[Document, ...]:
        """The documents as they are read: the user's in their order, then others by their hashes.

        In the order in which they were found, the same ones would be adapted to in every order.
        """
        ranked = zip(self.ranks, self.documents, strict=True)
        return tuple(document for _, document in sorted(ranked, key=lambda one: one[0]))

    def first(self, count: int) -> Parents:
        """Leave out all documents but the first ones."""
        places = [None if place is None or place >= count else place for place in self.places]
        return Parents(self.documents[:count], self.nodes, tuple(places), self.ranks[:count])

    def _contents(self, *, left_out: bool) -> list[str]:
        return [
            found.node.get_content(metadata_mode=MetadataMode.LLM)
            for found, place in zip(self.nodes, self.places, strict=True)
            if (place is None) is left_out
        ]


class ParentFinder:
    """Finds the documents of nodes: first among the user's own, then in a docstore.

    One of the user's is found by its id, its `file_path`, or its hash. What the docstore holds of
    one is put together again, unless something is missing; of a file, all of its pages. To know
    these, the list of all sources is asked for: where that is slow, pass the documents.

    Args:
        documents: LlamaIndex's, as they were indexed, or read again.
        docstore: The index's.

    Raises:
        ConfigError: Neither is given, or documents that are none.
    """

    def __init__(
        self, documents: Sequence[BaseNode] | None, docstore: BaseDocumentStore | None
    ) -> None:
        if not documents and docstore is None:
            raise ConfigError(
                "expected documents=, as they were indexed, or docstore=, which is index.docstore: "
                "without either no document of a node can be found"
            )
        self._given = GivenDocuments(documents or ())
        self._docstore = docstore
        self._lengths: dict[tuple[str, str], int] = {}

    def find(self, nodes: Sequence[NodeWithScore], llm: TTTLLM, max_documents: int) -> Parents:
        """Find the documents that nodes were cut from.

        Args:
            nodes: As they were retrieved; those with the best scores count first.
            llm: What will read the documents.
            max_documents: At most so many; fewer, if more would not fit `llm`'s window together
                with the pieces of the others.
        """
        return self._chosen(nodes, self._stored(nodes), llm, max_documents)

    async def afind(
        self, nodes: Sequence[NodeWithScore], llm: TTTLLM, max_documents: int
    ) -> Parents:
        """Do the same beside the event loop: the docstore is asked in it, texts are not read."""
        stored = await self._astored(nodes)
        return await run_in_thread(lambda _: self._chosen(nodes, stored, llm, max_documents))

    def _stored(self, nodes: Sequence[NodeWithScore]) -> StoredDocuments:
        store, asked = self._docstore, self._unknown(nodes)
        if store is None or not asked:
            return StoredDocuments()
        if any(path_of(node) for node in asked):
            sources: Mapping[str, RefDocInfo | None] = store.get_all_ref_doc_info() or {}
        else:
            sources = {name: store.get_ref_doc_info(name) for name in map(source_of, asked)}
        found = StoredDocuments.plan(asked, sources)
        return found.filled(store.get_nodes(found.node_ids, raise_error=False))

    async def _astored(self, nodes: Sequence[NodeWithScore]) -> StoredDocuments:
        store, asked = self._docstore, self._unknown(nodes)
        if store is None or not asked:
            return StoredDocuments()
        if any(path_of(node) for node in asked):
            sources: Mapping[str, RefDocInfo | None] = await store.aget_all_ref_doc_info() or {}
        else:
            sources = {name: await store.aget_ref_doc_info(name) for name in map(source_of, asked)}
        found = StoredDocuments.plan(asked, sources)
        return found.filled(await store.aget_nodes(found.node_ids, raise_error=False))

    def _unknown(self, nodes: Sequence[NodeWithScore]) -> list[BaseNode]:
        """Nodes that have a source, which is none of the user's documents."""
        return [
            found.node
            for found in nodes
            if found.node.ref_doc_id and self._given.key(found.node) is None
        ]

    def _chosen(
        self,
        nodes: Sequence[NodeWithScore],
        stored: StoredDocuments,
        llm: TTTLLM,
        max_documents: int,
    ) -> Parents:
        """Take as many documents as fit."""
        parents = self._parents(nodes, stored, llm)
        if not parents.documents:
            return parents
        engine = llm._engine()
        room = engine.window - engine.window // _RESERVE - llm.metadata.num_output
        for count in range(min(max_documents, len(parents.documents)), 0, -1):
            chosen = parents.first(count)
            tokens = sum(self._count(document, llm) for document in chosen.documents)
            if tokens + sum(map(engine.count_tokens, chosen.others)) <= room:
                return chosen
        return parents.first(0)

    def _parents(
        self, nodes: Sequence[NodeWithScore], stored: StoredDocuments, llm: TTTLLM
    ) -> Parents:
        found = [self._given.find(one.node) or stored.find(one.node) for one in nodes]
        best_first = (found[number] for number in _best_first(nodes))
        like = llm._registry().like  # What it returns may be adapted to already.
        own = {one: like(one) for one in dict.fromkeys(best_first) if one is not None}
        ranks = {held: (self._given.rank(one), one.hash) for one, held in own.items()}
        documents = list(ranks)
        places = [None if one is None else documents.index(own[one]) for one in found]
        return Parents(tuple(documents), tuple(nodes), tuple(places), tuple(ranks.values()))

    def _count(self, document: Document, llm: TTTLLM) -> int:
        """Count the tokens of a document, once: it comes with every question about it."""
        key = (llm.model, document.hash)
        if key not in self._lengths:
            if len(self._lengths) >= _MOST_LENGTHS:
                self._lengths.clear()
            self._lengths[key] = llm._engine().count_tokens(document.text)
        return self._lengths[key]


def ttt_llm(llm: object) -> TTTLLM:
    """Return the TTTLLM that answers: this one, or what a structured LLM is around.

    Raises:
        ConfigError: It is another LLM, which does not adapt to documents.
    """
    while isinstance(llm, StructuredLLM):
        llm = llm.llm
    if not isinstance(llm, TTTLLM):
        raise ConfigError(f"expected llm as a TTTLLM, found {type(llm).__name__}")
    return llm


def tell(
    parents: Parents,
    llm: TTTLLM,
    on_progress: ProgressCallback = ignore_progress,
    *,
    adapt_first: bool = False,
) -> None:
    """Tell an LLM that the pieces which its next prompt holds stand for their documents.

    Args:
        parents: The documents, and the pieces of others, which stay.
        llm: Will be asked about them.
        on_progress: Told of adapting.
        adapt_first: Adapt now, also to documents that never met before.
    """
    if not parents.documents:
        if parents.nodes:
            _log.warning("pieces stay in the prompt: none of their documents was found, or fits")
        return
    registry = llm._registry()
    name = registry.register(parents.in_order, named=False)
    if adapt_first:
        with llm._events(on_progress) as events:
            adapted = llm._engine().adapt(parents.in_order, on_progress=events.progress)
            events.end(adapted)
        registry.expect(name)
    registry.note(name, parents.excerpts, parents.others)


def check_most(max_documents: int) -> None:
    """Check a number of documents.

    Raises:
        ConfigError: It is none.
    """
    if isinstance(max_documents, bool) or not isinstance(max_documents, int) or max_documents < 1:
        raise ConfigError(f"max_documents is a whole number from 1, not {max_documents!r}")


def _best_first(nodes: Sequence[NodeWithScore]) -> list[int]:
    """Number nodes by their scores; in the order given, if one has none."""
    numbers = range(len(nodes))
    if any(found.score is None for found in nodes):
        return list(numbers)
    return sorted(numbers, key=lambda number: -(nodes[number].score or 0.0))
