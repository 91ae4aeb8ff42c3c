"""One answer in the making, and the values it ends as.

Logits come in, text comes out. What computes the logits, and with whom together, is the
scheduler's affair.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, NoReturn

import torch

from ttt_core.errors import AnswerTimeoutError, ReleasedError
from ttt_core.output import OutputReader, Piece
from ttt_core.sampling import Sampler
from ttt_core.stopping import TextStream

if TYPE_CHECKING:
    from ttt_core.adapter import QueryAdapter
    from ttt_core.config import GenerationConfig
    from ttt_core.prefix import FrozenPrefix
    from ttt_core.reasoning import TokenGuide
    from ttt_core.runtime import Runtime
    from ttt_core.tools import InvalidToolCall, ToolCall

FinishReason = Literal["stop", "length", "tool_calls", "cancelled"]


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer.

    Attributes:
        prompt_tokens: Document and question.
        completion_tokens: The answer, its end token included.
        cached_tokens: Of the prompt, those whose keys and values were not computed again.
        computed_tokens: Tokens that really went through the model.
        reasoning_tokens: Of the answer, those that it begins with to think, tags included.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    computed_tokens: int
    reasoning_tokens: int = 0

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
        text: Without stop strings, special tokens, thinking and tool calls.
        token_ids: The answer's tokens, without the end token.
        finish_reason: `stop` (the model or a stop string ended it), `length`, `tool_calls` (it
            ended with calls), or `cancelled` (it had not ended when it was closed or looked at).
        usage: Tokens.
        timing: Seconds.
        adapted: Whether an adapter was bound.
        logprobs: If asked for, one entry for each of `token_ids`.
        reasoning: What the model thought before it answered.
        tool_calls: The tools it wants called.
        invalid_tool_calls: What was meant as a call and cannot be read as one, or was cut off.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    timing: Timing
    adapted: bool
    logprobs: tuple[TokenLogprob, ...] | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    invalid_tool_calls: tuple[InvalidToolCall, ...] = ()


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
        self._pieces = _read(deltas, row)

    def __next__(self) -> str:
        """Compute until the next piece of text; thinking and tool calls are passed over.

        Raises:
            ReleasedError: This process is a forked child of the one that asked.
            AnswerTimeoutError: It took longer than `timeout` seconds.
        """
        return next(piece for piece in self.pieces() if isinstance(piece, str))

    def pieces(self) -> Iterator[Piece]:
        """Iterate over all there is in the answer: text, reasoning, and parts of tool calls."""
        if os.getpid() != self._process:  # Whom it decodes together with stayed behind.
            raise ReleasedError("this answer was begun before the process was forked; ask again")
        return self._pieces

    def close(self) -> None:
        """Stop decoding; what has been decoded stays in `answer`."""
        close = getattr(self._deltas, "close", None)
        if close is not None:
            close()

    @property
    def answer(self) -> Answer:
        """The answer so far: what of it was iterated over."""
        return self._row.answer()

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied: an answer in the making is part of a running batch."""
        raise TypeError(
            "an answer in the making is neither pickled nor copied; its `answer` is a plain value"
        )


def _read(deltas: Iterator[tuple[int, str]], row: Row) -> Iterator[Piece]:
    """Take an answer apart as it comes. No method: a stream nobody holds has to end at once."""
    for _, delta in deltas:
        yield from row.reader.feed(delta)
    if row.finish_reason is not None:  # Else it was closed: no more is to be had.
        yield from row.reader.finish()


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
    guide: TokenGuide | None = field(default=None, repr=False)
    """What the answer has to be like."""
    thinks: bool = False
    """Whether the answer begins with thinking, in which stop strings mean nothing."""
    reader: OutputReader = field(default_factory=partial(OutputReader, None), repr=False)
    """Takes the answer apart. Whoever streams feeds it; else it is fed once, in the end."""

    def __post_init__(self) -> None:
        assert self.request is not None
        self._n_prefix = len(self.request.prefix)
        self._adapted = self.request.adapter is not None
        self._decode = self.request.decode
        self._eos_token_ids = self.request.eos_token_ids
        self._sampler = Sampler(self.config)
        self._stream = self._new_stream()
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
        self._check_time()
        allowed = logits
        if self.guide is not None:
            allowed = self.guide.mask(logits, self.max_new_tokens - len(self.ids))
        token = self._sampler.choose(allowed, self.ids)
        self._last = time.perf_counter()
        self._first = self._first or self._last
        if self.guide is not None:
            self.guide.accept(token)
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
        self._stream = self._new_stream()
        self._ended_by_eos = False
        if self.guide is not None:
            self.guide = self.guide.restart()
            for token in ids:
                self.guide.accept(token)
        del self._logprobs[len(ids) :]
        for token in ids:
            self._append(token)

    def _new_stream(self) -> TextStream:
        behind = self.reader.end_of_thinking if self.thinks else None
        return TextStream(self._decode, self.config.stop, behind=behind)

    def let_go(self) -> None:
        """Hold keys, values and model no longer: nothing more will be computed."""
        self.request = None

    def answer(self) -> Answer:
        """The answer so far, as a value."""
        prefix, reader = self._n_prefix, self.reader
        finish_reason = self.finish_reason or "cancelled"
        if reader.tool_calls and finish_reason == "stop":
            finish_reason = "tool_calls"
        return Answer(
            text=self.text if reader.plain else reader.text,
            token_ids=tuple(self.ids),
            finish_reason=finish_reason,
            usage=Usage(
                prompt_tokens=prefix + len(self.suffix),
                completion_tokens=len(self.ids) + self._ended_by_eos,
                cached_tokens=prefix - self.read_tokens,
                computed_tokens=self._computed + self.read_tokens,
                reasoning_tokens=self._count_reasoning(),
            ),
            timing=Timing(
                first_token=self.waited + (self._first or self._last) - self._started,
                total=self.waited + self._last - self._started,
                attention=self._attention,
            ),
            adapted=self._adapted,
            logprobs=tuple(self._logprobs) if self.config.logprobs else None,
            reasoning=reader.reasoning,
            tool_calls=reader.tool_calls,
            invalid_tool_calls=reader.invalid_tool_calls,
        )

    def whole_answer(self) -> Answer:
        """The answer of a row that was decoded to its end, and not streamed."""
        self.reader.feed(self.text)
        self.reader.finish()
        return self.answer()

    def _count_reasoning(self) -> int:
        end = self.reader.end_of_thinking
        if end is None or not self.reader.reasoning:
            return 0
        fewest = range(1, len(self.ids) + 1)
        behind = bisect_left(fewest, True, key=lambda n: end in self._decode(self.ids[:n]))
        return min(behind + 1, len(self.ids))

    def _check_time(self) -> None:
        timeout = self.config.timeout
        if timeout is not None and time.perf_counter() - self._started + self.waited > timeout:
            raise AnswerTimeoutError(
                f"no whole answer after {timeout:.2g} s and {len(self.ids)} tokens; allow more "
                f"time, or fewer tokens"
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
