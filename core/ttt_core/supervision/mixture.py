"""Mixture: one step of each kind in turn, equal shares, nothing tuned.

Cloze trains behind the document, where answers are produced, and recurrence in place, where the
document itself retrieves; with a question, retrieved chunks (EASE-TTT's selection, arXiv
2606.06906) take the third turn. Ours; every batch is exactly one of its parts'.
"""

from __future__ import annotations

from collections.abc import Iterator

from ttt_core.packed import PackedBatch
from ttt_core.supervision.base import Given, Supervision
from ttt_core.supervision.cloze import ClozeSupervision
from ttt_core.supervision.recurrence import RecurrenceSupervision
from ttt_core.supervision.retrieved import RetrievedSupervision


class MixtureSupervision:
    """Cloze, recurrence and, for a question, retrieved chunks, in turn.

    Attributes:
        parts: The supervisions; one that finds nothing in the document loses its turn.
        fallback: Whether there is a question and no chunk has anything to do with it.
    """

    def __init__(self, given: Given) -> None:
        """See `Supervision`."""
        parts: list[Supervision] = [ClozeSupervision(given), RecurrenceSupervision(given)]
        self.fallback = False
        if given.question is not None:
            retrieved = RetrievedSupervision(given)
            self.fallback = retrieved.fallback
            parts += [] if retrieved.fallback else [retrieved]
        self.parts = tuple(parts)

    def batches(self) -> Iterator[PackedBatch]:
        """Yield each part's next batch in turn; see `Supervision`."""
        streams = [part.batches() for part in self.parts]
        while streams:
            for stream in list(streams):
                batch = next(stream, None)
                if batch is None:
                    streams.remove(stream)
                else:
                    yield batch
