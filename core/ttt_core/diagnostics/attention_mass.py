"""Attention on the needle, layer by layer and head by head: its mass, its margin, its lead.

A query may see the prefix, its own tail (the question, and the answer so far) and, in some models,
a sink; sliding windows hide what is far. The mass is the needle's share of *all* of that: what the
tail and the sinks take is lost to the needle like what any other key takes, so they are rivals too.
"""

from __future__ import annotations

import math
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

    prefix, own = visible_scores(seen, queries)
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


def visible_scores(seen: Seen, queries: range) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scores as the softmax gets them: scaled, capped, -inf for what cannot be seen.

    Args:
        seen: See `layer_attention`.
        queries: Likewise.

    Returns:
        Of the prefix, shape (n_heads, n_queries, n_prefix), and of the tail's own tokens, shape
        (n_heads, n_queries, n_tokens); fp32.
    """
    import torch

    n_prefix, device = seen.keys.shape[2], seen.query.device
    query = seen.query[0][:, list(queries)].float()
    own_at = torch.arange(seen.own_keys.shape[2], device=device) + n_prefix
    now = own_at[list(queries)][:, None]
    scores = []
    prefix_at = torch.arange(n_prefix, device=device)
    for keys, places in ((seen.keys, prefix_at), (seen.own_keys, own_at)):
        seeable = places[None] <= now
        if seen.window is not None:
            seeable &= places[None] > now - seen.window
        scores.append(_scores(seen, query, keys[0].float()).masked_fill(~seeable, -math.inf))
    return scores[0], scores[1]


def _scores(seen: Seen, query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """(n_heads, n_queries, dim) x (n_kv_heads, n_keys, dim) to (n_heads, n_queries, n_keys).

    Grouped-query attention: neighbouring heads share keys.
    """
    n_heads, n_queries, size = query.shape
    folded = query.reshape(keys.shape[0], -1, size)
    scores = (folded @ keys.transpose(1, 2) * seen.scoring.scale).view(n_heads, n_queries, -1)
    cap = seen.scoring.softcap
    return scores if cap is None else (scores / cap).tanh() * cap
