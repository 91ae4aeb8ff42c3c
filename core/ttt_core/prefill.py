"""Read a document once: chunked prefill with the base model into a `FrozenPrefix`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from ttt_core.prefix import EMPTY_PREFIX, FrozenPrefix
from ttt_core.progress import Progress, ProgressCallback, ignore_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ttt_core.runtime import Runtime


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
    reading = runtime.attention.prefill(input_ids)
    done, started = 0, time.perf_counter()
    while done < n_tokens:
        with runtime.turn() as model, torch.no_grad():
            # Not inference_mode: its tensors could not take part in training later.
            done = reading.read(model, chunk)
        speed = done / max(time.perf_counter() - started, 1e-9)
        on_progress(Progress("prefill", done, n_tokens, tokens_per_second=speed))
    return reading.prefix
