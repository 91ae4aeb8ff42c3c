"""Choosing the next token, with transformers' own logits processors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ttt_core.config import GenerationConfig


class Sampler:
    """One answer's sampler: its own random state, so that batching changes no answer."""

    def __init__(self, config: GenerationConfig) -> None:
        self._greedy = config.temperature == 0
        self._processors = _processors(config)
        self._generator = torch.Generator()
        if config.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(config.seed)

    def choose(self, logits: torch.Tensor, generated: Sequence[int]) -> int:
        """Choose a token.

        Args:
            logits: fp32, shape (vocab_size,).
            generated: The answer's tokens so far.
        """
        if self._greedy and not self._processors:
            return _likeliest(logits)
        ids = torch.tensor([list(generated)], dtype=torch.long, device=logits.device)
        scores = self._processors(cast("torch.LongTensor", ids), _batch_of_one(logits))[0]
        if self._greedy:
            return _likeliest(scores)
        weights = scores.softmax(-1).cpu()
        return int(torch.multinomial(weights, 1, generator=self._generator))


def _likeliest(scores: torch.Tensor) -> int:
    best, token = scores.max(-1)
    if best.isnan():
        raise ValueError("the model's logits are not numbers")
    return int(token)


def _batch_of_one(logits: torch.Tensor) -> torch.FloatTensor:
    return cast("torch.FloatTensor", logits[None].clone())  # Processors may write to it.


def _processors(config: GenerationConfig) -> LogitsProcessorList:
    processors = LogitsProcessorList()
    if config.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    if config.temperature == 0:
        return processors
    if config.temperature != 1:
        processors.append(TemperatureLogitsWarper(config.temperature))
    if config.top_k:
        processors.append(TopKLogitsWarper(config.top_k))
    if config.top_p < 1:
        processors.append(TopPLogitsWarper(config.top_p))
    if config.min_p:
        processors.append(MinPLogitsWarper(config.min_p))
    return processors
