"""Run a parser over text that arrives in pieces, and sort what it finds.

A parser is a generator that reads a `Source` from front to back as if the whole answer were there,
and yields `WAIT` where it needs more of it: no format has a state machine of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Generator, Sequence
from typing import TypeAlias, TypeVar

from ttt_core.stopping import overlap
from ttt_core.tools.calls import InvalidToolCall, ToolCall, ToolCallDelta
from ttt_core.tools.scanning import Malformed

WAIT = None
"""What a parser yields when it cannot go on without more text."""

Result = TypeVar("Result")
Event: TypeAlias = str | ToolCallDelta | ToolCall | InvalidToolCall | None
Steps: TypeAlias = Generator[Event, None, Result]
"""Part of a parser: yields what it finds and returns a result to the part that runs it."""


class Source:
    """An answer as far as it has come, and how far it is read.

    Attributes:
        text: What arrived, but for what is forgotten.
        at: Index of the first character that is not read yet.
        ended: Whether nothing will follow.
        calls: How many calls were begun.
        json: Whether the answer may still be JSON as a whole.
        names: The tools that may be called; None: any.
    """

    def __init__(self, *, names: Collection[str] | None = None, json: bool = False) -> None:
        self.names = names
        self.json = json
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

    def forget(self) -> None:
        """Drop what is read; indices from before mean nothing afterwards."""
        self.text, self.at = self.rest, 0

    def check_offered(self, name: str) -> None:
        """Say whose call this is.

        Raises:
            Malformed: Nobody offered that tool.
        """
        if self.names is not None and name not in self.names:
            tools = ", ".join(sorted(self.names)) or "none"
            raise Malformed(f"no tool of this name is offered; the tools are: {tools}")


class CallReader:
    """Reads one answer: text on one side, tool calls on the other.

    The arguments of a call's deltas joined are the text of its arguments; an invalid call's are
    `InvalidToolCall.arguments`.

    Attributes:
        calls: Complete calls so far.
        invalid: What began like a call and cannot be made.

    Args:
        parse: Reads the answer.
        names: See `ToolFormat.reader`.
        json: See `ToolFormat.reader`.
    """

    def __init__(
        self,
        parse: Callable[[Source], Steps[None]],
        *,
        names: Collection[str] | None = None,
        json: bool = False,
    ) -> None:
        self.calls: list[ToolCall] = []
        self.invalid: list[InvalidToolCall] = []
        self._source = Source(names=names, json=json)
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
    longest = max(map(len, options))
    while not source.ended and len(source.text) - source.at < longest:
        rest = source.rest
        if not any(len(rest) < len(one) and one.startswith(rest) for one in options):
            break
        yield WAIT
    comes = (one for one in options if source.text.startswith(one, source.at))
    return source.take(len(max(comes, key=len, default="")))


def text_until(source: Source, triggers: Sequence[str]) -> Steps[str]:
    """Hand on text up to a trigger and read the trigger; return it, or nothing at the end.

    White space between text and a call, or between calls, belongs to neither. An answer that may
    be JSON, and does not begin with a trigger, is text to its end. What is read is forgotten.
    """
    after_call = source.calls > 0
    source.forget()
    if source.json and not after_call:
        source.json = not (yield from _begins_with(source, triggers))
        triggers = () if source.json else triggers
    searched = 0
    while True:
        end, trigger = _find(source.text, triggers, searched)
        if trigger:
            yield source.text[source.at : end].rstrip()
            source.at = end + len(trigger)
            return trigger
        if source.ended:
            text = source.take(end)
            yield text.rstrip() if after_call else text
            return ""
        end -= max((overlap(source.text, one) for one in triggers), default=0)
        yield source.take(len(source.text[:end].rstrip()))
        source.forget()
        searched = _unsearched(source, triggers)
        yield WAIT


def read_until(source: Source, stops: Sequence[str]) -> Steps[str]:
    """Read and return what comes before the first of `stops`, or everything."""
    searched = source.at
    while True:
        end, stop = _find(source.text, stops, searched)
        if stop or source.ended:
            return source.take(end - source.at)
        searched = max(source.at, _unsearched(source, stops))
        yield WAIT


def _begins_with(source: Source, options: Sequence[str]) -> Steps[bool]:
    """Whether one of several pieces of text comes next, but for white space; read nothing."""
    start = source.at
    yield from skip_space(source)
    found = yield from accept(source, *options)
    source.at = start
    return bool(found)


def _find(text: str, needles: Sequence[str], start: int) -> tuple[int, str]:
    """Return where the first of `needles` begins, the longest there, and which one it is."""
    pattern = "|".join(map(re.escape, sorted(needles, key=len, reverse=True)))
    found = re.compile(pattern).search(text, start) if needles else None
    return (found.start(), found[0]) if found else (len(text), "")


def _unsearched(source: Source, needles: Sequence[str]) -> int:
    """Where to go on searching when more text comes: a needle may have begun already."""
    return max(0, len(source.text) - max(map(len, needles), default=1) + 1)
