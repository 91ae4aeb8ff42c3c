"""One optimiser step on one batch against a frozen prefix."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch

from ttt_core.objectives import Objective, next_token_loss

if TYPE_CHECKING:
    from ttt_core.adapter import QueryAdapter
    from ttt_core.config import AdaptationConfig
    from ttt_core.packed import PackedBatch
    from ttt_core.prefix import FrozenPrefix
    from ttt_core.runtime import Runtime


class NonFiniteLossError(Exception):
    """Loss or gradient is NaN or infinite; the adapter was not changed by this step."""


class Activations:
    """Counts what a forward pass keeps for its backward pass.

    Attributes:
        peak: Most bytes of any forward pass seen so far, weights not counted.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.peak = 0
        self._kept: dict[int, int] = {}
        self._weights = _memory(runtime.model.parameters())
        self._trained: set[int] = set()

    @contextmanager
    def counted(self, trained: Iterable[torch.nn.Parameter]) -> Iterator[None]:
        """Count inside the block; `trained` are the adapter's weights."""
        self._kept, self._trained = {}, _memory(trained)
        with torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor):
            yield
        self.peak = max(self.peak, sum(self._kept.values()))

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place not in self._weights and place not in self._trained:
            self._kept[place] = storage.nbytes()
        return tensor


def _memory(weights: Iterable[torch.nn.Parameter]) -> set[int]:
    """Where weights lie: what is kept of them are views, a transposed one for instance."""
    return {weight.untyped_storage().data_ptr() for weight in weights}


def make_optimizer(
    adapter: QueryAdapter, config: AdaptationConfig, learning_rate: float
) -> torch.optim.Optimizer:
    """Make the optimiser over the adapter's weights; fused: many small matrices cost by number."""
    weights, decay = adapter.parameters(), config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(weights, lr=learning_rate, weight_decay=decay, fused=True)
    return torch.optim.AdamW(weights, lr=learning_rate, weight_decay=decay, fused=True)


def training_step(
    runtime: Runtime,
    prefix: FrozenPrefix,
    adapter: QueryAdapter,
    optimizer: torch.optim.Optimizer,
    batch: PackedBatch,
    *,
    objective: Objective = next_token_loss,
    max_grad_norm: float = 1.0,
    chunk: int = 1024,
    activations: Activations | None = None,
) -> float:
    """Take one optimiser step and return the loss, in nats per label.

    Activation memory is bounded by `chunk`: a longer batch is computed in several passes whose
    gradients add up to those of one.

    Args:
        runtime: The model; the adapter is bound to it for one pass at a time.
        prefix: The document's keys and values, which have no gradient.
        adapter: What is trained.
        optimizer: Its optimiser.
        batch: Tokens and labels.
        objective: What is minimised.
        max_grad_norm: Gradients are clipped to this norm.
        chunk: Tokens per forward and backward pass; a tail is never cut.
        activations: Counts what the passes keep.

    Raises:
        ValueError: Nothing is labelled.
        NonFiniteLossError: Loss or gradient is NaN or infinite.
        OutOfMemoryError: The device is full.
    """
    parameters = adapter.parameters()
    n_labels, total = len(batch.labelled), 0.0
    if n_labels == 0:
        raise ValueError("the batch has no label to learn from")
    sums: list[torch.Tensor] = []
    for part in batch.split(chunk):
        counting = nullcontext() if activations is None else activations.counted(parameters)
        with runtime.turn(adapter) as model, torch.enable_grad():
            with counting:
                loss = objective(runtime, model, prefix, part)
            # Not backward(): it would also fill .grad of the borrowed model's own weights.
            # Layers behind the one whose attention is taught have no part in that loss.
            gradients = torch.autograd.grad(loss / n_labels, parameters, materialize_grads=True)
        sums = [a + b for a, b in zip(sums, gradients, strict=True)] if sums else list(gradients)
        total += loss.item()
    try:
        for parameter, gradient in zip(parameters, sums, strict=True):
            parameter.grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
        if not (math.isfinite(total) and torch.isfinite(norm)):
            raise NonFiniteLossError
        optimizer.step()
    finally:
        optimizer.zero_grad()  # Adapters are kept; their last gradients need not be.
    return total / n_labels
