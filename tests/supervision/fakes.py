"""A base model that says what it is told to, and documents for it."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ttt_core import AdaptationConfig, Document
from ttt_core.chat import ChatFormat, PromptPrefix
from ttt_core.supervision import BaseReader, Given, Passage, TokenizedDocument


class FakeBase:
    """Answers by a function of the prompt; losses and entropies are drawn, or given.

    Attributes:
        asked: All prompts so far.
    """

    def __init__(
        self,
        text: str,
        tokenizer: PreTrainedTokenizerBase,
        reply: Callable[[str], str] = lambda prompt: "",
        scores: Sequence[float] | None = None,
    ) -> None:
        self.asked: list[str] = []
        self._chat = ChatFormat(tokenizer)
        self._tokenizer = tokenizer
        self._prompt: PromptPrefix = self._chat.prefix(Document.of(text).text)
        self._reply = reply
        self._scores = scores

    @property
    def document(self) -> TokenizedDocument:
        return TokenizedDocument.of(self._prompt, self._chat, self._tokenizer)

    def token_losses(self) -> torch.Tensor:
        return self._drawn(0)

    def token_entropies(self) -> torch.Tensor:
        return self._drawn(1)

    def answers(self, prompts: Sequence[str], *, max_new_tokens: int) -> list[str]:
        assert prompts
        assert max_new_tokens > 0
        self.asked += prompts
        return [self._reply(prompt) for prompt in prompts]

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def chat_tail(self, prompt: str) -> list[int]:
        return self._chat.suffix(self._prompt, [{"role": "user", "content": prompt}])

    def _drawn(self, kind: int) -> torch.Tensor:
        rng = random.Random(kind)
        n_tokens = len(self._prompt.input_ids)
        scores = self._scores or [rng.expovariate(1) for _ in range(n_tokens)]
        return torch.tensor([*scores[: n_tokens - 1], torch.nan])


class NoBase(FakeBase):
    """For supervisions that ask nothing of it."""

    def __init__(self) -> None:
        """There is nothing to read."""


def make_given(
    base: BaseReader,
    document: TokenizedDocument,
    *,
    held_out: Collection[Passage] = (),
    question: str | None = None,
    **options: Any,
) -> Given:
    """Options are those of the recipe."""
    return Given(document, held_out, AdaptationConfig(**options), question, base)
