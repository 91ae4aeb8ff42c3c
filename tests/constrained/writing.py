"""A writer without a mind: it takes whatever token a mask allows, at random."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ttt_core.constrained import Guide, Vocabulary, closed, json_grammar
from ttt_core.loading import default_model

PADDING = 10
"""Logits that belong to no token."""


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    """The bundled model's, with a tag that is no special token, as tool-calling models have it."""
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(default_model())
    loaded.add_tokens(["<tool_call>"])
    return loaded


@cache
def vocabulary() -> Vocabulary:
    """One for all tests, with two end tokens."""
    return Vocabulary(tokenizer(), vocab_size=size(), eos_token_ids=frozenset(ends()))


def size() -> int:
    """Logits per step."""
    return len(tokenizer()) + PADDING


def ends() -> list[int]:
    """The end tokens."""
    return [token_of("<|endoftext|>"), token_of("<|im_end|>")]


def token_of(text: str) -> int:
    """The token that is spelled like this."""
    token = tokenizer().convert_tokens_to_ids(text)
    assert isinstance(token, int)
    return token


def guide(schema: dict[str, Any], *, strict: bool = True) -> Guide:
    """A guide for any schema."""
    return vocabulary().guide("start: " + json_grammar(closed(schema, strict=strict)))


def noise(seed: int) -> torch.Generator:
    """A source of logits."""
    return torch.Generator().manual_seed(seed)


def write(guide: Guide, budget: int, seed: int = 0, sharpness: float = 3.0) -> str | None:
    """Write with at most `budget` tokens, the end included; None if it did not end."""
    source, ids = noise(seed), list[int]()
    for used in range(budget):
        logits = torch.randn(size(), generator=source) * sharpness
        masked = guide.mask(logits, budget - used)
        assert torch.equal(masked[masked.isfinite()], logits[masked.isfinite()])
        token = int(torch.multinomial(masked.softmax(-1), 1, generator=source))
        assert token < len(tokenizer())
        assert guide.accepting or token not in ends()
        guide.accept(token)
        if token in ends():
            return str(tokenizer().decode(ids))
        ids.append(token)
    return None


def shortest(guide: Guide) -> int:
    """The smallest budget that a guide takes."""
    budget = 1
    while True:
        try:
            guide.restart().mask(torch.zeros(size()), budget)
        except ValueError as error:
            budget = int(str(error).split(" takes ")[1].split(" ")[0].replace(",", ""))
        else:
            return budget
