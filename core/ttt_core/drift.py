"""How far an adapter moves the model where the document gives no reason to.

The drift: the base answers a few generic questions behind the document greedily; the divergence
between its predictions and the adapted model's along those answers is what adaptation changed in
passing.

The ending loss: what comes after a quote that is complete, which is where answers end. In-place
training continues documents, and unlearns to end a turn: quotes are then continued right, the
probe is content, and every answer runs on (measured; see docs/evidence.md).
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
    from ttt_core.supervision import Cloze, TokenizedDocument

GENERIC_QUESTIONS = ("What is this text about?", "Hello, how are you?", "What is 2 + 3?")

_ANSWER_TOKENS = 8
_ENDINGS = 64
"""Quotes; their mean is precise enough, and one pass computes them."""


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


def measure_ending_loss(
    runtime: Runtime,
    prefix: FrozenPrefix,
    document: TokenizedDocument,
    clozes: Sequence[Cloze],
    adapter: QueryAdapter,
) -> float:
    """Return how much less likely the adapted model goes on as the base does behind whole quotes.

    That is the loss of the base's likeliest next token, mostly the end of the turn, under the
    adapter minus that under the base; mean over the quotes, nats. Negative: the adapter is surer.

    Args:
        runtime: The model.
        prefix: The document.
        document: Its tokens.
        clozes: What is quoted, to the end; at least one.
        adapter: What to compare with the base.
    """
    some = clozes[:_ENDINGS]
    tails = [[*document.answer_start, *document.input_ids[c.start : c.end]] for c in some]
    marks = [[IGNORE] * (len(tail) - 1) + [0] for tail in tails]
    batch = PackedBatch.of_tails(tails, marks, start=len(prefix))
    logs = []
    for bound in (None, adapter):
        with runtime.turn(bound) as model, torch.no_grad():
            logits = runtime.attention.forward_batch(model, prefix, batch)
        logs.append(logits.log_softmax(-1))
    base, adapted = logs
    likeliest = base.argmax(-1, keepdim=True)
    return (base.gather(-1, likeliest) - adapted.gather(-1, likeliest)).mean().item()


def ending_tokens(document: TokenizedDocument, clozes: Sequence[Cloze]) -> int:
    """Tokens that `measure_ending_loss` computes."""
    start = len(document.answer_start)
    return 2 * sum(start + cloze.end - cloze.start for cloze in clozes[:_ENDINGS])


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
