"""What goes through the model at once: any tokens, anywhere, in one packed row.

A frozen token depends on nothing but itself and the frozen keys and values, so one row of the
batch holds whatever is to be computed, told apart by position and segment:

    in place    tokens of the document at their own positions; they read the frozen K,V of
                everything up to themselves, and add none
    behind      private tails after the document (a cloze, a question, one row of a batch of
                answers); each reads all of the prefix, and of the tails only its own segment

Training, probing, decoding and batched decoding are all this one operation; how it is computed is
`ttt_core.attention`'s business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

IGNORE = -100
"""Label of a token on which nothing is trained, as everywhere in transformers."""


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Tokens for one forward pass, and what to learn from them.

    Attributes:
        input_ids: Shape (n_tokens,).
        position_ids: Positions in the model's window, shape (n_tokens,); in place they ascend.
        labels: The token that should come next, or IGNORE, shape (n_tokens,).
        segment_ids: Which tail a token belongs to, shape (n_tokens,); None: all in place.
    """

    input_ids: torch.Tensor = field(repr=False)
    position_ids: torch.Tensor
    labels: torch.Tensor = field(repr=False)
    segment_ids: torch.Tensor | None

    def __post_init__(self) -> None:
        in_place = self.segment_ids is None
        if in_place and (self.position_ids.diff() <= 0).any():
            raise ValueError("positions in place must ascend")

    @property
    def labelled(self) -> torch.Tensor:
        """Indices of the tokens on which something is trained, shape (n_labels,)."""
        return (self.labels != IGNORE).nonzero().squeeze(-1)

    @property
    def targets(self) -> torch.Tensor:
        """Their labels, shape (n_labels,)."""
        return self.labels[self.labelled]

    def split(self, most: int) -> Iterator[PackedBatch]:
        """Cut into batches of at most `most` tokens; what has no label is left out.

        Tails stay whole: one that is longer than `most` makes a batch of its own.
        """
        start = 0
        for end in self._cuts(most):
            part = slice(start, end)
            segments = None if self.segment_ids is None else self.segment_ids[part]
            some = PackedBatch(
                self.input_ids[part], self.position_ids[part], self.labels[part], segments
            )
            if len(some.labelled):
                yield some
            start = end

    def _cuts(self, most: int) -> Iterator[int]:
        n_tokens, start = len(self.input_ids), 0
        ends = list(range(1, n_tokens + 1))
        if self.segment_ids is not None:
            ends = [*(self.segment_ids.diff().nonzero().squeeze(-1) + 1).tolist(), n_tokens]
        for end, following in zip(ends, [*ends[1:], None], strict=True):
            if following is None or following - start > most:
                yield end
                start = end

    @classmethod
    def of_tails(
        cls, tails: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], *, start: int
    ) -> PackedBatch:
        """Pack tails that all begin at position `start`."""
        return cls(
            input_ids=_flat(tails),
            position_ids=_flat([range(start, start + len(tail)) for tail in tails]),
            labels=_flat(labels),
            segment_ids=_flat([[index] * len(tail) for index, tail in enumerate(tails)]),
        )


def _flat(rows: Sequence[Sequence[int] | range]) -> torch.Tensor:
    return torch.tensor([value for row in rows for value in row], dtype=torch.long)
