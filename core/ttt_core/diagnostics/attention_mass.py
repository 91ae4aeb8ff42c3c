"""Attention on the needle, layer by layer and head by head: its mass, its margin, its lead.

A query may see the prefix, its own tail (the question, and the answer so far) and, in some models,
a sink; sliding windows hide what is far. The mass is the needle's share of *all* of that: what the
tail and the sinks take is lost to the needle like what any other key takes, so they are rivals too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ttt_core.attention.base import Seen

_MOST_SCORES = 1 << 24
"""Held at once, so that a long answer behind a long document stays within memory."""


@dataclass(frozen=True, eq=False)
class LayerAttention:
    """One layer's attention on a needle; fp32 on the CPU.

    With z the scores, S the needle's keys and R all others that the query sees:

    Attributes:
        mass: Softmax mass of S, shape (n_heads, n_queries); 0 where S is out of sight.
        margin: logsumexp(z_S) - logsumexp(z_R), likewise: the log odds of the mass (Definition
            2.1); -inf where S is out of sight.
        lead: logsumexp(z_S) - max(z_R), likewise. What `demanded_lead` speaks of.
        own: Mass of the query's own tail, likewise.
        rivals: Keys in R that can be seen, sinks included, shape (n_queries,).
        by_token: Mass of each prefix token, mean over heads and queries, shape (n_prefix,).
    """

    mass: torch.Tensor
    margin: torch.Tensor
    lead: torch.Tensor
    own: torch.Tensor
    rivals: torch.Tensor
    by_token: torch.Tensor


def layer_attention(seen: Seen, queries: range, needle: Collection[int]) -> LayerAttention:
    """Measure one layer.

    Args:
        seen: What it reads. The tokens of the pass are one tail, right behind the prefix.
        queries: Which of those tokens to look at; at least one.
        needle: Tokens of the prefix; at least one.
    """
    import torch

    is_needle = torch.zeros(seen.keys.shape[2], dtype=torch.bool, device=seen.keys.device)
    is_needle[torch.tensor(sorted(needle), device=is_needle.device)] = True
    parts = [_some(seen, some, is_needle) for some in _portions(seen, queries)]
    sizes = torch.tensor([part.mass.shape[1] for part in parts])
    by_token = torch.stack([part.by_token for part in parts], -1) @ (sizes / sizes.sum())
    return LayerAttention(
        mass=torch.cat([part.mass for part in parts], 1),
        margin=torch.cat([part.margin for part in parts], 1),
        lead=torch.cat([part.lead for part in parts], 1),
        own=torch.cat([part.own for part in parts], 1),
        rivals=torch.cat([part.rivals for part in parts]),
        by_token=by_token,
    )


def _portions(seen: Seen, queries: range) -> Iterator[range]:
    n_keys = seen.keys.shape[2] + seen.own_keys.shape[2]
    most = max(_MOST_SCORES // (seen.query.shape[1] * n_keys), 1)
    for start in range(0, len(queries), most):
        yield queries[start : start + most]


def _some(seen: Seen, queries: range, is_needle: torch.Tensor) -> LayerAttention:
    """Measure as many queries as fit; `is_needle` has shape (n_prefix,)."""
    import torch

    from ttt_core.attention.scores import prefix_scores, tail_scores

    n_prefix, tokens = seen.keys.shape[2], torch.tensor(queries)
    positions = torch.arange(n_prefix, n_prefix + seen.own_keys.shape[2])
    prefix = prefix_scores(seen, tokens, positions)
    own = tail_scores(seen, tokens, positions)
    rest = [prefix[..., ~is_needle], own]
    if seen.sinks is not None:
        sinks = seen.sinks.float()[:, None, None].expand(-1, len(queries), 1)
        rest.append(sinks)
    rivals = torch.cat(rest, -1)
    needle, others = prefix[..., is_needle].logsumexp(-1), rivals.logsumexp(-1)
    total = torch.logaddexp(needle, others)
    margin = needle - others
    return LayerAttention(
        mass=margin.sigmoid().cpu(),
        margin=margin.cpu(),
        lead=(needle - rivals.amax(-1)).cpu(),
        own=(own.logsumexp(-1) - total).exp().cpu(),
        # Every head sees the same keys.
        rivals=(~rivals[0].isneginf()).sum(-1).cpu(),
        by_token=(prefix - total[..., None]).exp().mean((0, 1)).cpu(),
    )
