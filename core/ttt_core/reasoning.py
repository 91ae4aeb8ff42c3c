"""Reasoning models: where the thinking of an answer begins and ends, and how long it may be.

Knows the tags that chat templates use, and forces them where a request asks for thinking or
bounds it. What is thought is found again in the text by `ttt_core.output`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


class ThinkingTags(NamedTuple):
    """What stands before and behind the thinking of an answer."""

    begin: str
    end: str


KNOWN_TAGS = (
    ThinkingTags("<think>", "</think>"),  # DeepSeek-R1, Qwen3, SmolLM3, QwQ, ...
    ThinkingTags("[THINK]", "[/THINK]"),  # Magistral
    ThinkingTags("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A Reasoning
    ThinkingTags("<seed:think>", "</seed:think>"),  # Seed-OSS
)


def find_tags(template: str) -> ThinkingTags | None:
    """Return the tags that a chat template writes or looks for; None: it knows no thinking."""
    return next((tags for tags in KNOWN_TAGS if tags.end in template), None)


class TokenGuide(Protocol):
    """What restricts the next token of one answer; `ttt_core.constrained.Guide` is one."""

    def mask(self, logits: torch.Tensor, remaining: int) -> torch.Tensor:
        """Return `logits`, shape (vocab_size,), with minus infinity where nothing may stand.

        Args:
            logits: fp32.
            remaining: Tokens left for the answer, the next one included.
        """
        ...

    def accept(self, token: int) -> None:
        """Go on behind the token that was chosen."""
        ...

    def restart(self) -> Self:
        """Return a guide at the beginning of an answer."""
        ...


class ThinkingGuide:
    """Lets a model think, but not for ever; what comes behind is another guide's affair.

    Args:
        begin: Tokens of the begin tag, forced; empty if the prompt ends with it.
        end: Tokens of the end tag, forced once the budget is spent.
        ended: Whether the last tokens of an answer hold the end tag.
        budget: Most tokens of thinking, tags excluded.
        eos_token_ids: Tokens that end an answer: not before what has a form was said.
        inner: Guides the answer proper; None: it is free.
    """

    def __init__(
        self,
        *,
        begin: Sequence[int],
        end: Sequence[int],
        ended: Callable[[Sequence[int]], bool],
        budget: int,
        eos_token_ids: Collection[int] = (),
        inner: TokenGuide | None,
    ) -> None:
        self._begin, self._end = tuple(begin), tuple(end)
        self._ended = ended
        self._budget = budget
        self._eos = sorted(eos_token_ids)
        self._inner = inner
        self._ids: list[int] = []
        self._forced = list(begin)
        self._thinking = True

    def mask(self, logits: torch.Tensor, remaining: int) -> torch.Tensor:
        """See `TokenGuide`."""
        if not self._thinking:
            return logits if self._inner is None else self._inner.mask(logits, remaining)
        if not self._forced and len(self._ids) - len(self._begin) >= self._budget:
            self._forced = list(self._end)
        if not self._forced and self._inner is None:
            return logits
        if not self._forced:
            thinking = logits.clone()
            thinking[[token for token in self._eos if token < len(thinking)]] = -math.inf
            return thinking
        only = logits.new_full(logits.shape, -math.inf)
        only[self._forced[0]] = logits[self._forced[0]].nan_to_num(neginf=0.0)
        return only

    def accept(self, token: int) -> None:
        """See `TokenGuide`."""
        if not self._thinking:
            if self._inner is not None:
                self._inner.accept(token)
            return
        self._ids.append(token)
        if self._forced:
            self._forced.pop(0)
        # No tag has more tokens than characters, and the begin tag holds no end tag.
        self._thinking = not self._ended(self._ids[-32:])

    def restart(self) -> ThinkingGuide:
        """See `TokenGuide`."""
        return ThinkingGuide(
            begin=self._begin,
            end=self._end,
            ended=self._ended,
            budget=self._budget,
            eos_token_ids=self._eos,
            inner=None if self._inner is None else self._inner.restart(),
        )
