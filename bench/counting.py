"""How little could an adaptation step cost? Operations and bytes that no implementation avoids.

Operations, two to a multiply-add, of one step at n tokens of which l are labelled:

    linear      frozen layers, forward and back to their inputs; no gradients of frozen weights;
                in the first layer only as far back as its queries need
    adapter     LoRA or full W_Q: forward, back to its input, and its weights' gradients
    attention   over the keys each token may see: forward 2 products (scores, values), backward 3
                (scores again, since nobody keeps them, then the gradients of weights and queries);
                in tails 2 more, since their own keys and values carry gradients
    head        logits at labelled tokens, forward and back
    unused      keys and values of tokens in place, which the model computes and the frozen cache
                ignores. Real, but avoidable: not part of the floor

Bytes: layers' weights and K,V read once forward and once backward. The floor is the larger of
operations over the matrix rate and bytes over the bandwidth: at best the two overlap entirely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench.models import Shape, kv_bytes
from bench.rates import Rates
from ttt_core.config import AdaptationConfig
from ttt_core.packed import PackedBatch


@dataclass(frozen=True)
class StepCost:
    """Operations by part, and bytes."""

    linear: float
    adapter: float
    attention: float
    head: float
    unused: float
    bytes: float

    @property
    def operations(self) -> float:
        """Operations of the floor."""
        return self.linear + self.adapter + self.attention + self.head

    def floor(self, rates: Rates) -> float:
        """Seconds at the rate that the model's own shapes allow."""
        return max(self.operations / rates.own, self.bytes / rates.bandwidth)

    def square_floor(self, rates: Rates) -> float:
        """Seconds if every product were as fast as a large square one."""
        return max(self.operations / rates.square, self.bytes / rates.bandwidth)


def step_cost(
    shape: Shape,
    batch: PackedBatch,
    prefix_tokens: int,
    config: AdaptationConfig,
    dtype: torch.dtype,
) -> StepCost:
    """Count one step of `batch` behind or inside a prefix of `prefix_tokens`."""
    in_place = batch.segment_ids is None
    tokens = len(batch.input_ids)
    labels = len(batch.targets)
    visible, furthest = _visible(batch, prefix_tokens)
    head = shape.hidden * shape.vocabulary
    weights = _query(shape) + _rest(shape) + (0 if in_place else _keys_values(shape))
    read = dtype.itemsize * (shape.layers * weights + head) + kv_bytes(shape, furthest, dtype)
    return StepCost(
        linear=_linear(shape, tokens, in_place=in_place),
        adapter=_adapter(shape, tokens, config),
        attention=_attention(shape, visible, 0 if in_place else _own_pairs(batch)),
        head=2 * 2.0 * labels * head,
        unused=2.0 * tokens * shape.layers * _keys_values(shape) if in_place else 0.0,
        bytes=2.0 * read,
    )


def _query(shape: Shape) -> int:
    return shape.hidden * shape.heads * shape.head_dim


def _keys_values(shape: Shape) -> int:
    return 2 * shape.hidden * shape.kv_heads * shape.head_dim


def _rest(shape: Shape) -> int:
    return _query(shape) + 3 * shape.hidden * shape.intermediate  # Output projection and MLP.


def _linear(shape: Shape, tokens: int, *, in_place: bool) -> float:
    inputs = _query(shape) + (0 if in_place else _keys_values(shape))
    forward = shape.layers * (inputs + _rest(shape))
    backward = (shape.layers - 1) * inputs + shape.layers * _rest(shape)
    return 2.0 * tokens * (forward + backward)


def _adapter(shape: Shape, tokens: int, config: AdaptationConfig) -> float:
    """Each matrix: forward, its gradient, and back to its input; the first not in layer 0."""
    wide = shape.heads * shape.head_dim
    if config.parametrization == "full":
        first, second = shape.hidden * wide, 0
    else:
        first, second = shape.hidden * config.r, config.r * wide
    return 2.0 * tokens * (3 * shape.layers * (first + second) - first)


def _attention(shape: Shape, prefix_pairs: int, own_pairs: int) -> float:
    product = 2.0 * shape.heads * shape.head_dim
    own = 5 * shape.layers * own_pairs + 2 * (shape.layers - 1) * own_pairs
    return product * (5 * shape.layers * prefix_pairs + own)


def _visible(batch: PackedBatch, prefix_tokens: int) -> tuple[int, int]:
    """Pairs of a token and a prefix key that it sees; how many keys are seen at all."""
    seen = (batch.position_ids + 1).clamp(max=prefix_tokens)
    return int(seen.sum()), int(seen.max())


def _own_pairs(batch: PackedBatch) -> int:
    """Pairs of tokens of one tail, of which one sees the other or itself."""
    assert batch.segment_ids is not None
    sizes: Sequence[int] = batch.segment_ids.unique(return_counts=True)[1].tolist()
    return sum(size * (size + 1) // 2 for size in sizes)
