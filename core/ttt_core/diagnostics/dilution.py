"""Dilution: how attention on the same needle falls as the document around it grows.

The document is cut at sentences or lines around the needle's first place, to lengths that double up
to the whole. Every cut is read anew by the base model. The adapter is always that of the whole
document: what is compared is one change of the queries on haystacks of several sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ttt_core.supervision import Passage, TokenizedDocument

if TYPE_CHECKING:
    from ttt_core.diagnostics.measure import Measurement

SHORTEST = 64
"""Tokens of the first cut, unless the needle itself is longer."""

MOST_CUTS = 8
"""The whole document included; together they cost reading it about twice."""


@dataclass(frozen=True, eq=False)
class DilutionPoint:
    """One length.

    Attributes:
        n_tokens: Tokens of system prompt and document.
        before: With the base model.
        after: With the whole document's adapter; None: there is none.
    """

    n_tokens: int
    before: Measurement
    after: Measurement | None


def cuts(document: TokenizedDocument, needles: Sequence[Passage]) -> Iterator[Passage]:
    """Yield pieces of a document around its needles, each about twice as long, all but the whole.

    Args:
        document: The whole.
        needles: First places of the needles, which every cut holds.
    """
    core = Passage(min(p.start for p in needles), max(p.end for p in needles))
    whole = document.end - document.start
    lengths = [whole]
    while len(lengths) < MOST_CUTS and lengths[-1] // 2 >= max(SHORTEST, core.end - core.start):
        lengths.append(lengths[-1] // 2)
    for length in reversed(lengths[1:]):
        yield _around(document, core, length)


def _around(document: TokenizedDocument, core: Passage, length: int) -> Passage:
    """The needle in the middle, or as near to it as the document's ends allow."""
    start = (core.start + core.end - length) // 2
    start = min(max(start, document.start), document.end - length)
    return _on_passages(document, core, Passage(start, start + length))


def _on_passages(document: TokenizedDocument, core: Passage, piece: Passage) -> Passage:
    """Shrink to whole sentences or lines, as long as the needle stays in."""
    starts = [p.start for p in document.passages if piece.start <= p.start <= core.start]
    ends = [p.end for p in document.passages if core.end <= p.end <= piece.end]
    return Passage(min(starts, default=piece.start), max(ends, default=piece.end))
