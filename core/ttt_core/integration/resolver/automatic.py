"""What is found in a prompt though nobody said that it is a document.

A text that was named before, wherever it stands, or else the head of the prompt, once it comes
again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ttt_core.chat import SEAM
from ttt_core.document import Document
from ttt_core.integration.registry import Found
from ttt_core.integration.resolver import reasons
from ttt_core.integration.resolver.resolved import Resolved
from ttt_core.integration.resolver.search import (
    ASKING,
    Head,
    Search,
    is_readable,
    normal,
    without,
)

_LONGEST_CUE = 40
"""Characters."""


def known_text(search: Search) -> Resolved | None:
    """Find documents that were named before: the longest ones that stand in one message."""
    if not search.prompt.has_head:
        return None
    best: tuple[int, str, Found] | None = None
    for number, message in enumerate(search.prompt.left()):
        text = normal(message["content"]) if message["role"] in ASKING else ""
        found = search.registry.find(text) if text else None
        if found and (best is None or found.length > best[2].length):
            best = number, text, found
    if best is None:
        return None
    number, text, found = best
    texts = search.texts()
    texts[number] = without(text, found)
    left = search.prompt.with_texts(texts, {number})
    return Resolved(found.documents, left, "auto", adapt=True, reasons=(reasons.KNOWN,))


def head(search: Search) -> Resolved | None:
    """Take the longest head that was seen before, or else the longest."""
    if search.waits:
        return None
    if not search.prompt.has_head:
        search.reasons.append(reasons.NO_HEAD)
        return None
    heads = [one for one in _heads(search) if is_readable(one.text) and search.is_long(one.text)]
    if not heads:
        search.reasons.append(reasons.short_head(search.min_tokens))
        return None
    known = search.seen(heads)
    best = max(known or heads, key=lambda one: len(one.text))
    return Resolved(
        (Document.of(best.text),),
        best.messages,
        "auto",
        adapt=bool(known),
        reasons=(reasons.AGAIN_HEAD if known else reasons.FIRST_HEAD,),
    )


def _heads(search: Search) -> Iterator[Head]:
    """What stands first in the prompt, as the system's and as the user's part of it."""
    texts, opening = search.texts(), search.prompt.opening
    first = next((n for n in range(opening) if search.is_long(texts[n])), opening)
    if first < opening:
        cut = ["" if first <= n < opening else text for n, text in enumerate(texts)]
        left = search.prompt.with_texts(cut, range(first, opening))
        yield Head(SEAM.join(texts[first:opening]), SEAM.join(texts[:first]), left)
    for before, question in _split_question(texts[opening : search.prompt.rest]):
        yield search.user_head(texts, before, question)


def _split_question(texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Split the first user turn, given as its messages, into what is before the question and it.

    The question is the last message, or what stands behind the last blank line.
    """
    if len(texts) > 1:
        yield SEAM.join(texts[:-1]), texts[-1]
    lines = normal(SEAM.join(texts)).split("\n")
    blank = [number for number, line in enumerate(lines) if number and not line.strip()]
    if len(blank) > 1 and _is_cue(lines[blank[-1] + 1 :]):
        del blank[-1]
    if blank:
        yield "\n".join(lines[: blank[-1]]), "\n".join(lines[blank[-1] + 1 :])


def _is_cue(lines: Sequence[str]) -> bool:
    """Whether a prompt's last paragraph only asks to begin, as `Answer:` does."""
    return len(lines) == 1 and len(lines[0]) <= _LONGEST_CUE and lines[0].endswith(":")
