"""In-context accuracy of a sandbox model: read a registry once, ask all its questions at once.

Questions and their true answers are packed behind the document as blocks that can't see each other.
Greedy decoding gives the true answer exactly when every token of it is the most likely one after
the true tokens before it, so one forward pass scores all questions.
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from ttt_core.packed import IGNORE, PackedBatch
from ttt_core.prefill import prefill
from ttt_core.runtime import Runtime
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
    runtime = Runtime(model)
    prefix = prefill(runtime, tokenizer.encode(f"{IM_START}user\n{registry.text}\n\n"))
    pairs = [_tail(tokenizer, item.text, item.answer) for item in registry.questions]
    batch = PackedBatch.of_tails(
        [[*asked, *answer[:-1]] for asked, answer in pairs],
        [[IGNORE] * (len(asked) - 1) + answer for asked, answer in pairs],
        start=len(prefix),
    )
    with runtime.turn() as ready:
        logits = runtime.attention.forward_batch(ready, prefix, batch)
        labels = batch.targets.to(logits.device)
    hits = (logits.argmax(-1) == labels).split([len(answer) for _, answer in pairs])
    right = [each.tolist() for each in hits]
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


def _tail(
    tokenizer: PreTrainedTokenizerFast, asked: str, answer: str
) -> tuple[list[int], list[int]]:
    """Return the tokens between document and answer, and those of the answer."""
    asked_ids: list[int] = tokenizer.encode(f"{asked}{IM_END}\n{IM_START}assistant\n")
    answer_ids: list[int] = tokenizer.encode(f"{answer}{IM_END}")
    return asked_ids, answer_ids
