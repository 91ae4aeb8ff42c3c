"""A tokenizer as llguidance sees it: compiled once, then every grammar is compiled against it."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Any, cast

from ttt_core.constrained.growth import growth, phrases
from ttt_core.constrained.guide import Guide
from ttt_core.constrained.planning import Planner
from ttt_core.errors import ConfigError
from ttt_core.lazy import lazy_property

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from transformers import PreTrainedTokenizerBase


_building = threading.Lock()


def _forget_lock() -> None:
    """In a forked child, whoever held it is not there to give it back."""
    global _building
    _building = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)


class Vocabulary:
    """The tokens of one model, shared by all its grammars; safe to use from several threads.

    Nothing is compiled before the first grammar: 128k tokens take about three seconds.

    Raises:
        ConfigError: The tokenizer is a slow one, or no token ends an answer.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        vocab_size: int,
        eos_token_ids: frozenset[int],
    ) -> None:
        """Take a tokenizer.

        Args:
            tokenizer: A fast one.
            vocab_size: Logits per step. Those behind the tokenizer's last token are never allowed.
            eos_token_ids: All tokens that end an answer.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise ConfigError(
                f"constrained output needs a fast tokenizer, but {type(tokenizer).__name__} is a "
                f"slow one; convert it, or use a model that comes with a tokenizer.json"
            )
        self._eos = sorted(token for token in eos_token_ids if 0 <= token < vocab_size)
        if not self._eos:
            raise ConfigError(
                "constrained output needs a token that ends an answer, but this model has none; "
                "set eos_token_id in its generation config"
            )
        self._tokenizer = tokenizer
        self._size = vocab_size

    def guide(self, grammar: str) -> Guide:
        """Compile a grammar, and stand at its beginning.

        Args:
            grammar: Lark text with a rule `start`, as llguidance understands it:
                https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md

        Raises:
            ConfigError: It does not compile; the message has llguidance's reason.
        """
        from llguidance import LLMatcher

        with _building:
            tokenizer, planner = self._compiled, self._planner
        matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(grammar), log_level=0)
        if matcher.is_error():
            raise ConfigError(f"the grammar cannot be used: {_reason(matcher)}")
        return Guide(
            matcher,
            planner,
            vocab_size=self._size,
            eos_token_ids=self._eos,
            growth=growth(grammar),
            phrases=phrases(grammar),
        )

    def literal(self, text: str) -> str:
        """Return Lark for exactly this text: a string, or a token if the text is an added one.

        An added token like `<tool_call>` is one token in what the model was trained on, and
        llguidance would not spell it with others.
        """
        for token, added in self._tokenizer.added_tokens_decoder.items():
            if added.content == text:
                return f"<[{token}]>"
        return json.dumps(text)

    @lazy_property
    def _compiled(self) -> LLTokenizer:
        from llguidance.hf import from_tokenizer

        # Models exist whose logits are fewer than their tokens.
        size = max(self._size, len(self._tokenizer))
        try:
            return from_tokenizer(cast(Any, self._tokenizer), n_vocab=size, eos_token=self._eos)
        except Exception as error:  # What llguidance makes of an unusual tokenizer.json.
            raise ConfigError(
                f"constrained output cannot use this tokenizer: {str(error)[:200]}"
            ) from error

    @lazy_property
    def _planner(self) -> Planner:
        return Planner(self._compiled, self._size, sorted(self._tokenizer.added_tokens_decoder))


def _reason(matcher: LLMatcher) -> str:
    """The first line of llguidance's message; the lines behind it quote the grammar."""
    return matcher.get_error().strip().split("\n")[0][:500]
