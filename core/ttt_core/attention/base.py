"""What an attention path offers: one way to run a model against a frozen prefix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from ttt_core.packed import PackedBatch
    from ttt_core.prefix import FrozenPrefix


@dataclass(frozen=True)
class Scoring:
    """How scores are made: their factor, and Gemma 2's soft cap."""

    scale: float
    softcap: float | None


@dataclass(frozen=True, eq=False)
class Seen:
    """What one layer's attention is about to read, as it meets: rotated, normalised, not scaled.

    Attributes:
        layer: Its index.
        query: Shape (1, n_heads, n_tokens, head_dim); its gradient reaches the adapter.
        keys: The prefix's, shape (1, n_kv_heads, n_prefix, head_dim).
        own_keys: Those of the tokens of this pass, shape (1, n_kv_heads, n_tokens, head_dim); in
            place they stand in the prefix already.
        scoring: How scores are made of both.
        window: How many tokens back this layer sees, itself included; None: to the beginning.
        sinks: Learned scores that take mass and give nothing, shape (n_heads,); None: no such.
    """

    layer: int
    query: torch.Tensor
    keys: torch.Tensor
    own_keys: torch.Tensor
    scoring: Scoring
    window: int | None
    sinks: torch.Tensor | None


Observer: TypeAlias = Callable[[Seen], None]
"""Is shown what every layer reads; it changes nothing."""


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
        self,
        model: PreTrainedModel,
        prefix: FrozenPrefix,
        batch: PackedBatch,
        *,
        observer: Observer | None = None,
    ) -> torch.Tensor:
        """Run a whole batch once.

        Args:
            model: The model, as a turn lends it.
            prefix: What was read.
            batch: Tokens; logits are computed where they are labelled.
            observer: Is shown what every layer reads.

        Returns:
            Logits in fp32, shape (n_labels, vocab_size).

        Raises:
            UnsupportedModelError: There is an observer, and this path or this kind of attention
                cannot show queries and keys (latent attention; the model's own).
        """
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
