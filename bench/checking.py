"""Did the peers compute the same? A table's row whose answers differ by more than rounding is void.

In fp32 every token must be the same as ours one by one. In 16 bits a near tie may fall either way
and changes all tokens after it; there each token must be about the likeliest one behind the
tokens that its own peer put before it, as the model itself sees them in one pass.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from bench.answering import Answers, Questions, cache_by_reference
from bench.options import Setting
from ttt_core.prefix import FrozenPrefix

_NEAR = 0.5  # Logits within this of the best are a tie in 16 bits; logits have unit variance.
_GREEDY = 0.95  # Share of tokens that must be; a peer with another document has about 0.05.


class Check(NamedTuple):
    """How answers compare.

    Attributes:
        identical: Share of tokens that agree, place by place; a missing token does not agree.
        void: Whether they differ by more than rounding.
    """

    identical: float
    void: bool


def check(
    setting: Setting,
    prefix: FrozenPrefix,
    questions: Questions,
    expected: Answers,
    found: Answers,
) -> Check:
    """Compare a peer's answers with those expected."""
    identical = identical_share(expected, found)
    if setting.dtype.itemsize >= 4:
        return Check(identical, void=identical < 1)
    return Check(identical, void=greedy_share(setting, prefix, questions, found) < _GREEDY)


def identical_share(expected: Answers, found: Answers) -> float:
    """Share of tokens that agree, place by place."""
    total = sum(max(len(a), len(b)) for a, b in zip(expected, found, strict=True))
    pairs = zip(expected, found, strict=True)
    same = sum(x == y for a, b in pairs for x, y in zip(a, b, strict=False))
    return same / total if total else 1.0


def greedy_share(
    setting: Setting, prefix: FrozenPrefix, questions: Questions, found: Answers
) -> float:
    """Share of tokens that are about the likeliest, given what stands before them."""
    hits = [
        hit
        for question, answer in zip(questions, found, strict=True)
        for hit in _greedy(setting, prefix, [*question, *answer], len(answer))
    ]
    return sum(hits) / len(hits) if hits else 1.0


def _greedy(setting: Setting, prefix: FrozenPrefix, tokens: list[int], answered: int) -> list[bool]:
    ids = torch.tensor([tokens], device=setting.device)
    with torch.no_grad():
        logits = (
            setting.model(
                input_ids=ids[:, :-1],
                past_key_values=cache_by_reference(prefix),
                logits_to_keep=answered,
            )
            .logits[0]
            .float()
        )
    chosen = logits.gather(-1, ids[0, -answered:, None]).squeeze(-1)
    hits: list[bool] = (chosen >= logits.amax(-1) - _NEAR).tolist()
    return hits
