"""The frozen prefix: what the base model computed of a document, read-only ever after."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class FrozenPrefix:
    """The base model's keys and values of a document, made once and never written again.

    Attributes:
        input_ids: The prefix's tokens.
        keys: One tensor a layer, shape (1, n_kv_heads, n_tokens, head_dim). Sliding-window layers
            keep all tokens too, since any position may be trained. Latent attention (MLA) keeps
            its latents here, in the shapes in which the model caches them.
        values: Likewise.
    """

    input_ids: tuple[int, ...] = field(repr=False)
    keys: tuple[torch.Tensor, ...] = field(repr=False)
    values: tuple[torch.Tensor, ...] = field(repr=False)

    def __len__(self) -> int:
        """Number of prefix tokens."""
        return len(self.input_ids)

    @property
    def pairs(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values layer by layer."""
        return list(zip(self.keys, self.values, strict=True))

    @property
    def nbytes(self) -> int:
        """Memory held by keys and values, in bytes."""
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))


EMPTY_PREFIX = FrozenPrefix(input_ids=(), keys=(), values=())
"""The prefix of a conversation without a document."""
