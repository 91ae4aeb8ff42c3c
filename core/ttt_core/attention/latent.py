"""Multi-head latent attention (DeepSeek) against a prefix that stays compressed.

The model caches one latent and one rotated key per token and expands them to keys and values of
every head. Expanding a whole document for each question would cost more than reading it, and
keeping it expanded many times the memory. Both expansions are linear, so the queries go to the
latents instead (DeepSeek-AI, DeepSeek-V2, arXiv 2405.04434, 2.1.2): to attention, the document then
has one head for keys and values, shared by all heads of the queries.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from ttt_core.attention.merged import PrefixPart, Upstream
from ttt_core.attention.reference import Attended


def can_absorb(attention: nn.Module) -> bool:
    """Whether `attention` is latent attention whose expansion is a plain matrix."""
    expansion = getattr(attention, "kv_b_proj", None)
    plain = type(expansion) is nn.Linear and expansion.bias is None
    return plain and not cast("nn.Linear", expansion).weight.is_meta


class LatentPart:
    """A block of a compressed prefix; see `Part`."""

    def __init__(self, attention: nn.Module, compressed: PrefixPart) -> None:
        split: list[int] = [attention.qk_nope_head_dim, attention.v_head_dim]  # type: ignore[list-item]
        expansion = cast("nn.Linear", attention.kv_b_proj).weight.detach()
        # Each (n_heads, nope or value_dim, rank).
        by_head = expansion.view(-1, sum(split), expansion.shape[1])
        self._to_latent, self._to_value = by_head.split(split, dim=1)
        self._compressed = compressed

    @property
    def tokens(self) -> slice:
        """See `Part`."""
        return self._compressed.tokens

    def forward(self, query: torch.Tensor) -> Attended:
        """See `Part`."""
        attended = self._compressed.forward(self._absorb(query))
        out = attended.out @ self._to_value.float().transpose(-1, -2)
        return Attended(out, attended.lse)

    def backward(self, query: torch.Tensor, upstream: Upstream) -> torch.Tensor:
        """See `Part`."""
        grad = upstream.grad.float() @ self._to_value.float()
        absorbed = self._compressed.backward(
            self._absorb(query), Upstream(grad.to(query.dtype), upstream.lse, upstream.delta)
        )
        rank = self._to_latent.shape[-1]
        nope = absorbed[..., :rank] @ self._to_latent.float().transpose(-1, -2)
        return torch.cat([nope, absorbed[..., rank:]], -1)

    def _absorb(self, query: torch.Tensor) -> torch.Tensor:
        nope = self._to_latent.shape[1]
        return torch.cat([query[..., :nope] @ self._to_latent, query[..., nope:]], -1)
