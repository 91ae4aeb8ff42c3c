"""Decoding against a frozen prefix: one or many answers at once, in one packed row.

Only question and answer tokens are computed; the prefix's keys and values are read by reference.
Every decoded token is a turn of its own, so closing the iterator ends the work at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch

from ttt_core.packed import PackedContext
from ttt_core.sampling import Sampler
from ttt_core.stopping import TextStream

if TYPE_CHECKING:
    from ttt_core.adapter import QueryAdapter
    from ttt_core.config import GenerationConfig
    from ttt_core.prefill import FrozenPrefix
    from ttt_core.runtime import Runtime

FinishReason = Literal["stop", "length"]

_CHUNK = 512  # Question tokens per forward pass; bounds the mask's memory for long conversations.


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
    """Wall-clock seconds of one answer; in a batch, of the batch until this row ended."""

    first_token: float
    total: float


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
        finish_reason: `stop` (the model or a stop string ended it) or `length`.
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

    def __init__(self, deltas: Iterator[tuple[int, str]], rows: Sequence[Row]) -> None:
        self._deltas = deltas
        self._row = rows[0]

    def __next__(self) -> str:
        """Compute until the next piece of text."""
        for _, text in self._deltas:
            if text:
                return text
        raise StopIteration

    def close(self) -> None:
        """Stop decoding; what has been decoded stays in `answer`."""
        close = getattr(self._deltas, "close", None)
        if close is not None:
            close()

    @property
    def answer(self) -> Answer:
        """The answer so far."""
        return self._row.answer()


@dataclass
class Row:
    """One answer in the making."""

    request: Request
    suffix: list[int]
    config: GenerationConfig
    max_new_tokens: int
    ids: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: FinishReason | None = None

    def __post_init__(self) -> None:
        self._sampler = Sampler(self.config)
        self._stream = TextStream(self.request.decode, self.config.stop)
        self._logprobs: list[TokenLogprob] = []
        self._computed = 0
        self._ended_by_eos = False
        self._started = time.perf_counter()
        self._first: float | None = None
        self._last = self._started

    @property
    def position(self) -> int:
        """Position of the newest token in the window."""
        return len(self.request.prefix) + len(self.suffix) + len(self.ids) - 1

    def count(self, tokens: int) -> None:
        """Count tokens that went through the model."""
        self._computed += tokens

    def push(self, logits: torch.Tensor) -> str:
        """Choose the next token from `logits`, shape (vocab_size,); return new text."""
        token = self._sampler.choose(logits, self.ids)
        self._last = time.perf_counter()
        self._first = self._first or self._last
        if token in self.request.eos_token_ids:
            self._ended_by_eos, self.finish_reason = True, "stop"
            return self._say(self._stream.flush())
        if self.config.logprobs:
            self._logprobs.append(self._logprob(logits, token))
        self.ids.append(token)
        text = self._stream.push(token)
        if not self._stream.stopped and len(self.ids) == self.max_new_tokens:
            self.finish_reason = "length"
            text += self._stream.flush()
        if self._stream.stopped:
            self.finish_reason = "stop"
        return self._say(text)

    def answer(self) -> Answer:
        """The answer so far, as a value."""
        prefix = len(self.request.prefix)
        return Answer(
            text=self.text,
            token_ids=tuple(self.ids),
            finish_reason=self.finish_reason or "stop",
            usage=Usage(
                prompt_tokens=prefix + len(self.suffix),
                completion_tokens=len(self.ids) + self._ended_by_eos,
                cached_tokens=prefix,
                computed_tokens=self._computed,
            ),
            timing=Timing(
                first_token=(self._first or self._last) - self._started,
                total=self._last - self._started,
            ),
            adapted=self.request.adapter is not None,
            logprobs=tuple(self._logprobs) if self.config.logprobs else None,
        )

    def _say(self, text: str) -> str:
        self.text += text
        return text

    def _logprob(self, logits: torch.Tensor, token: int) -> TokenLogprob:
        logprobs = logits.log_softmax(-1)
        values, ids = logprobs.topk(self.config.top_logprobs)
        decode = self.request.decode
        top = [
            (decode([other]), value)
            for other, value in zip(ids.tolist(), values.tolist(), strict=True)
        ]
        return TokenLogprob(token, decode([token]), logprobs[token].item(), tuple(top))


def decode_rows(request: Request, rows: Sequence[Row]) -> Iterator[tuple[int, str]]:
    """Decode all rows together; yield (row index, new text) as it comes.

    Rows share one forward pass for each token and end at different times.
    """
    context = PackedContext(request.runtime.architecture, request.prefix, in_place=False)
    logits = _read_questions(request, context, rows)
    active = list(range(len(rows)))
    while active:
        for index in active:
            yield index, rows[index].push(logits[index])
        active = [index for index in active if rows[index].finish_reason is None]
        if active:
            logits = _decode_step(request, context, rows, active)


def _read_questions(
    request: Request, context: PackedContext, rows: Sequence[Row]
) -> dict[int, torch.Tensor]:
    """Run the question tokens; return the logits behind each row's last one."""
    start = len(request.prefix)
    ids = torch.tensor([token for row in rows for token in row.suffix])
    positions = torch.cat([torch.arange(start, start + len(row.suffix)) for row in rows])
    segments = torch.cat([torch.full((len(row.suffix),), i) for i, row in enumerate(rows)])
    ends = torch.tensor([len(row.suffix) for row in rows]).cumsum(0) - 1
    logits: dict[int, torch.Tensor] = {}
    for begin in range(0, len(ids), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        inside = ((ends >= begin) & (ends < begin + _CHUNK)).nonzero().squeeze(-1)
        at = ends[inside] - begin if len(inside) else torch.tensor([0])  # Some model want one.
        out = _forward(request, context, ids[part], positions[part], segments[part], at)
        logits.update(zip(inside.tolist(), out, strict=False))
    for row in rows:
        row.count(len(row.suffix))
    return logits


def _decode_step(
    request: Request, context: PackedContext, rows: Sequence[Row], active: Sequence[int]
) -> dict[int, torch.Tensor]:
    """Run the newest token of each active row; return the logits behind them."""
    ids = torch.tensor([rows[index].ids[-1] for index in active])
    positions = torch.tensor([rows[index].position for index in active])
    at = torch.arange(len(active))
    out = _forward(request, context, ids, positions, torch.tensor(active), at)
    for index in active:
        rows[index].count(1)
    return dict(zip(active, out, strict=True))


def _forward(
    request: Request,
    context: PackedContext,
    ids: torch.Tensor,
    positions: torch.Tensor,
    segments: torch.Tensor,
    logits_at: torch.Tensor,
) -> torch.Tensor:
    with request.runtime.turn(request.adapter) as model, torch.no_grad():
        return context.forward(
            model,
            input_ids=ids,
            position_ids=positions,
            segment_ids=segments,
            logits_at=logits_at,
        )
