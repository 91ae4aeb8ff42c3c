"""How far an adapter moves the model where the document gives no reason to: the drift.

The base answers a few generic questions behind the document greedily; the divergence between its
predictions and the adapted model's along those answers is what adaptation changed in passing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from ttt_core.packed import IGNORE, PackedBatch

if TYPE_CHECKING:
    from ttt_core.adapter import QueryAdapter
    from ttt_core.prefix import FrozenPrefix
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
    base, answers = _greedy(runtime, prefix, suffixes)
    rows = [[*suffix, *answer] for suffix, answer in zip(suffixes, answers, strict=True)]
    marks = [[IGNORE] * (len(row) - _ANSWER_TOKENS) + [0] * _ANSWER_TOKENS for row in rows]
    batch = PackedBatch.of_tails(rows, marks, start=len(prefix))
    with runtime.turn(adapter) as model, torch.no_grad():
        logits = runtime.attention.forward_batch(model, prefix, batch)
    divergence = functional.kl_div(
        logits.log_softmax(-1), base.log_softmax(-1), log_target=True, reduction="sum"
    )
    return divergence.item() / len(base)


def _greedy(
    runtime: Runtime, prefix: FrozenPrefix, suffixes: Sequence[Sequence[int]]
) -> tuple[torch.Tensor, list[list[int]]]:
    """Let the base answer.

    Returns:
        Its predictions row by row, (n_rows * answer tokens, vocab_size), and its answers without
        the last token, which predicts nothing that is looked at.
    """
    tails = runtime.attention.tails(prefix)
    ids = torch.tensor([token for suffix in suffixes for token in suffix])
    lengths = [len(suffix) for suffix in suffixes]
    segments = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    positions = torch.cat([torch.arange(length) for length in lengths]) + len(prefix)
    at = torch.tensor(lengths).cumsum(0) - 1
    steps: list[torch.Tensor] = []
    for _ in range(_ANSWER_TOKENS):
        with runtime.turn() as model, torch.no_grad():
            logits = tails.forward(
                model, input_ids=ids, position_ids=positions, segment_ids=segments, logits_at=at
            )
        steps.append(logits)
        ids, positions = logits.argmax(-1).cpu(), positions[at] + 1
        segments = at = torch.arange(len(lengths))
    answers = torch.stack([step.argmax(-1) for step in steps[:-1]], 1).tolist()
    return torch.stack(steps, 1).flatten(0, 1), answers
