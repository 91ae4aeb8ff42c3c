"""The protocol of all supervisions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ttt_core.config import AdaptationConfig
from ttt_core.packed import PackedBatch
from ttt_core.supervision.passages import SHORTEST, Passage, TokenizedDocument

if TYPE_CHECKING:
    import torch


class BaseReader(Protocol):
    """What a supervision may ask of the base model that has read the document. All is greedy."""

    def token_losses(self) -> torch.Tensor:
        """Loss at each position of the prefix, nats, fp32 on the CPU, shape (n_tokens,).

        Entry i is the loss of token i + 1; NaN at the last one.
        """
        ...

    def token_entropies(self) -> torch.Tensor:
        """Entropy of the next token's distribution at each position; as `token_losses`."""
        ...

    def answers(self, prompts: Sequence[str], *, max_new_tokens: int) -> list[str]:
        """Answer user messages behind the document; "" where the window has no room for it."""
        ...

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without special ones."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of tokens, special ones left out."""
        ...

    def chat_tail(self, prompt: str) -> list[int]:
        """The tokens between the document and an answer to the user message `prompt`."""
        ...


@dataclass(frozen=True)
class Given:
    """All that supervisions may look at.

    Attributes:
        document: The document's tokens.
        held_out: Passages whose tokens must never be a label.
        config: Sizes and the seed; the same values yield the same batches.
        question: What will be asked; None: anything.
        base: The base model.
    """

    document: TokenizedDocument
    held_out: Collection[Passage]
    config: AdaptationConfig
    question: str | None
    base: BaseReader


class Supervision(Protocol):
    """Turns a document and a seed into training batches.

    Constructing one analyses the document, which costs; `batches` can then be called again and
    again, once for every learning rate that is tried.
    """

    def __init__(self, given: Given) -> None:
        """Analyse a document."""
        ...

    def batches(self) -> Iterator[PackedBatch]:
        """Yield batches without end, or none if the document has nothing to train on."""
        ...


def trainable_positions(document: TokenizedDocument, held_out: Collection[Passage]) -> list[bool]:
    """Mark positions of the prefix whose next token may be a label of in-place training.

    What is held out is so wherever it stands: where it comes back, it would be learnt all the same.
    """
    allowed = [document.start <= i < document.end - 1 for i in range(len(document.input_ids))]
    for passage in (*held_out, *_repeats(document.input_ids, held_out)):
        for position in range(max(passage.start - 1, 0), passage.end - 1):
            allowed[position] = False
    return allowed


def _repeats(ids: tuple[int, ...], passages: Collection[Passage]) -> Iterator[Passage]:
    """Find every place of the passages' tokens; found by their first ones, in one pass."""
    wanted: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for passage in passages:
        text = ids[passage.start : passage.end]
        wanted.setdefault(text[:SHORTEST], set()).add(text)
    for start in range(len(ids)):
        for text in wanted.get(ids[start : start + SHORTEST], ()):
            if ids[start : start + len(text)] == text:
                yield Passage(start, start + len(text))
