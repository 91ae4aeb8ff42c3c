"""Attention in plain PyTorch that keeps its log-sum-exp: any device, dtype, mask and soft cap.

The specification of every faster kernel, and the backward pass of all of them: given the output and
the log-sum-exp of *all* keys, the gradient of each block of keys can be computed alone, tile by
tile, without the scores ever being stored (Dao et al., FlashAttention, arXiv 2205.14135, 3.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

_TILE_SCORES = {"cpu": 1 << 19}  # Fits the caches.
_TILE_SCORES_ELSEWHERE = 1 << 26
_FEWEST_KEYS = 256  # In a tile; fewer make matrix products slow.


class Attended(NamedTuple):
    """What one block of keys answers; both fp32.

    Attributes:
        out: The values' weighted mean, shape (..., n_queries, value_dim).
        lse: Log-sum-exp of the scores, shape (..., n_queries); -inf where no key is visible.
    """

    out: torch.Tensor
    lse: torch.Tensor


class Gradients(NamedTuple):
    """Gradients of one block, fp32; those of keys and values only if asked for."""

    query: torch.Tensor
    keys: torch.Tensor | None
    values: torch.Tensor | None


def merge(left: Attended, right: Attended) -> Attended:
    """Combine what two disjoint blocks of keys answer to the same queries."""
    lse = torch.logaddexp(left.lse, right.lse)
    base = lse.masked_fill(lse.isneginf(), 0)  # No key in either: both weights are exp(-inf) = 0.
    out = left.out * (left.lse - base).exp()[..., None]
    out += right.out * (right.lse - base).exp()[..., None]
    return Attended(out, lse)


def attend(
    query: torch.Tensor,
    keys: Sequence[torch.Tensor],
    values: torch.Tensor,
    *,
    scale: float,
    mask: torch.Tensor | None = None,
    softcap: float | None = None,
) -> Attended:
    """Attend to one block of keys.

    Args:
        query: Shape (rows, heads, n_queries, head_dim).
        keys: Tensors that side by side make the keys, (rows, heads, n_keys, head_dim) together:
            latent attention keeps two, which are joined a tile at a time.
        values: Shape (rows, heads, n_keys, value_dim).
        scale: Factor of the scores.
        mask: True where a key is visible, broadcastable to (rows, heads, n_queries, n_keys).
        softcap: Scores are capped * tanh(score / cap), as Gemma 2's are.
    """
    attended: Attended | None = None
    for tile in _tiles(query, values):
        scores = _scores(query, keys, tile, scale)
        if softcap is not None:
            scores.div_(softcap).tanh_().mul_(softcap)
        if mask is not None:
            scores.masked_fill_(~mask[..., tile], -torch.inf)
        top = scores.amax(-1, keepdim=True)
        top.masked_fill_(top.isneginf(), 0)  # No key visible: every weight is exp(-inf) = 0.
        weights = scores.sub_(top).exp_()
        total = weights.sum(-1, keepdim=True)
        out = _product(weights, values[..., tile, :]).div_(total.clamp(min=1e-30))
        part = Attended(out, (top + total.log()).squeeze(-1))
        attended = part if attended is None else merge(attended, part)
    assert attended is not None
    return attended


def attend_backward(
    grad: torch.Tensor,
    query: torch.Tensor,
    keys: Sequence[torch.Tensor],
    values: torch.Tensor,
    lse: torch.Tensor,
    delta: torch.Tensor,
    *,
    scale: float,
    mask: torch.Tensor | None = None,
    softcap: float | None = None,
    of_keys: bool = False,
) -> Gradients:
    """Return the gradients that reach one block of keys; see `attend` for the shapes.

    Args:
        grad: Gradient of the merged output, (rows, heads, n_queries, value_dim).
        query: As in `attend`; likewise keys, values, scale, mask and softcap.
        keys: See query.
        values: See query.
        lse: Log-sum-exp over all blocks, (rows, heads, n_queries).
        delta: Row sums of merged output x grad, (rows, heads, n_queries).
        scale: See query.
        mask: See query.
        softcap: See query.
        of_keys: Also compute the gradients of keys and values.
    """
    to_query = torch.zeros_like(query, dtype=torch.float32)
    to_keys, to_values = [], []
    for tile in _tiles(query, values):
        bend: torch.Tensor | None = None
        if softcap is None:
            weights = _scores(query, keys, tile, scale, minus=lse).exp_()
        else:
            capped = _scores(query, keys, tile, scale).div_(softcap).tanh_()
            bend = 1 - capped.square()
            weights = capped.mul_(softcap).sub_(lse[..., None]).exp_()
        if mask is not None:
            weights.masked_fill_(~mask[..., tile], 0)
        change = _product(grad, values[..., tile, :].transpose(-1, -2), minus=delta).mul_(weights)
        if bend is not None:
            change.mul_(bend)
        to_query += _product(change, _joined(keys, tile))
        if of_keys:
            to_keys.append(_product(change.transpose(-1, -2), query))
            to_values.append(_product(weights.transpose(-1, -2), grad))
    to_query.mul_(scale)
    if not of_keys:
        return Gradients(to_query, None, None)
    return Gradients(to_query, torch.cat(to_keys, -2).mul_(scale), torch.cat(to_values, -2))


def _tiles(query: torch.Tensor, values: torch.Tensor) -> Iterator[slice]:
    """Cut the keys so that a tile's scores stay small."""
    most = _TILE_SCORES.get(query.device.type, _TILE_SCORES_ELSEWHERE)
    n_keys, n_rows = values.shape[-2], query.shape[:-1].numel()
    size = max(most // max(n_rows, 1), _FEWEST_KEYS)
    for start in range(0, n_keys, size):
        yield slice(start, min(start + size, n_keys))


def _scores(
    query: torch.Tensor,
    keys: Sequence[torch.Tensor],
    tile: slice,
    scale: float,
    minus: torch.Tensor | None = None,
) -> torch.Tensor:
    return _product(query, _joined(keys, tile).transpose(-1, -2), scale=scale, minus=minus)


def _joined(keys: Sequence[torch.Tensor], tile: slice) -> torch.Tensor:
    parts = [part[..., tile, :] for part in keys]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def _product(
    left: torch.Tensor,
    right: torch.Tensor,
    *,
    scale: float = 1.0,
    minus: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return scale * left @ right - minus in fp32, whatever is multiplied.

    Args:
        left: Shape (rows, heads, n, k).
        right: Shape (rows, heads, k, m).
        scale: Factor of the product.
        minus: Subtracted from every entry of a line, shape (rows, heads, n).
    """
    rows = left.shape[:2]
    # Zero is not even read where nothing is subtracted (beta=0).
    offset = left.new_zeros((1, 1, 1)) if minus is None else minus.flatten(0, 1)[..., None]
    left, right = left.flatten(0, 1), right.flatten(0, 1)
    if right.is_cuda and right.dtype != torch.float32:
        # Half-precision tensor cores, fp32 results: `@` would round the scores to half precision.
        product = torch.bmm(left.to(right.dtype), right, out_dtype=torch.float32)
        product.mul_(scale).sub_(offset)
    else:
        beta = 0 if minus is None else -1
        product = torch.baddbmm(offset.float(), left.float(), right.float(), beta=beta, alpha=scale)
    result: torch.Tensor = product.unflatten(0, rows)
    return result
