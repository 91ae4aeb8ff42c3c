"""The protocol of all supervisions."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

from ttt_core.config import AdaptationConfig
from ttt_core.packed import PackedBatch
from ttt_core.supervision.passages import Passage, TokenizedDocument


class Supervision(Protocol):
    """Turns a document and a seed into training batches.

    Constructing one analyses the document, which costs; `batches` can then be called again and
    again, once for every learning rate that is tried.
    """

    def __init__(
        self,
        document: TokenizedDocument,
        *,
        held_out: Collection[Passage],
        config: AdaptationConfig,
    ) -> None:
        """Analyse a document.

        Args:
            document: The document's tokens.
            held_out: Passages whose tokens must never be a label.
            config: Sizes and the seed; the same values yield the same batches.
        """
        ...

    def batches(self) -> Iterator[PackedBatch]:
        """Yield batches without end, or none if the document has nothing to train on."""
        ...


def trainable_positions(document: TokenizedDocument, held_out: Collection[Passage]) -> list[bool]:
    """Mark positions of the prefix whose next token may be a label of in-place training."""
    allowed = [document.start <= i < document.end - 1 for i in range(len(document.input_ids))]
    for passage in held_out:
        for position in range(max(passage.start - 1, 0), passage.end - 1):
            allowed[position] = False
    return allowed
