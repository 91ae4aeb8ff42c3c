"""Who answers questions? Ours, and what one would write with transformers alone.

All of them take the same document's tensors and the same weights, decode greedily and never stop
early.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from bench.options import Setting
from ttt_core.adapter import QueryAdapter
from ttt_core.config import GenerationConfig
from ttt_core.generate import Request, Row
from ttt_core.prefix import FrozenPrefix
from ttt_core.scheduler import Scheduler

Questions = Sequence[Sequence[int]]
Answers = list[list[int]]


class Answered(NamedTuple):
    """Answers to some questions.

    Attributes:
        tokens: One list for each question.
        first_token: Median seconds to a question's first token; None for peers that do not say.
        token: Mean seconds of a decoding step after it, for all rows together; likewise.
    """

    tokens: Answers
    first_token: float | None = None
    token: float | None = None


def whole_prompt(
    setting: Setting, prefix: FrozenPrefix, questions: Questions, new_tokens: int
) -> Answered:
    """`model.generate` on document and question, each time: ChatHuggingFace, HuggingFaceLLM."""
    return Answered([_generate(setting, prefix, [one], new_tokens, None)[0] for one in questions])


def copied_cache(
    setting: Setting, prefix: FrozenPrefix, questions: Questions, new_tokens: int
) -> Answered:
    """Transformers' own recipe: a deep copy of the document's cache for each question."""
    base = cache_by_reference(prefix)
    return Answered(
        [_generate(setting, prefix, [q], new_tokens, copy.deepcopy(base))[0] for q in questions]
    )


def shared_cache(
    setting: Setting, prefix: FrozenPrefix, questions: Questions, new_tokens: int
) -> Answered:
    """`model.generate` with a new cache whose layers point at the document's tensors."""
    return Answered(
        [
            _generate(setting, prefix, [one], new_tokens, cache_by_reference(prefix))[0]
            for one in questions
        ]
    )


def copied_rows(
    setting: Setting, prefix: FrozenPrefix, questions: Questions, new_tokens: int
) -> Answered:
    """`model.generate` on all questions together, the document's cache repeated for each row."""
    cache = cache_by_reference(prefix)
    cache.batch_repeat_interleave(len(questions))  # Out of place.
    return Answered(_generate(setting, prefix, questions, new_tokens, cache))


def ours(
    setting: Setting,
    prefix: FrozenPrefix,
    questions: Questions,
    new_tokens: int,
    adapter: QueryAdapter | None = None,
) -> list[Row]:
    """All questions together with this engine; the rows know their tokens and their timing."""
    request = Request(
        runtime=setting.runtime,
        prefix=prefix,
        adapter=adapter,
        decode=lambda ids: "",
        eos_token_ids=frozenset(),
    )
    config = GenerationConfig(max_new_tokens=new_tokens)
    rows = [Row(request, list(question), config, new_tokens) for question in questions]
    Scheduler(max_batch_size=len(rows)).run(rows)
    return rows


def ours_one_by_one(
    setting: Setting, prefix: FrozenPrefix, questions: Questions, new_tokens: int
) -> Answered:
    """This engine, question after question."""
    return _answered([ours(setting, prefix, [one], new_tokens)[0] for one in questions])


def ours_together(
    setting: Setting, prefix: FrozenPrefix, questions: Questions, new_tokens: int
) -> Answered:
    """This engine, all questions at once."""
    return _answered(ours(setting, prefix, questions, new_tokens))


def cache_by_reference(prefix: FrozenPrefix) -> Cache:
    """A cache that begins with the document's tensors; growing it leaves them as they are."""
    cache: Cache = DynamicCache()
    for keys, values in zip(prefix.keys, prefix.values, strict=True):
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


def _answered(rows: Sequence[Row]) -> Answered:
    timings = [row.answer().timing for row in rows]
    last = timings[-1]  # Nobody's question is read once the last row decodes.
    return Answered(
        tokens=[row.ids for row in rows],
        first_token=median(timing.first_token for timing in timings),
        token=(last.total - last.first_token) / max(len(rows[-1].ids) - 1, 1),
    )


def _generate(
    setting: Setting,
    prefix: FrozenPrefix,
    questions: Questions,
    new_tokens: int,
    cache: Cache | None,
) -> Answers:
    prompts = [[*prefix.input_ids, *question] for question in questions]  # All equally long.
    ids = torch.tensor(prompts, device=setting.device)
    out = setting.model.generate(  # type: ignore[operator]
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        past_key_values=cache,
        min_new_tokens=new_tokens,
        max_new_tokens=new_tokens,
        do_sample=False,
    )
    answers: Answers = out[:, ids.shape[1] :].tolist()
    return answers
