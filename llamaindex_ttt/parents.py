"""The documents that retrieved nodes were cut from: given by the user, or out of a docstore.

A retriever's pieces are what a question is about; the whole documents are what can be adapted to.
Nothing is guessed from prompts: nodes know their sources.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore

from llamaindex_ttt.documents import to_documents
from llamaindex_ttt.llms import TTTLLM
from ttt_core import ConfigError, Document, DocumentError
from ttt_core.integration import run_in_thread
from ttt_core.progress import ProgressCallback, ignore_progress

if TYPE_CHECKING:
    from llama_index.core.storage.docstore import BaseDocumentStore
    from llama_index.core.storage.docstore.types import RefDocInfo

_log = logging.getLogger(__name__)

MOST_DOCUMENTS = 4
"""Documents that a question is about, unless the user says otherwise."""

_FILE = "file_path"
_EDITION = (_FILE, "file_size", "last_modified_date")
"""Metadata that pages have in common which were read from one file at one time."""

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
        self._given = _Given(documents or ())
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

    def _stored(self, nodes: Sequence[NodeWithScore]) -> _Stored:
        store, asked = self._docstore, self._unknown(nodes)
        if store is None or not asked:
            return _Stored()
        if any(_path(node) for node in asked):
            sources: Mapping[str, RefDocInfo | None] = store.get_all_ref_doc_info() or {}
        else:
            sources = {name: store.get_ref_doc_info(name) for name in map(_source, asked)}
        found = _Stored.plan(asked, sources)
        return found.filled(store.get_nodes(found.node_ids, raise_error=False))

    async def _astored(self, nodes: Sequence[NodeWithScore]) -> _Stored:
        store, asked = self._docstore, self._unknown(nodes)
        if store is None or not asked:
            return _Stored()
        if any(_path(node) for node in asked):
            sources: Mapping[str, RefDocInfo | None] = await store.aget_all_ref_doc_info() or {}
        else:
            sources = {name: await store.aget_ref_doc_info(name) for name in map(_source, asked)}
        found = _Stored.plan(asked, sources)
        return found.filled(await store.aget_nodes(found.node_ids, raise_error=False))

    def _unknown(self, nodes: Sequence[NodeWithScore]) -> list[BaseNode]:
        """Nodes that have a source, which is none of the user's documents."""
        return [
            found.node
            for found in nodes
            if found.node.ref_doc_id and self._given.key(found.node) is None
        ]

    def _chosen(
        self, nodes: Sequence[NodeWithScore], stored: _Stored, llm: TTTLLM, max_documents: int
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

    def _parents(self, nodes: Sequence[NodeWithScore], stored: _Stored, llm: TTTLLM) -> Parents:
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


class _Given:
    """The user's documents, by what a node knows of its source. Pages of one file are one."""

    def __init__(self, documents: Sequence[BaseNode]) -> None:
        self._groups: dict[Hashable, list[BaseNode]] = {}
        self._keys: dict[Hashable, Hashable] = {}
        self._read: dict[Hashable, Document | None] = {}
        self._ranks: dict[str, int] = {}
        for document in _checked(documents):
            path, source = _path(document), _source(document) or document.node_id
            key = ("file", path) if path else ("id", source)
            self._groups.setdefault(key, []).append(document)
            for name in (key, ("id", source), ("id", document.node_id)):
                self._keys.setdefault(name, key)

    def key(self, node: BaseNode) -> Hashable | None:
        """Name the document that a node was cut from; None: none of these."""
        source = node.source_node
        if source is None:
            return None
        for name in (("id", source.node_id), ("file", _path(node))):
            if name in self._keys:
                return self._keys[name]
        return self._by_hash.get(source.hash or "")

    def find(self, node: BaseNode) -> Document | None:
        """Return the document that a node was cut from."""
        key = self.key(node)
        if key is None:
            return None
        if key not in self._read:
            document = _whole(self._groups[key])
            if document is not None:  # First: another thread may read what is there.
                self._ranks[document.hash] = list(self._groups).index(key)
            self._read[key] = document
        return self._read[key]

    def rank(self, document: Document) -> int:
        """Say which of these a document is; those that are none of them come behind."""
        return self._ranks.get(document.hash, len(self._groups))

    @cached_property
    def _by_hash(self) -> dict[str, Hashable]:
        return {part.hash: key for key, group in self._groups.items() for part in group}


@dataclass(frozen=True)
class _Stored:
    """What a docstore holds of the sources of nodes.

    Attributes:
        pages: By the id of a node's source all sources that are pages of its file, or itself.
        parts: By the id of a source the ids of all its nodes.
        held: The nodes that were in the docstore.
    """

    pages: dict[str, tuple[str, ...]] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)
    held: dict[str, BaseNode] = field(default_factory=dict, repr=False)
    read: dict[tuple[str, ...], Document | None] = field(default_factory=dict, repr=False)

    @classmethod
    def plan(cls, nodes: Iterable[BaseNode], sources: Mapping[str, RefDocInfo | None]) -> _Stored:
        """Say what to ask for."""
        files: dict[Hashable, list[str]] = {}
        for name, info in sources.items():
            if info and info.metadata.get(_FILE):
                files.setdefault(_edition(info), []).append(name)
        pages, parts = {}, {}
        for node in nodes:
            name = _source(node)
            info = sources.get(name)
            # One that does not know the node holds another text than was retrieved.
            if info and node.node_id in info.node_ids:
                pages[name] = tuple(files.get(_edition(info), [name]))
        for name in {page for group in pages.values() for page in group}:
            info = sources[name]
            parts[name] = list(info.node_ids) if info else []
        return cls(pages, parts)

    @property
    def node_ids(self) -> list[str]:
        """The nodes to ask for."""
        return [node for nodes in self.parts.values() for node in nodes]

    def filled(self, nodes: Iterable[BaseNode]) -> _Stored:
        """Take what was there."""
        return replace(self, held={node.node_id: node for node in nodes})

    def find(self, node: BaseNode) -> Document | None:
        """Put the document together that a node was cut from, if nothing of it is missing."""
        pages = self.pages.get(_source(node))
        if pages is None:
            return None
        if pages not in self.read:
            self.read[pages] = self._put_together(pages)
        return self.read[pages]

    def _put_together(self, pages: tuple[str, ...]) -> Document | None:
        read: dict[Hashable, list[BaseNode]] = {}
        for page in pages:
            nodes = [self.held[part] for part in self.parts[page] if part in self.held]
            if len(nodes) < len(self.parts[page]) or not nodes:
                return None
            source = nodes[0].source_node
            # What was indexed twice is read once.
            read.setdefault((source and source.hash) or page, nodes)
        return _whole([node for nodes in _in_order(list(read.values())) for node in nodes])


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


def _checked(documents: Any) -> list[BaseNode]:
    parts = [documents] if isinstance(documents, BaseNode) else documents
    if isinstance(parts, str | bytes) or not isinstance(parts, Iterable):
        raise _no_documents(parts)
    parts = list(parts)
    for part in parts:
        if not isinstance(part, BaseNode):
            raise _no_documents(part)
    return parts


def _no_documents(found: object) -> ConfigError:
    return ConfigError(
        f"expected documents as LlamaIndex has them (their ids and paths lead from nodes to them), "
        f"found {type(found).__name__}"
    )


def _whole(nodes: Sequence[BaseNode]) -> Document | None:
    """Make one document of all its nodes or pages; None, if it is empty or not all text."""
    try:
        documents = to_documents(nodes)
    except (ConfigError, DocumentError):
        return None
    return documents[0] if len(documents) == 1 else None


def _best_first(nodes: Sequence[NodeWithScore]) -> list[int]:
    """Number nodes by their scores; in the order given, if one has none."""
    numbers = range(len(nodes))
    if any(found.score is None for found in nodes):
        return list(numbers)
    return sorted(numbers, key=lambda number: -(nodes[number].score or 0.0))


def _source(node: BaseNode) -> str:
    return node.ref_doc_id or ""


def _path(node: BaseNode) -> str | None:
    source = node.source_node
    path = node.metadata.get(_FILE) or (source and source.metadata.get(_FILE))
    return str(path) if path else None


def _edition(info: RefDocInfo) -> tuple[Any, ...]:
    return tuple(info.metadata.get(name) for name in _EDITION)


def _in_order(pages: list[list[BaseNode]]) -> list[list[BaseNode]]:
    """Sort pages by their numbers, since not every docstore keeps an order; if each has its own."""
    labels = [str(nodes[0].metadata.get("page_label", "")) for nodes in pages]
    if len(set(labels)) < len(labels) or not all(map(str.isdecimal, labels)):
        return pages
    return sorted(pages, key=lambda nodes: int(nodes[0].metadata["page_label"]))
