"""In-context accuracy of a sandbox model: read a registry once, ask all its questions at once.

Questions and their true answers are packed behind the document as blocks that can't see each other.
Greedy decoding gives the true answer exactly when every token of it is the most likely one after
the true tokens before it, so one forward pass scores all questions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerFast, Qwen3ForCausalLM

from ttt_core.sandbox.registry import Registry, make_registry
from ttt_core.sandbox.tokenizer import IM_END, IM_START


@dataclass(frozen=True)
class Accuracy:
    """Shares of questions."""

    joint: float
    """The key restated, the value right, and the turn ended."""
    key: float
    """The key restated."""
    value: float
    """The value right after the right key."""


@torch.no_grad()
def score(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, registry: Registry
) -> Accuracy:
    """Score one registry."""
    prefix = tokenizer.encode(f"{IM_START}user\n{registry.text}\n\n")
    tails = [_tail(tokenizer, item.text, item.answer) for item in registry.questions]
    logits = _forward_packed(model, _prefill(model, prefix), [ids for ids, _ in tails])
    right = [
        (row[-answer - 1 : -1].argmax(-1) == torch.tensor(ids[-answer:])).tolist()
        for row, (ids, answer) in zip(logits, tails, strict=True)
    ]
    return Accuracy(
        joint=_share([all(each) for each in right]),
        key=_share([all(each[:-2]) for each in right]),
        value=_share([each[-2] for each in right]),
    )


def score_lengths(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    lengths: tuple[int, ...],
    *,
    registries: int,
    seed: int,
) -> dict[int, Accuracy]:
    """Score several registries of each number of lines, and average."""
    table: dict[int, Accuracy] = {}
    for lines in lengths:
        drawn = [make_registry(lines, seed=seed + index) for index in range(registries)]
        scores = [score(model, tokenizer, registry) for registry in drawn]
        table[lines] = Accuracy(
            joint=sum(each.joint for each in scores) / registries,
            key=sum(each.key for each in scores) / registries,
            value=sum(each.value for each in scores) / registries,
        )
    return table


def _share(flags: list[bool]) -> float:
    return sum(flags) / len(flags)


def _tail(tokenizer: PreTrainedTokenizerFast, asked: str, answer: str) -> tuple[list[int], int]:
    """Return the tokens behind the document, and how many of them are the answer."""
    answer_ids = tokenizer.encode(f"{answer}{IM_END}")
    asked_ids = tokenizer.encode(f"{asked}{IM_END}\n{IM_START}assistant\n")
    return asked_ids + answer_ids, len(answer_ids)


def _prefill(model: Qwen3ForCausalLM, ids: list[int], chunk: int = 1024) -> DynamicCache:
    """Read the document in chunks, without logits."""
    cache = DynamicCache(config=model.config)
    for start in range(0, len(ids), chunk):
        model.model(torch.tensor([ids[start : start + chunk]]), past_key_values=cache)
    return cache


def _forward_packed(
    model: Qwen3ForCausalLM, cache: DynamicCache, tails: list[list[int]]
) -> list[Tensor]:
    """Return the logits (length, vocabulary) of each tail."""
    prefix = cache.get_seq_length()
    block = torch.tensor([index for index, tail in enumerate(tails) for _ in tail])
    causal = torch.ones(len(block), len(block), dtype=torch.bool).tril()
    own = causal & (block[:, None] == block[None, :])
    seen = torch.ones(len(block), prefix, dtype=torch.bool)
    output = model(
        torch.tensor([[token for tail in tails for token in tail]]),
        position_ids=torch.tensor([[prefix + i for tail in tails for i in range(len(tail))]]),
        attention_mask=torch.cat([seen, own], dim=1)[None, None],
        past_key_values=cache,
    )
    return list(output.logits[0].split([len(tail) for tail in tails]))
