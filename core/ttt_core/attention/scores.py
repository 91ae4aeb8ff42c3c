"""What a layer's softmax gets: the scores of some queries on what they may see, -inf elsewhere."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ttt_core.attention.base import Seen


def prefix_scores(seen: Seen, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return the scores of some tokens on the prefix: scaled, capped, -inf for what is hidden.

    Args:
        seen: What one layer reads.
        tokens: Which tokens of the pass, shape (n_tokens,).
        positions: Positions in the window of all tokens of the pass.

    Returns:
        Shape (n_heads, n_tokens, n_prefix), fp32; the gradient reaches the queries.
    """
    places = torch.arange(seen.keys.shape[2])
    return _scores(seen, seen.keys[0], places, tokens, positions)


def tail_scores(seen: Seen, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return the scores of some tokens on the tokens of the pass, which are all one tail.

    Args and result as for `prefix_scores`; shape (n_heads, n_tokens, tokens of the pass).
    """
    return _scores(seen, seen.own_keys[0], positions, tokens, positions)


def _scores(
    seen: Seen,
    keys: torch.Tensor,
    places: torch.Tensor,
    tokens: torch.Tensor,
    positions: torch.Tensor,
) -> torch.Tensor:
    """Score `keys`, shape (n_kv_heads, n_keys, head_dim), which stand at `places`."""
    device = keys.device
    query = seen.query[0][:, tokens.to(device)].float()
    n_heads, n_tokens, size = query.shape
    # Grouped-query attention: neighbouring heads share keys.
    folded = query.reshape(keys.shape[0], -1, size)
    scores = (folded @ keys.float().mT * seen.scoring.scale).view(n_heads, n_tokens, len(places))
    if (cap := seen.scoring.softcap) is not None:
        scores = (scores / cap).tanh() * cap
    now, places = positions[tokens].to(device)[:, None], places.to(device)[None]
    hidden = places > now
    if seen.window is not None:
        hidden |= places <= now - seen.window
    return scores.masked_fill(hidden, -math.inf)
