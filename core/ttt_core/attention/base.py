"""What an attention path offers: one way to run a model against a frozen prefix."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from ttt_core.packed import PackedBatch
    from ttt_core.prefix import FrozenPrefix


class Tails(Protocol):
    """Private tails behind one prefix, growing with every forward pass.

    The prefix's tensors are used by reference and never written to.
    """

    @property
    def name(self) -> str:
        """What reports call the path that has run for these tails."""
        ...

    def forward(
        self,
        model: PreTrainedModel,
        *,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        segment_ids: torch.Tensor,
        logits_at: torch.Tensor,
    ) -> torch.Tensor:
        """Compute new tokens of any tails in one packed row.

        Nothing is kept if this raises: the same call can be made again.

        Args:
            model: The model, as a turn lends it.
            input_ids: Shape (n_tokens,); likewise `position_ids` and `segment_ids`.
            position_ids: Positions in the window: behind the prefix and the tail so far.
            segment_ids: Tail of each token: any numbers, a new one begins a tail.
            logits_at: Indices into the row, shape (n_logits,).

        Returns:
            Logits in fp32, shape (n_logits, vocab_size).
        """
        ...

    def drop(self, segment_id: int) -> None:
        """Forget a tail, if there is one of that name."""
        ...


class Attention(Protocol):
    """One way to run a model against a frozen prefix."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    def installed(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        """Prepare the borrowed model for the length of a turn, then restore it."""
        ...

    def tails(self, prefix: FrozenPrefix) -> Tails:
        """Begin behind `prefix`."""
        ...

    def forward_batch(
        self, model: PreTrainedModel, prefix: FrozenPrefix, batch: PackedBatch
    ) -> torch.Tensor:
        """Run a whole batch once; logits at its labelled tokens, (n_labels, vocab_size), fp32."""
        ...

    def prefill(self, input_ids: Sequence[int]) -> Prefilling:
        """Begin to read a document."""
        ...


class Prefilling(Protocol):
    """A document that is being read, chunk by chunk."""

    def read(self, model: PreTrainedModel, chunk: int) -> int:
        """Compute keys and values of the next `chunk` tokens; return how many are read by now."""
        ...

    @property
    def prefix(self) -> FrozenPrefix:
        """What has been read."""
        ...
