"""The documents that an engine's callers named, and which texts they sent before.

Texts that were named are held, to be found by a short id or in a prompt; of texts that were only
seen, a digest is.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from ttt_core.document import Document, as_document
from ttt_core.integration.excerpts import LINE, MOSTLY, Pieces, squeeze
from ttt_core.integration.notes import Notes
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


@dataclass(frozen=True)
class Covering:
    """Documents that a text is made of.

    Attributes:
        documents: The group.
        stands_for: Whether they can stand in its place: it holds all of them, or its pieces were
            noted.
        rest: Then, what of it would be lost.
        adapt: Whether to adapt to them.
    """

    documents: Group = field(repr=False)
    stands_for: bool
    rest: str = field(default="", repr=False)
    adapt: bool = True


class _Held(NamedTuple):
    """A group, and what tells quickly that it does not stand in a text."""

    documents: Group
    length: int
    words: frozenset[str]
    by_words: dict[str, Document]
    """By what they hold but white space."""
    named: bool
    """Whether a user named it; else it is known by its id and by notes only."""

    @classmethod
    def of(cls, documents: Group, *, named: bool) -> _Held:
        words = frozenset(word for part in documents for word in _rare_words(part.text))
        by_words = {_digest(part): part for part in documents}
        return cls(documents, sum(len(part.text) for part in documents), words, by_words, named)


def _sight(identifier: str) -> str:
    return f"group\0{identifier}"


def _digest(document: Document) -> str:
    return hashlib.sha256(squeeze(document.text).encode()).hexdigest()


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
        self.notes = Notes()

    def put(self, folder: str, identifier: str, held: _Held) -> None:
        groups = self._groups.setdefault(folder, {})
        before = groups.pop(identifier, None)  # The last one stands last.
        if before is not None and before.named:
            held = before
        groups[identifier] = held
        self._order.put((folder, identifier), held)
        while (oldest := self._order.excess()) is not None:
            self._drop(*oldest[0])

    def get(self, folder: str, identifier: str) -> Group | None:
        held = self._order.get((folder, identifier))
        return held and held.documents

    def all_of(self, folder: str) -> dict[str, _Held]:
        return dict(self._groups.get(folder, {}))

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

    def register(
        self, documents: Sequence[Document], identifier: str | None = None, *, named: bool = True
    ) -> str:
        """Hold documents that are read together; return their id.

        Args:
            documents: In the order in which they are read.
            identifier: That of the handle which names them (`AdaptedDocument.id`); None: made here.
            named: Whether the user named them, so that they are found wherever they stand; else
                they are found by their id, and for what is noted of them.

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
        held = _Held.of(tuple(documents), named=named)
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
        held = [one for one in self._named() if one.length <= len(text)]
        words = set(text.split()) if held else set()
        for one in sorted(held, key=lambda one: one.length, reverse=True):
            if one.words <= words and (spans := _spans(text, one.documents)):
                return Found(one.documents, spans)
        return None

    def note(self, identifier: str, excerpts: Sequence[str], beside: Sequence[str] = ()) -> None:
        """Remember pieces that the next prompt is going to show, and that documents stand for.

        A note is good for one prompt: the same pieces may be meant as they are in the next.

        Args:
            identifier: Of the documents.
            excerpts: Pieces of them, as a framework shows them; only digests of lines are kept.
            beside: Pieces of other documents, which are going to stand beside them, and stay.
        """
        for texts, stands in ((excerpts, True), (beside, False)):
            notes = [self._note(line) for text in texts for line in Pieces(text, LINE).squeezed]
            with _lock:
                self._memory.notes.add(self._folder, identifier, notes, stands=stands)

    def expect(self, identifier: str) -> None:
        """Say that documents are worth adapting to as soon as they are brought together."""
        self.seen(_sight(identifier))

    def covering(self, text: str) -> Covering | None:
        """Find the group of documents that a text is made of, as pieces of it or whole.

        Of several the one that was noted or named last: what it stands for may be newer.

        Args:
            text: As it stands in a prompt; notes of its lines are struck out.
        """
        return self.noted(text) or self._made_of(text)

    def like(self, document: Document) -> Document:
        """Return a document that is held and differs from this one in white space only, or itself.

        Who puts pieces together again does not know the white space that was between them.
        """
        words = _digest(document)
        for held in self._all().values():
            if words in held.by_words:
                return held.by_words[words]
        return document

    def _all(self) -> dict[str, _Held]:
        with _lock:
            return self._memory.all_of(self._folder)

    def _named(self) -> list[_Held]:
        """Those that the user named, the last one first."""
        return [held for held in reversed(self._all().values()) if held.named]

    def noted(self, text: str) -> Covering | None:
        """Find the group with which a text was noted, and strike its lines out; see `note`."""
        pieces = Pieces(text, LINE)
        digests = [self._note(line) for line in pieces.squeezed]
        with _lock:
            notes = self._memory.notes
            noted = notes.find(self._folder, digests, [len(line) for line in pieces.squeezed])
            held = noted and self._memory.all_of(self._folder).get(noted.identifier)
            if noted is None or held is None or pieces.share(noted.known) < MOSTLY:
                return None
            notes.take(self._folder, noted.identifier, digests)
        rest = Pieces(pieces.without(noted.stands)).compare(held.documents).rest
        return Covering(held.documents, True, rest, adapt=self._is_worth(noted.identifier, held))

    def _is_worth(self, identifier: str, held: _Held) -> bool:
        """Whether to adapt: documents that a retriever brought together may never meet again."""
        return held.named or len(held.documents) == 1 or self.seen(_sight(identifier))

    def _made_of(self, text: str) -> Covering | None:
        pieces = Pieces(text)
        for held in self._named():
            excerpt = pieces.compare(held.documents)
            if excerpt.is_pieces:
                return Covering(held.documents, excerpt.is_whole, excerpt.rest)
        return None

    def _note(self, squeezed: str) -> str:
        return self._namespace.digest("note", squeezed.encode("utf-8", "surrogatepass"))[:32]


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
