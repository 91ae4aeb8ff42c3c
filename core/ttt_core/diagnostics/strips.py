"""A document as a strip of sections: where attention goes, where text comes back, the needle."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ttt_core.supervision import Passage, TokenizedDocument

MOST_SECTIONS = 240
"""More could not be told apart on a page."""


@dataclass(frozen=True)
class Section:
    """Some neighbouring sentences or lines.

    Attributes:
        start: First token in the prefix.
        end: One behind the last.
        before: Mass of the base model's attention, mean over layers, heads and queries.
        after: Likewise with the adapter; None: there is none.
        recurrent: Share of its tokens whose next one follows from an earlier occurrence; see
            `ttt_core.supervision.recurrence`.
        is_needle: Whether a needle reaches into it.
    """

    start: int
    end: int
    before: float
    after: float | None
    recurrent: float
    is_needle: bool


def make_strip(
    document: TokenizedDocument,
    before: Sequence[float],
    after: Sequence[float] | None,
    recurrent: Collection[int],
    needle: Collection[int],
) -> tuple[Section, ...]:
    """Cut a document at its sentences or lines, and sum up each section.

    Args:
        document: The document.
        before: Mass of each token of the prefix, base model.
        after: Likewise, with the adapter.
        recurrent: Positions of the prefix.
        needle: Tokens of the prefix.
    """
    recurrent, needle = set(recurrent), set(needle)
    strip = []
    for start, end in _sections(document):
        tokens = range(start, end)
        strip.append(
            Section(
                start,
                end,
                before=sum(before[start:end]),
                after=None if after is None else sum(after[start:end]),
                recurrent=sum(token in recurrent for token in tokens) / len(tokens),
                is_needle=any(token in needle for token in tokens),
            )
        )
    return tuple(strip)


def _sections(document: TokenizedDocument) -> list[Passage]:
    starts = sorted({document.start, *(passage.start for passage in document.passages)})
    step = -(-len(starts) // MOST_SECTIONS)
    starts = starts[::step]
    ends = [*starts[1:], document.end]
    return [Passage(*pair) for pair in zip(starts, ends, strict=True) if pair[0] < pair[1]]
