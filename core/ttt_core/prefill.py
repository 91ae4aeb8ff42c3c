"""Read a document once: chunked prefill with the base model into a `FrozenPrefix`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from ttt_core.progress import Progress, ProgressCallback, ignore_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ttt_core.runtime import Runtime


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

    input_ids: tuple[int, ...]
    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]

    def __len__(self) -> int:
        """Number of prefix tokens."""
        return len(self.input_ids)

    @property
    def nbytes(self) -> int:
        """Memory held by keys and values, in bytes."""
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))


EMPTY_PREFIX = FrozenPrefix(input_ids=(), keys=(), values=())
"""The prefix of a conversation without a document."""


def prefill(
    runtime: Runtime,
    input_ids: Sequence[int],
    *,
    chunk: int = 512,
    on_progress: ProgressCallback = ignore_progress,
) -> FrozenPrefix:
    """Compute the keys and values of `input_ids` with the base model.

    Memory beyond the result is bounded by `chunk`; no logits are computed. An exception raised
    by `on_progress` cancels the work.

    Args:
        runtime: The model to read with.
        input_ids: Tokens of the prefix, shape (n_tokens,).
        chunk: Tokens per forward pass.
        on_progress: Called after every chunk.
    """
    n_tokens = len(input_ids)
    if n_tokens == 0:
        return EMPTY_PREFIX
    ids = torch.tensor([list(input_ids)], device=runtime.device)  # (1, n_tokens)
    layers = [_BufferLayer(n_tokens) for _ in range(runtime.architecture.n_layers)]
    cache = Cache(layers=list(layers))
    started = time.perf_counter()
    for start in range(0, n_tokens, chunk):
        with runtime.turn() as model, torch.no_grad():
            # Not inference_mode: its tensors could not take part in training later.
            model.base_model(
                input_ids=ids[:, start : start + chunk], past_key_values=cache, use_cache=True
            )
        done = min(start + chunk, n_tokens)
        speed = done / max(time.perf_counter() - started, 1e-9)
        on_progress(Progress("prefill", done, n_tokens, tokens_per_second=speed))
    keys, values = zip(*(layer.buffers for layer in layers), strict=True)
    return FrozenPrefix(tuple(input_ids), keys, values)


class _BufferLayer(DynamicLayer):
    """Writes into one buffer of the final size: `DynamicLayer` would copy all of it every chunk."""

    def __init__(self, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._capacity = capacity
        self._length = 0
        self.buffers: tuple[torch.Tensor, torch.Tensor] = (torch.empty(0), torch.empty(0))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.buffers = (self._buffer(key_states), self._buffer(value_states))
        end = self._length + key_states.shape[-2]
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[..., self._length : end, :] = new
        self._length = end
        self.keys, self.values = (buffer[..., :end, :] for buffer in self.buffers)
        return self.keys, self.values

    def _buffer(self, states: torch.Tensor) -> torch.Tensor:
        return states.new_empty((*states.shape[:-2], self._capacity, states.shape[-1]))
