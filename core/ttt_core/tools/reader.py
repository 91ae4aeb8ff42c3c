"""Run a parser over text that arrives in pieces, and sort what it finds.

A parser is a generator that reads a `Source` from front to back as if the whole answer were there,
and yields `WAIT` where it needs more of it: no format has a state machine of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TypeAlias, TypeVar

from ttt_core.tools.calls import InvalidToolCall, ToolCall, ToolCallDelta

WAIT = None
"""What a parser yields when it cannot go on without more text."""

Result = TypeVar("Result")
Event: TypeAlias = str | ToolCallDelta | ToolCall | InvalidToolCall | None
Steps: TypeAlias = Generator[Event, None, Result]
"""Part of a parser: yields what it finds and returns a result to the part that runs it."""


class Source:
    """An answer as far as it has come, and how far it is read.

    Attributes:
        text: All that arrived.
        at: Index of the first character that is not read yet.
        ended: Whether nothing will follow.
        calls: How many calls were begun.
    """

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.ended = False
        self.calls = 0

    @property
    def rest(self) -> str:
        """What is not read yet."""
        return self.text[self.at :]

    @property
    def exhausted(self) -> bool:
        """Whether everything that arrived is read."""
        return self.at == len(self.text)

    def take(self, length: int) -> str:
        """Read the next characters."""
        taken = self.text[self.at : self.at + length]
        self.at += len(taken)
        return taken


class CallReader:
    """Reads one answer: text on one side, tool calls on the other.

    The arguments of a call's deltas joined are the text of its arguments; an invalid call's are
    `InvalidToolCall.arguments`.

    Attributes:
        calls: Complete calls so far.
        invalid: What began like a call and cannot be made.
    """

    def __init__(self, parse: Callable[[Source], Steps[None]]) -> None:
        self.calls: list[ToolCall] = []
        self.invalid: list[InvalidToolCall] = []
        self._source = Source()
        self._events = parse(self._source)

    def feed(self, text: str) -> list[str | ToolCallDelta]:
        """Add text; return the text and pieces of calls that are now certain."""
        self._source.text += text
        return self._run()

    def finish(self) -> list[str | ToolCallDelta]:
        """End the answer; return what was held back."""
        self._source.ended = True
        return self._run()

    def _run(self) -> list[str | ToolCallDelta]:
        out: list[str | ToolCallDelta] = []
        for event in self._events:
            if event is WAIT:
                break
            if isinstance(event, ToolCall):
                self.calls.append(event)
            elif isinstance(event, InvalidToolCall):
                self.invalid.append(event)
            elif event:
                out.append(event)
        return out


def peek(source: Source) -> Steps[str]:
    """Return the next character, unread; empty at the end of the answer."""
    while source.exhausted and not source.ended:
        yield WAIT
    return source.text[source.at : source.at + 1]


def skip_space(source: Source) -> Steps[None]:
    """Read white space."""
    while (yield from peek(source)).isspace():
        source.take(1)


def accept(source: Source, *options: str) -> Steps[str]:
    """Read one of several pieces of text if it comes next; return it, or nothing."""
    while True:
        rest = source.rest
        if not source.ended and any(len(rest) < len(o) and o.startswith(rest) for o in options):
            yield WAIT
            continue
        found = max((o for o in options if rest.startswith(o)), key=len, default="")
        return source.take(len(found))


def text_until(source: Source, triggers: Sequence[str]) -> Steps[str]:
    """Hand on text up to a trigger and read the trigger; return it, or nothing at the end.

    White space between text and a call, or between calls, belongs to neither.
    """
    after_call = source.calls > 0
    while True:
        text, trigger = _first(source.rest, triggers)
        if trigger:
            yield text.rstrip()
            source.take(len(text) + len(trigger))
            return trigger
        if source.ended:
            source.at = len(source.text)
            yield text.rstrip() if after_call else text
            return ""
        certain = text[: len(text) - _overlap(text, triggers)].rstrip()
        yield source.take(len(certain))
        yield WAIT


def read_until(source: Source, stops: Sequence[str]) -> Steps[str]:
    """Read and return what comes before the first of `stops`, or everything."""
    while True:
        text, stop = _first(source.rest, stops)
        if stop or source.ended:
            return source.take(len(text))
        yield WAIT


def _first(text: str, needles: Sequence[str]) -> tuple[str, str]:
    """Return the text before the first of `needles`, and which one it is."""
    found = [(at, -len(one), one) for one in needles if (at := text.find(one)) >= 0]
    if not found:
        return text, ""
    at, _, needle = min(found)
    return text[:at], needle


def _overlap(text: str, needles: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins one of `needles`."""
    longest = min(len(text), max(map(len, needles), default=1) - 1)
    ends = (text[len(text) - length :] for length in range(longest, 0, -1))
    return next((len(e) for e in ends if any(one.startswith(e) for one in needles)), 0)
