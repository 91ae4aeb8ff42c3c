"""Random spans: next-token loss on contiguous pieces of the document, in place.

Algorithm 1 of Bansal et al., "Let's (not) just put things in Context" (arXiv 2512.13898): draw t
uniformly and minimise  - sum_{i=t}^{t+k-1} log p(x_{i+1} | x_{1:i}; frozen K,V)  over W_Q.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence

import torch

from ttt_core.packed import IGNORE, PackedBatch
from ttt_core.supervision.base import Given, trainable_positions
from ttt_core.supervision.passages import TokenizedDocument


class RandomSpanSupervision:
    """The paper's supervision: one span of `span_length` positions a step, or several."""

    def __init__(self, given: Given) -> None:
        """See `Supervision`."""
        self._document = given.document
        self._config = given.config
        self._allowed = trainable_positions(given.document, given.held_out)

    def batches(self) -> Iterator[PackedBatch]:
        """Yield spans without end; see `Supervision`."""
        document, config = self._document, self._config
        length = min(config.span_length, document.end - 1 - document.start)
        if length < 1 or not any(self._allowed):
            return
        n_spans = max(config.positions // config.span_length, 1)
        rng = random.Random(config.seed)
        while True:
            starts = [rng.randrange(document.start, document.end - length) for _ in range(n_spans)]
            positions = {start + i for start in starts for i in range(length)}
            batch = in_place_batch(document, positions, self._allowed)
            if batch is not None:
                yield batch


def in_place_batch(
    document: TokenizedDocument, positions: Collection[int], allowed: list[bool]
) -> PackedBatch | None:
    """Pack document positions; those not allowed lose their label. None if no label is left."""
    ids = torch.tensor(document.input_ids)
    index = torch.tensor(sorted(positions))
    keep = torch.tensor(allowed)[index]
    if not keep.any():
        return None
    labels = torch.where(keep, ids[index + 1], torch.tensor(IGNORE))
    return PackedBatch(input_ids=ids[index], position_ids=index, labels=labels, segment_ids=None)


def sampled_batches(given: Given, positions: Sequence[int]) -> Iterator[PackedBatch]:
    """Draw `config.positions` of these positions a step, each at most once; see `Supervision`.

    Args:
        given: What is trained on.
        positions: Positions whose next token is to be learnt; those not allowed are left out.
    """
    allowed = trainable_positions(given.document, given.held_out)
    usable = [position for position in positions if allowed[position]]
    rng = random.Random(given.config.seed)
    while usable:
        chosen = rng.sample(usable, min(given.config.positions, len(usable)))
        batch = in_place_batch(given.document, chosen, allowed)
        assert batch is not None
        yield batch
