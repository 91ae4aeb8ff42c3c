"""Hard positions: in place, where the base model is worst or least certain.

The selectors that S-TTT compares its own with (arXiv 2607.09415): the tokens of highest loss
("perplexity") and those where the model's distribution has the highest entropy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from ttt_core.packed import PackedBatch
from ttt_core.supervision.base import Given, trainable_positions
from ttt_core.supervision.random_span import sampled_batches

if TYPE_CHECKING:
    from collections.abc import Sequence

TOP_SHARE = 0.1
"""Share of the positions that may be trained on, from the top; each step draws among them."""


class HighLossSupervision:
    """`config.positions` a step of the positions whose next token costs the base most."""

    def __init__(self, given: Given) -> None:
        """See `Supervision`."""
        self._given = given
        self._positions = hardest(given, given.base.token_losses())

    def batches(self) -> Iterator[PackedBatch]:
        """Yield batches of positions without end; see `Supervision`."""
        return sampled_batches(self._given, self._positions)


class HighEntropySupervision:
    """`config.positions` a step of the positions where the base is least certain."""

    def __init__(self, given: Given) -> None:
        """See `Supervision`."""
        self._given = given
        self._positions = hardest(given, given.base.token_entropies())

    def batches(self) -> Iterator[PackedBatch]:
        """Yield batches of positions without end; see `Supervision`."""
        return sampled_batches(self._given, self._positions)


def hardest(given: Given, scores: torch.Tensor) -> Sequence[int]:
    """Return the TOP_SHARE of trainable positions with the highest scores, ascending; at least one.

    Args:
        given: What is trained on.
        scores: One for each token of the prefix, shape (n_tokens,). NaN is no candidate.
    """
    allowed = torch.tensor(trainable_positions(given.document, given.held_out))
    candidates = (allowed & ~scores.isnan()).nonzero().squeeze(-1)
    if not len(candidates):
        return []
    size = max(round(TOP_SHARE * len(candidates)), 1)
    order = scores[candidates].argsort(descending=True, stable=True)
    chosen: list[int] = candidates[order[:size]].sort().values.tolist()
    return chosen
