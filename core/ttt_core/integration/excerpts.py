"""Which text was cut out of documents: what a retriever found, put together again by a framework.

White space is not compared: splitters change it, and frameworks join pieces with blank lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import NamedTuple

from ttt_core.chat import SEAM
from ttt_core.document import Document

MOSTLY = 0.8
"""What share counts as all. The rest is what frameworks add to pieces, such as a title, or what
splitters lose."""

TELLING = 40
"""Characters in a row, white space aside, that no two texts have in common by chance."""

LINE = "\n"
"""A seam of `Pieces`."""

_PROBES = 8
_MOST_TRIES = 64
_STRETCH = 8 * TELLING
_BLANK = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)+")


@dataclass(frozen=True)
class Excerpt:
    """How a text relates to documents.

    Attributes:
        inside: Share of the text's characters that stand in the documents; 0, if hardly any do, or
            only words that stand in any text.
        coverage: Share of the documents' characters that stand in the text.
        rest: The paragraphs that do not stand in the documents.
        labelled: Whether some of these stand between others that do, as numbers of sources do.
    """

    inside: float
    coverage: float
    rest: str = field(repr=False)
    labelled: bool = False

    @property
    def is_pieces(self) -> bool:
        """Whether the text is made of pieces of the documents, or of all of them."""
        return self.inside >= MOSTLY

    @property
    def is_whole(self) -> bool:
        """Whether it holds all of them, and nothing between them: they can stand for it."""
        return self.is_pieces and self.coverage >= MOSTLY and not self.labelled


class Place(NamedTuple):
    """Where a paragraph stands: in which document, and from which to which of its characters."""

    document: int
    start: int
    end: int


class Pieces:
    """A text in paragraphs, to be looked for in many documents.

    Args:
        text: Pieces of documents, or anything else.
        seam: What stands between its paragraphs: a blank line; or a line's end, to look for lines.

    Attributes:
        paragraphs: As they stand in the text.
        squeezed: The same without white space.
    """

    def __init__(self, text: str, seam: str = SEAM) -> None:
        self._text = text
        self._seam = seam
        self.paragraphs = paragraphs(text) if seam == SEAM else _lines(text)
        self.squeezed = [squeeze(paragraph) for paragraph in self.paragraphs]
        self._lengths = [len(piece) for piece in self.squeezed]
        self._probes = _probes(self.paragraphs)

    def compare(self, documents: Sequence[Document]) -> Excerpt:
        """Look for the paragraphs in documents."""
        if not self._may_stand_in(documents):
            return Excerpt(0.0, 0.0, self._text)
        held = [squeeze(document.text) for document in documents]
        excerpt = self._found(held)
        if excerpt.is_pieces or self._seam == LINE:
            return excerpt
        # Some frameworks put pieces, or a heading and a piece, together with a line's end alone.
        return Pieces(self._text, LINE)._found(held)

    def _found(self, held: Sequence[str]) -> Excerpt:
        places = _places(self.squeezed, held)
        found = [place for place in places if place is not None]
        coverage = _union(found) / sum(map(len, held))
        if coverage < MOSTLY and _longest(found) < TELLING:
            return Excerpt(0.0, 0.0, self._text)
        inside = [place is not None for place in places]
        labelled = False in _stripped(inside)
        return Excerpt(self.share(inside), coverage, self.without(inside), labelled)

    def share(self, chosen: Sequence[bool]) -> float:
        """The share of the text's characters that some of its paragraphs have."""
        return sum(compress(self._lengths, chosen)) / max(sum(self._lengths), 1)

    def without(self, chosen: Sequence[bool]) -> str:
        """The text without some of its paragraphs."""
        left = (text for text, one in zip(self.paragraphs, chosen, strict=True) if not one)
        return self._seam.join(left)

    def _may_stand_in(self, documents: Sequence[Document]) -> bool:
        """Tell quickly that they do not: too much of what was looked for stands nowhere."""
        texts, allowed = [document.text for document in documents], len(self._probes) // 4
        if sum(self._lengths) < TELLING and sum(map(len, texts)) > _STRETCH:
            return False  # A few words are pieces of any text, and all of a short one only.
        for probe in self._probes:
            if not any(probe.may_stand_in(text) for text in texts):
                allowed -= 1
                if allowed < 0:
                    return False
        return bool(self._probes)


def compare(text: str, documents: Sequence[Document]) -> Excerpt:
    """Look for a text's paragraphs in documents.

    Args:
        text: Pieces of documents, or anything else.
        documents: What it may be made of.
    """
    return Pieces(text).compare(documents)


def paragraphs(text: str) -> list[str]:
    """Split a text at its blank lines."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return [part for part in _BLANK.split(lines) if part.strip()]


def _stripped(inside: Sequence[bool]) -> Sequence[bool]:
    """Leave out what is before the first paragraph that is inside, and behind the last one."""
    places = [number for number, is_inside in enumerate(inside) if is_inside]
    return inside[places[0] : places[-1]] if places else ()


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def squeeze(text: str) -> str:
    """Take out all white space."""
    return "".join(text.split())


class _Probe(NamedTuple):
    """A long word and, without white space, what stands from there on."""

    word: str
    text: str

    def may_stand_in(self, text: str) -> bool:
        start = -1
        for _ in range(_MOST_TRIES):
            start = text.find(self.word, start + 1)
            if start < 0:
                return False
            found = squeeze(text[start : start + _STRETCH])
            if found[: len(self.text)] == self.text[: len(found)]:
                return True
        return True


def _probes(parts: Sequence[str]) -> list[_Probe]:
    """Choose what to look for: in the longest paragraphs, since titles stand in short ones."""
    longest = sorted(parts, key=len)[-_PROBES:]
    each = -(-_PROBES // max(len(longest), 1))
    return [probe for part in longest for probe in _probes_in(part.split(), each)]


def _probes_in(words: Sequence[str], number: int) -> Iterator[_Probe]:
    for place in sorted(range(len(words)), key=lambda place: len(words[place]))[-number:]:
        yield _Probe(words[place], "".join(words[place : place + TELLING])[:TELLING])


def _places(pieces: Sequence[str], held: Sequence[str]) -> list[Place | None]:
    """Find pieces in texts, each behind the one before it if it goes on there."""
    places: list[Place | None] = []
    last: dict[str, Place] = {}
    before: Place | None = None
    for piece in pieces:
        if before and held[before.document].startswith(piece, before.end):
            place: Place | None = Place(before.document, before.end, before.end + len(piece))
        else:
            place = _next(piece, held, last.get(piece))
        if place is not None:
            last[piece] = before = place
        places.append(place)
    return places


def _next(piece: str, held: Sequence[str], last: Place | None) -> Place | None:
    """The next place of a piece; the last one again, if there is no other: pieces overlap."""
    first, start = (last.document, last.end) if last else (0, 0)
    for number in range(first, len(held)):
        found = held[number].find(piece, start)
        if found >= 0:
            return Place(number, found, found + len(piece))
        start = 0
    return last


def _union(places: Iterable[Place]) -> int:
    """Characters that places cover together."""
    covered, done = 0, (0, 0)
    for document, start, end in sorted(places):
        reached = done[1] if done[0] == document else 0
        covered += max(end - max(start, reached), 0)
        done = document, max(end, reached)
    return covered


def _longest(places: Iterable[Place]) -> int:
    """Characters of the longest stretch that places one behind the other cover."""
    longest, stretch, before = 0, 0, None
    for place in places:
        stretch = stretch if before == (place.document, place.start) else 0
        stretch += place.end - place.start
        longest, before = max(longest, stretch), (place.document, place.end)
    return longest
