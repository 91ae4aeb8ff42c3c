"""Cloze: quote the beginning of a sentence or line behind the document, learn its continuation.

Training happens where answers will be produced: each private tail is the model's own chat format
with nothing asked, then the beginning of a passage as if the assistant were quoting it. The loss
is on the rest of the passage, so the queries that learn are those that must find it in the frozen
keys. Many tails pack into one forward pass. Ours; see the README's table for what it is worth.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

from ttt_core.packed import IGNORE, PackedBatch
from ttt_core.supervision.base import Given
from ttt_core.supervision.passages import Passage, TokenizedDocument

T = TypeVar("T")


class Cloze(NamedTuple):
    """A passage [start, end) of the prefix, quoted up to `cut`, to be continued from there."""

    start: int
    cut: int
    end: int


class ClozeSupervision:
    """`clozes_per_step` tails a step; every passage once before any comes again."""

    def __init__(self, given: Given) -> None:
        """See `Supervision`."""
        document, kept = given.document, set(given.held_out)
        shortest = document.shortest_quotes
        self._usable = [p for p in document.passages if p not in kept and shortest[p] < p.end]
        self._document = document
        self._config = given.config

    def batches(self) -> Iterator[PackedBatch]:
        """Yield packed tails without end; see `Supervision`."""
        rng = random.Random(self._config.seed)
        shortest = self._document.shortest_quotes
        for chosen in in_turns(self._usable, self._config.clozes_per_step, rng):
            yield pack_clozes(self._document, [_cloze(p, shortest[p], rng) for p in chosen])


def in_turns(items: Sequence[T], size: int, rng: random.Random) -> Iterator[list[T]]:
    """Yield `size` items at a time without end, each of them once before any comes again."""
    queue: list[T] = []
    while items:
        while len(queue) < min(size, len(items)):
            queue += rng.sample(items, len(items))
        chosen, queue = queue[:size], queue[size:]
        yield chosen


def find_clozes(document: TokenizedDocument, *, seed: int) -> list[Cloze]:
    """Return one cloze for every passage that has one, shuffled by `seed`."""
    rng = random.Random(seed)
    shortest = document.shortest_quotes
    clozes = [_cloze(p, shortest[p], rng) for p in document.passages if shortest[p] < p.end]
    rng.shuffle(clozes)
    return clozes


def pack_clozes(document: TokenizedDocument, clozes: Sequence[Cloze]) -> PackedBatch:
    """Pack one tail for each cloze, all beginning right behind the document."""
    tails, labels = [], []
    for cloze in clozes:
        quoted = document.input_ids[cloze.start : cloze.end]
        tail = [*document.answer_start, *quoted[:-1]]  # The last token has no successor to learn.
        n_unlabelled = len(tail) - (cloze.end - cloze.cut)
        tails.append(tail)
        labels.append([IGNORE] * n_unlabelled + list(quoted[cloze.cut - cloze.start :]))
    return PackedBatch.of_tails(tails, labels, start=len(document.input_ids))


def _cloze(passage: Passage, shortest: int, rng: random.Random) -> Cloze:
    """Quote enough to identify the passage, and at most half of it beyond that."""
    longest = max(shortest, (passage.start + passage.end) // 2)
    return Cloze(passage.start, rng.randint(shortest, longest), passage.end)
