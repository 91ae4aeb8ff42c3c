"""The documents that an engine's callers named, and which texts they sent before.

Texts that were named are held, to be found by a short id or in a prompt; of texts that were only
seen, a digest is.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from ttt_core.document import Document, as_document
from ttt_core.lru import ByteLRU
from ttt_core.namespace import Namespace

if TYPE_CHECKING:
    from ttt_core.engine import TTTEngine
    from ttt_core.host import ModelHost

MOST_BYTES = 1 << 28
"""Of all texts that are held for one model, whoever named them."""

MOST_SIGHTS = 1 << 14
"""Texts that were only seen, for one model."""

LONGEST_GAP = 200
"""Characters between two documents of one group in a prompt: room for a title or a ruler."""

_LEAST_BYTES = 1 << 14
"""What the shortest text counts: each one costs time in every search, however short it is."""

_STRETCH = 4096
_WORDS = 8
_MOST_TRIES = 8

Group = tuple[Document, ...]
Span = tuple[int, int]


@dataclass(frozen=True)
class Found:
    """Documents in a text.

    Attributes:
        documents: All of one group, in its order.
        spans: Where each of them begins and ends, in characters.
    """

    documents: Group = field(repr=False)
    spans: tuple[Span, ...]

    @property
    def length(self) -> int:
        """Characters of all documents."""
        return sum(end - start for start, end in self.spans)


class _Held(NamedTuple):
    """A group, and what tells quickly that it does not stand in a text."""

    documents: Group
    length: int
    words: frozenset[str]

    @classmethod
    def of(cls, documents: Group) -> _Held:
        words = frozenset(word for part in documents for word in _rare_words(part.text))
        return cls(documents, sum(len(part.text) for part in documents), words)


def _rare_words(text: str) -> list[str]:
    """Return long words of the middle: documents of one source often begin and end alike.

    Without the outermost, which may be cut here, or have quotes around them in a prompt.
    """
    start = max(0, (len(text) - _STRETCH) // 2)
    return sorted(text[start : start + _STRETCH].split()[1:-1], key=len)[-_WORDS:]


class _Memory:
    """What is remembered for one model; its users hold `_lock`."""

    def __init__(self, most_bytes: int, most_sights: int) -> None:
        self._order: ByteLRU[tuple[str, str], _Held] = ByteLRU(most_bytes, _size)
        self._groups: dict[str, dict[str, _Held]] = {}
        self._sights: OrderedDict[str, int] = OrderedDict()
        self._most_sights = most_sights

    def put(self, folder: str, identifier: str, held: _Held) -> None:
        self._order.put((folder, identifier), held)
        self._groups.setdefault(folder, {})[identifier] = held
        while (oldest := self._order.excess()) is not None:
            self._drop(*oldest[0])

    def get(self, folder: str, identifier: str) -> Group | None:
        held = self._order.get((folder, identifier))
        return held and held.documents

    def all_of(self, folder: str) -> list[_Held]:
        return list(self._groups.get(folder, {}).values())

    def sights(self, digest: str, *, more: int) -> int:
        """Return how often a text was seen before, and add `more`; at least once is noted."""
        before = self._sights.pop(digest, 0)
        self._sights[digest] = max(before + more, 1)
        if len(self._sights) > self._most_sights:
            self._sights.popitem(last=False)
        return before

    def _drop(self, folder: str, identifier: str) -> None:
        self._order.pop((folder, identifier))
        self._groups[folder].pop(identifier, None)
        if not self._groups[folder]:
            del self._groups[folder]


def _size(held: _Held) -> int:
    return max(sum(sys.getsizeof(part.text) for part in held.documents), _LEAST_BYTES)


class DocumentRegistry:
    """What was named and seen in one namespace. Thread-safe; a forked child goes on with it.

    Namespaces of one model share its limits, and nothing else: none can ask for what another one
    named, but who names very much makes the registry forget what others did not use for long.

    Args:
        namespace: Whose documents.
        most_bytes: Of the texts that are held; those used last stay.
        most_sights: Texts of which is remembered that they were seen.
    """

    def __init__(
        self,
        namespace: Namespace,
        *,
        most_bytes: int = MOST_BYTES,
        most_sights: int = MOST_SIGHTS,
        _memory: _Memory | None = None,
    ) -> None:
        self._namespace = namespace
        self._folder = namespace.folder
        self._memory = _memory or _Memory(most_bytes, most_sights)

    def register(self, documents: Sequence[Document], identifier: str | None = None) -> str:
        """Hold documents that are read together; return their id.

        Args:
            documents: In the order in which they are read.
            identifier: That of the handle which names them (`AdaptedDocument.id`); None: made here.

        Returns:
            The id. One made here is `AdaptedDocument.id` of documents of which nothing is cut off:
            16 hexadecimal digits, the same for the same documents in the same order. They tell
            nothing of the texts to who does not have them; in a namespace with a secret, to
            nobody without it.

        Raises:
            DocumentError: There are none.
        """
        data = as_document(documents).hash.encode()
        identifier = identifier or self._namespace.digest("document", data)[:16]
        held = _Held.of(tuple(documents))
        with _lock:
            self._memory.put(self._folder, identifier, held)
        return identifier

    def get(self, identifier: str) -> Group | None:
        """Return the documents of an id; None if it was never given, or is forgotten."""
        with _lock:
            return self._memory.get(self._folder, identifier)

    def seen(self, text: str, *, continued: bool = False) -> bool:
        """Say whether a text was seen before, and remember that it was seen now.

        Args:
            text: Any; only its digest is kept.
            continued: It comes once more with a question that is answered in several steps, as
                agents do. That is no new sight: the answer is what it was for the first step.
        """
        digest = self._namespace.digest("seen", text.encode("utf-8", "surrogatepass"))[:32]
        with _lock:
            before = self._memory.sights(digest, more=0 if continued else 1)
        return before > (1 if continued else 0)

    def find(self, text: str) -> Found | None:
        """Find the longest group of documents of which each stands in a text.

        Args:
            text: Normalised as documents are. The documents must stand in it in the order of their
                group, with at most 200 characters between them.
        """
        with _lock:
            held = self._memory.all_of(self._folder)
        held = [one for one in held if one.length <= len(text)]
        words = set(text.split()) if held else set()
        for one in sorted(held, key=lambda one: one.length, reverse=True):
            if one.words <= words and (spans := _spans(text, one.documents)):
                return Found(one.documents, spans)
        return None


def registry_for(engine: TTTEngine) -> DocumentRegistry:
    """Return the registry of an engine's model and namespace; loads nothing."""
    with _lock:
        memory = _memories.setdefault(engine._host, _Memory(MOST_BYTES, MOST_SIGHTS))
    return DocumentRegistry(engine.namespace, _memory=memory)


_memories: WeakKeyDictionary[ModelHost, _Memory] = WeakKeyDictionary()

_lock = threading.Lock()
"""One for all: it is never held for long, and a forked child has to replace only one."""


def _forget_lock() -> None:
    """In a forked child, whoever held it is not there to give it back."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)


def _spans(text: str, group: Group) -> tuple[Span, ...] | None:
    for first in _places(text, group[0].text, 0, len(text)):
        spans = [first]
        for part in group[1:]:
            end = spans[-1][1]
            within = end + LONGEST_GAP + len(part.text)
            if (place := next(_places(text, part.text, end, within), None)) is None:
                break
            spans.append(place)
        else:
            return tuple(spans)
    return None


def _places(text: str, part: str, start: int, end: int) -> Iterator[Span]:
    """Where `part` stands in text[start:end], but not as a piece of a longer word."""
    for _ in range(_MOST_TRIES):
        start = text.find(part, start, end)
        if start < 0:
            return
        stop = start + len(part)
        if not _inside_word(text, start) and not _inside_word(text, stop):
            yield start, stop
        start += 1


def _inside_word(text: str, position: int) -> bool:
    """Whether a letter or digit stands on both sides of a position."""
    before, behind = text[max(position - 1, 0) : position], text[position : position + 1]
    return before.isalnum() and behind.isalnum()
