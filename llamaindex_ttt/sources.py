"""Whole documents by what a node knows of its source: the user's own, and a docstore's."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llama_index.core.schema import BaseNode

from llamaindex_ttt.documents import to_documents
from ttt_core import ConfigError, Document, DocumentError

if TYPE_CHECKING:
    from llama_index.core.storage.docstore.types import RefDocInfo

_FILE = "file_path"
_EDITION = (_FILE, "file_size", "last_modified_date")
"""Metadata that pages have in common which were read from one file at one time."""


class GivenDocuments:
    """The user's documents, by what a node knows of its source. Pages of one file are one."""

    def __init__(self, documents: Sequence[BaseNode]) -> None:
        self._groups: dict[Hashable, list[BaseNode]] = {}
        self._keys: dict[Hashable, Hashable] = {}
        self._read: dict[Hashable, Document | None] = {}
        self._ranks: dict[str, int] = {}
        for document in _checked(documents):
            path, source = path_of(document), source_of(document) or document.node_id
            key = ("file", path) if path else ("id", source)
            self._groups.setdefault(key, []).append(document)
            for name in (key, ("id", source), ("id", document.node_id)):
                self._keys.setdefault(name, key)

    def key(self, node: BaseNode) -> Hashable | None:
        """Name the document that a node was cut from; None: none of these."""
        source = node.source_node
        if source is None:
            return None
        for name in (("id", source.node_id), ("file", path_of(node))):
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
class StoredDocuments:
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
    def plan(
        cls, nodes: Iterable[BaseNode], sources: Mapping[str, RefDocInfo | None]
    ) -> StoredDocuments:
        """Say what to ask for."""
        files: dict[Hashable, list[str]] = {}
        for name, info in sources.items():
            if info and info.metadata.get(_FILE):
                files.setdefault(_edition(info), []).append(name)
        pages, parts = {}, {}
        for node in nodes:
            name = source_of(node)
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

    def filled(self, nodes: Iterable[BaseNode]) -> StoredDocuments:
        """Take what was there."""
        return replace(self, held={node.node_id: node for node in nodes})

    def find(self, node: BaseNode) -> Document | None:
        """Put the document together that a node was cut from, if nothing of it is missing."""
        pages = self.pages.get(source_of(node))
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


def source_of(node: BaseNode) -> str:
    """Return the id of the document that a node was cut from; empty, if it knows none."""
    return node.ref_doc_id or ""


def path_of(node: BaseNode) -> str | None:
    """Return the file that a node comes from, as its reader noted it."""
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
