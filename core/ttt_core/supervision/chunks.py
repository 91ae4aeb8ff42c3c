"""A document in overlapping chunks, what retrieval chooses from.

512 tokens with an overlap of 64, as EASE-TTT cuts (arXiv 2606.06906); a smaller document has
smaller chunks, so that there is something to choose from.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from ttt_core.supervision.passages import Passage, TokenizedDocument

LONGEST_CHUNK = 512
"""Tokens."""

SHORTEST_CHUNK = 32
"""Tokens; a document that is shorter is one chunk."""

FEWEST_CHUNKS = 16
"""A document is cut into at least so many, unless they would be too short."""

OVERLAP = 8
"""A chunk shares at most 1/OVERLAP of its longest length with the next: 64 of 512 tokens."""


def cut_chunks(document: TokenizedDocument) -> list[Passage]:
    """Cut a document into chunks that cover it, in its order; none if it is empty.

    Chunks begin and end where passages do, wherever there is such a place within reach.
    """
    longest = _longest(document.end - document.start)
    starts = [passage.start for passage in document.passages]
    ends = [passage.end for passage in document.passages]
    chunks, start = [], document.start
    while start < document.end:
        end = start + longest
        if end < document.end:
            index = bisect_right(ends, end)
            if index and ends[index - 1] > start + longest // 2:
                end = ends[index - 1]
        end = min(end, document.end)
        chunks.append(Passage(start, end))
        if end == document.end:
            break
        start = end - longest // OVERLAP
        index = bisect_left(starts, start)
        if index < len(starts) and starts[index] <= end:
            start = starts[index]
    return chunks


def _longest(n_tokens: int) -> int:
    return min(max(n_tokens // FEWEST_CHUNKS, SHORTEST_CHUNK), LONGEST_CHUNK)
