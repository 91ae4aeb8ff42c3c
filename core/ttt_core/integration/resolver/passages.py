"""Passages, which are what frameworks hand over: beside documents that are read, or as documents.

Documents stand for the passages that hold all of them. Where a passage only holds pieces, it stays
in the prompt, since the question may be about the pieces.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import takewhile

from ttt_core.chat import SEAM, Message
from ttt_core.document import Document
from ttt_core.integration.excerpts import compare
from ttt_core.integration.prompt import ABOVE, Passage, Place, is_system
from ttt_core.integration.resolver import reasons
from ttt_core.integration.resolver.resolved import DocumentsFrom, Resolved
from ttt_core.integration.resolver.search import Head, Search, is_readable, normal, without
from ttt_core.integration.resolver.templates import is_template


def beside(
    search: Search,
    documents: tuple[Document, ...],
    source: DocumentsFrom,
    taken: Collection[Place] = (),
) -> Resolved:
    """Read documents; passages that hold all of them, or were noted, are left out.

    Args:
        search: The request's.
        documents: To be read.
        source: Who said so.
        taken: Where they stood in the prompt.
    """
    out: dict[Place, str] = {}
    pieces: dict[Place, str] = {}
    for place, passage in search.passages().items():
        noted = search.registry.noted(passage.content)
        excerpt = compare(passage.content, documents)
        if excerpt.is_whole:
            out[place] = _above(excerpt.rest)
        elif noted is not None and set(noted.documents) <= set(documents):
            out[place] = _above(noted.rest)
        elif excerpt.is_pieces:
            pieces[place] = _above(excerpt.rest)
    why = [reasons.OWN_PASSAGE] * bool(out) + [reasons.OWN_PIECES] * bool(pieces)
    left = search.prompt.left(taken, out)
    found = Resolved(documents, left, source, adapt=True, reasons=tuple(why))
    return _or_without(search, found, {**out, **pieces}, taken) if pieces else found


def first_passage(search: Search) -> Resolved | None:
    """Take the first passage that stands for documents, or is one."""
    passages = search.passages()
    if passages and not search.prompt.has_head:
        search.reasons.append(reasons.NO_HEAD)
        return None
    for place, passage in passages.items():
        found = _known(search, place, passage) or _long(search, place, passage)
        if found is not None:
            return _or_in_context(search, found)
    return None


def _known(search: Search, place: Place, passage: Passage) -> Resolved | None:
    """Find the documents that a passage is made of."""
    known = search.registry.covering(passage.content)
    if known is None:
        return _known_within(search, place, passage)
    why = [reasons.KNOWN_PASSAGE if known.stands_for else reasons.KNOWN_PIECES]
    why += [] if known.adapt else [reasons.FIRST_GROUP]
    instead = {place: _above(known.rest)}
    left = search.prompt.left((), instead if known.stands_for else {})
    found = Resolved(known.documents, left, "passage", known.adapt, tuple(why))
    return found if known.stands_for else _or_without(search, found, instead)


def _known_within(search: Search, place: Place, passage: Passage) -> Resolved | None:
    """Find documents with other text around them in a passage."""
    text = normal(passage.content)
    found = search.registry.find(text) if text else None
    if found is None:
        return None
    left = search.prompt.left((), {place: _above(without(text, found))})
    why = (reasons.KNOWN_PASSAGE,)
    return Resolved(found.documents, left, "passage", adapt=True, reasons=why)


def _long(search: Search, place: Place, passage: Passage) -> Resolved | None:
    """Take a passage as a document; adapt to it if it was seen before."""
    text = passage.content
    if not (is_readable(text) and search.is_long(text)):
        search.reasons.append(reasons.short_passage(search.min_tokens))
        return None
    left = search.prompt.left((), {place: ABOVE})
    known = bool(search.seen([Head(text, _read_before(left), left)]))
    why = reasons.AGAIN_PASSAGE if known else reasons.FIRST_PASSAGE
    return Resolved((Document.of(text),), left, "passage", adapt=known, reasons=(why,))


def _read_before(messages: tuple[Message, ...]) -> str:
    """What stands before documents when they are read."""
    opening = takewhile(is_system, messages)
    return SEAM.join(str(message["content"]) for message in opening if not is_template(message))


def _or_without(
    search: Search, found: Resolved, instead: Mapping[Place, str], taken: Collection[Place] = ()
) -> Resolved:
    """If it does not fit, leave pieces out of the prompt that the documents hold."""
    less = search.prompt.left(taken, instead)
    fallback = replace(found, messages=less, reasons=(reasons.PIECES_LEFT_OUT,))
    return replace(found, fallback=fallback)


def _or_in_context(search: Search, found: Resolved) -> Resolved:
    """If it does not fit, answer in-context, as if nobody had found documents."""
    if found.fallback is not None:
        return replace(found, fallback=_or_in_context(search, found.fallback))
    plain = Resolved(messages=search.prompt.left(), reasons=(reasons.DOES_NOT_FIT,))
    return replace(found, fallback=plain)


def _above(rest: str) -> str:
    """What stands for a passage that is read ahead: a hint, and what of it is not read ahead."""
    return f"{ABOVE}{SEAM}{rest}" if rest.strip() else ABOVE
