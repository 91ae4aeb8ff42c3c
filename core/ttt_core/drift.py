"""How far an adapter moves the model where the document gives no reason to: the drift.

The base answers a few generic questions behind the document greedily; the divergence between its
predictions and the adapted model's along those answers is what adaptation changed in passing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from ttt_core.packed import PackedBatch, forward_batch

if TYPE_CHECKING:
    from ttt_core.adapter import QueryAdapter
    from ttt_core.prefill import FrozenPrefix
    from ttt_core.runtime import Runtime

GENERIC_QUESTIONS = ("What is this text about?", "Hello, how are you?", "What is 2 + 3?")

_ANSWER_TOKENS = 8


def measure_drift(
    runtime: Runtime,
    prefix: FrozenPrefix,
    suffixes: Sequence[Sequence[int]],
    adapter: QueryAdapter,
) -> float:
    """Return mean KL(base || adapted) in nats per token.

    Args:
        runtime: The model.
        prefix: The document.
        suffixes: Tokenised generic questions, assistant start included.
        adapter: What to compare with the base.
    """
    rows = [list(suffix) for suffix in suffixes]
    for _ in range(_ANSWER_TOKENS - 1):
        best = _next_logits(runtime, prefix, rows, 1, None).argmax(-1)
        for row, token in zip(rows, best.tolist(), strict=True):
            row.append(token)
    base = _next_logits(runtime, prefix, rows, _ANSWER_TOKENS, None).log_softmax(-1)
    adapted = _next_logits(runtime, prefix, rows, _ANSWER_TOKENS, adapter).log_softmax(-1)
    divergence = functional.kl_div(adapted, base, log_target=True, reduction="sum")
    return divergence.item() / len(base)


def _next_logits(
    runtime: Runtime,
    prefix: FrozenPrefix,
    rows: Sequence[Sequence[int]],
    last: int,
    adapter: QueryAdapter | None,
) -> torch.Tensor:
    """Predictions at the `last` tokens of each row, shape (n_rows * last, vocab_size)."""
    marks = [[-100] * (len(row) - last) + [0] * last for row in rows]
    batch = PackedBatch.of_tails(rows, marks, start=len(prefix))
    with runtime.turn(adapter) as model, torch.no_grad():
        return forward_batch(model, runtime.architecture, prefix, batch)[0]
