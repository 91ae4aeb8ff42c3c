"""Text to tokens such that only the template writes control tokens, not what somebody typed.

A document may contain `<|im_end|>`. It is marked before the template is rendered around it, and
marked pieces are tokenised as the plain characters they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = "\ufdd0"
"""A Unicode noncharacter: no text that is meant for interchange holds it."""


class LiteralEncoder:
    """A tokenizer that tells control tokens of the template from look-alikes in what was typed."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        # Added tokens may be special without being bos, eos or any other named token.
        added = (
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special
        )
        specials = {text for text in (*added, *tokenizer.all_special_tokens) if text}
        longest_first = sorted(specials, key=lambda text: (-len(text), text))
        self._special = _any_of(longest_first)
        self._marked = _any_of(_mark(text) for text in longest_first)

    def protect(self, text: str) -> str:
        """Mark control tokens in somebody's text."""
        return self._special.sub(lambda match: _mark(match[0]), text)

    def encode(self, text: str) -> list[int]:
        """Tokenise rendered text; what is marked becomes plain characters."""
        ids: list[int] = []
        end = 0
        for match in self._marked.finditer(text):
            ids += self._encode(text[end : match.start()], literal=False)
            ids += self._encode(match[0].replace(_MARK, ""), literal=True)
            end = match.end()
        return ids + self._encode(text[end:], literal=False)

    def _encode(self, text: str, *, literal: bool) -> list[int]:
        if not text:
            return []
        encoded = self._tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=literal,
            verbose=False,  # Whether it fits the window is for others to say.
        )
        return list(encoded["input_ids"])


def _mark(special: str) -> str:
    return special[0] + _MARK + special[1:]


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, texts)) or r"(?!)")
