"""One answer in the making, and the values it ends as.

Logits come in, text comes out. What computes the logits, and with whom together, is the
scheduler's affair.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NoReturn

import torch

from ttt_core.errors import ReleasedError
from ttt_core.sampling import Sampler
from ttt_core.stopping import TextStream

if TYPE_CHECKING:
    from ttt_core.adapter import QueryAdapter
    from ttt_core.config import GenerationConfig
    from ttt_core.prefix import FrozenPrefix
    from ttt_core.runtime import Runtime

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer.

    Attributes:
        prompt_tokens: Document and question.
        completion_tokens: The answer, its end token included.
        cached_tokens: Of the prompt, those whose keys and values were not computed again.
        computed_tokens: Tokens that really went through the model.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    computed_tokens: int

    @property
    def total_tokens(self) -> int:
        """Prompt and answer."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Timing:
    """Wall-clock seconds of one answer, from asking until it ended, and what they depend on.

    Attributes:
        first_token: Until the first token was known.
        total: Until the last one was.
        attention: The attention path that ran; empty if nothing was computed.
    """

    first_token: float
    total: float
    attention: str = ""


@dataclass(frozen=True)
class TokenLogprob:
    """A token, its text and its log-probability; and the likeliest alternatives."""

    token: int
    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        text: Without stop strings and special tokens.
        token_ids: The answer's tokens, without the end token.
        finish_reason: `stop` (the model or a stop string ended it), `length`, or `cancelled` (it
            had not ended when it was closed or looked at).
        usage: Tokens.
        timing: Seconds.
        adapted: Whether an adapter was bound.
        logprobs: If asked for, one entry for each of `token_ids`.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    timing: Timing
    adapted: bool
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True)
class Request:
    """What is decoded: the model, what it has read, and how to turn tokens into text."""

    runtime: Runtime
    prefix: FrozenPrefix
    adapter: QueryAdapter | None
    decode: Callable[[Sequence[int]], str]
    eos_token_ids: frozenset[int]


class AnswerStream(Iterator[str]):
    """Text deltas of one answer. `close()` stops the work; `answer` holds it so far."""

    def __init__(self, deltas: Iterator[tuple[int, str]], row: Row) -> None:
        self._deltas = deltas
        self._row = row
        self._process = os.getpid()

    def __next__(self) -> str:
        """Compute until the next piece of text.

        Raises:
            ReleasedError: This process is a forked child of the one that asked.
        """
        if os.getpid() != self._process:  # Whom it decodes together with stayed behind.
            raise ReleasedError("this answer was begun before the process was forked; ask again")
        return next(self._deltas)[1]

    def close(self) -> None:
        """Stop decoding; what has been decoded stays in `answer`."""
        close = getattr(self._deltas, "close", None)
        if close is not None:
            close()

    @property
    def answer(self) -> Answer:
        """The answer so far."""
        return self._row.answer()

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied: an answer in the making is part of a running batch."""
        raise TypeError(
            "an answer in the making is neither pickled nor copied; its `answer` is a plain value"
        )


@dataclass
class Row:
    """One answer in the making."""

    request: Request | None
    suffix: list[int] = field(repr=False)
    config: GenerationConfig
    max_new_tokens: int
    ids: list[int] = field(default_factory=list, repr=False)
    text: str = field(default="", repr=False)
    finish_reason: FinishReason | None = None
    waited: float = 0.0
    """Seconds until the document's keys and values were there."""
    read_tokens: int = 0
    """Document tokens that had to be computed for this answer."""

    def __post_init__(self) -> None:
        assert self.request is not None
        self._n_prefix = len(self.request.prefix)
        self._adapted = self.request.adapter is not None
        self._decode = self.request.decode
        self._eos_token_ids = self.request.eos_token_ids
        self._sampler = Sampler(self.config)
        self._stream = TextStream(self._decode, self.config.stop)
        self._logprobs: list[TokenLogprob] = []
        self._computed = 0
        self._attention = ""
        self._ended_by_eos = False
        self.start()

    def start(self) -> None:
        """Begin to count the seconds."""
        self._started = self._last = time.perf_counter()
        self._first: float | None = None

    def __len__(self) -> int:
        """Tokens behind the prefix so far."""
        return len(self.suffix) + len(self.ids)

    def tokens(self, start: int) -> list[int]:
        """The tokens behind the prefix, from the one with number `start` on."""
        return self.suffix[start:] + self.ids[max(start - len(self.suffix), 0) :]

    def count(self, tokens: int, *, attention: str) -> None:
        """Count tokens that went through the model."""
        self._computed += tokens
        self._attention = attention

    def push(self, logits: torch.Tensor) -> None:
        """Choose the next token from `logits`, shape (vocab_size,)."""
        token = self._sampler.choose(logits, self.ids)
        self._last = time.perf_counter()
        self._first = self._first or self._last
        if token in self._eos_token_ids:
            self._ended_by_eos = True
            self.text += self._stream.flush()
            self.finish_reason = "stop"
            return
        if self.config.logprobs:
            self._logprobs.append(self._logprob(logits, token))
        self._append(token)

    def restore(self) -> None:
        """Make everything follow from the tokens again, after a `push` that was broken off."""
        ids, self.ids, self.text = self.ids, [], ""
        self._stream = TextStream(self._decode, self.config.stop)
        self._ended_by_eos = False
        del self._logprobs[len(ids) :]
        for token in ids:
            self._append(token)

    def let_go(self) -> None:
        """Hold keys, values and model no longer: nothing more will be computed."""
        self.request = None

    def answer(self) -> Answer:
        """The answer so far, as a value."""
        prefix = self._n_prefix
        return Answer(
            text=self.text,
            token_ids=tuple(self.ids),
            finish_reason=self.finish_reason or "cancelled",
            usage=Usage(
                prompt_tokens=prefix + len(self.suffix),
                completion_tokens=len(self.ids) + self._ended_by_eos,
                cached_tokens=prefix - self.read_tokens,
                computed_tokens=self._computed + self.read_tokens,
            ),
            timing=Timing(
                first_token=self.waited + (self._first or self._last) - self._started,
                total=self.waited + self._last - self._started,
                attention=self._attention,
            ),
            adapted=self._adapted,
            logprobs=tuple(self._logprobs) if self.config.logprobs else None,
        )

    def _append(self, token: int) -> None:
        self.ids.append(token)
        text = self._stream.push(token)
        full = len(self.ids) == self.max_new_tokens
        if full and not self._stream.stopped:
            text += self._stream.flush()
        self.text += text
        if full or self._stream.stopped:
            self.finish_reason = "stop" if self._stream.stopped else "length"

    def _logprob(self, logits: torch.Tensor, token: int) -> TokenLogprob:
        logprobs = logits.log_softmax(-1)
        values, ids = logprobs.topk(self.config.top_logprobs)
        decode = self._decode
        top = [
            (decode([other]), value)
            for other, value in zip(ids.tolist(), values.tolist(), strict=True)
        ]
        return TokenLogprob(token, decode([token]), logprobs[token].item(), tuple(top))
