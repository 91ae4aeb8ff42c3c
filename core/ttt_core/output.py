"""What a model wrote, taken apart as it comes: its thinking, its text, its tool calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from ttt_core.stopping import overlap
from ttt_core.tools import CallReader, InvalidToolCall, ToolCall, ToolCallDelta

if TYPE_CHECKING:
    from ttt_core.reasoning import ThinkingTags


@dataclass(frozen=True)
class ReasoningDelta:
    """A piece of what the model thought before it answered."""

    text: str = field(repr=False)


Piece: TypeAlias = "str | ReasoningDelta | ToolCallDelta"
"""A step of an answer: text, reasoning, or a part of a tool call."""


class OutputReader:
    """Takes one answer apart, piece by piece; the pieces joined are the same however it comes.

    Args:
        tags: How the model marks its thinking; None: it does not.
        thinking: Whether the prompt ends with the begin tag, so that the answer begins inside.
        calls: Finds tool calls; None: all is text.
    """

    def __init__(
        self,
        tags: ThinkingTags | None,
        *,
        thinking: bool = False,
        calls: CallReader | None = None,
    ) -> None:
        self.text = ""
        self.reasoning = ""
        self._tags = tags
        self._calls = calls
        self._held = ""
        self._read: Callable[[], list[Piece]] = self._read_answer
        if tags is not None:
            self._read = self._read_thinking if thinking else self._read_start
        self._finished = False

    @property
    def plain(self) -> bool:
        """Whether all of the answer is text."""
        return self._tags is None and self._calls is None

    @property
    def end_of_thinking(self) -> str | None:
        """The tag behind the thinking, if there is such a thing."""
        return None if self._tags is None else self._tags.end

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls that are complete."""
        return tuple(self._calls.calls) if self._calls else ()

    @property
    def invalid_tool_calls(self) -> tuple[InvalidToolCall, ...]:
        """What was meant as a call and cannot be read as one."""
        return tuple(self._calls.invalid) if self._calls else ()

    def feed(self, text: str) -> list[Piece]:
        """Add what the model wrote next; return what is certain by now."""
        self._held += text
        return self._keep(self._read())

    def finish(self) -> list[Piece]:
        """Say that the answer has ended; return what was held back."""
        if self._finished:
            return []
        self._finished = True
        held, self._held = self._held, ""
        last: list[Piece] = []
        if self._read == self._read_thinking:
            last = [ReasoningDelta(held.rstrip())] if held.strip() else []
        elif held and (self._read != self._read_gap or held.strip()):
            last = self._feed_calls(held)
        if self._calls is not None:
            last += self._calls.finish()
        return self._keep(last)

    def _read_start(self) -> list[Piece]:
        """Decide whether the answer begins with thinking."""
        assert self._tags is not None
        begin, seen = self._tags.begin, self._held.lstrip()
        if len(seen) < len(begin) and begin.startswith(seen):
            return []
        if not seen.startswith(begin):
            self._read = self._read_answer
            return self._read()
        self._held = seen[len(begin) :]
        self._read = self._read_thinking
        return self._read()

    def _read_thinking(self) -> list[Piece]:
        assert self._tags is not None
        end = self._tags.end
        if not self.reasoning:
            self._held = self._held.lstrip()
        thought, found, rest = self._held.partition(end)
        if found:
            self._held, self._read = rest, self._read_gap
            thought = thought.rstrip()
            return [*([ReasoningDelta(thought)] if thought else []), *self._read()]
        # White space at the end may be the gap before the tag: it is not part of the thought.
        keep = overlap(self._held, end)
        cut = len(self._held[: len(self._held) - keep].rstrip())
        thought, self._held = self._held[:cut], self._held[cut:]
        return [ReasoningDelta(thought)] if thought else []

    def _read_gap(self) -> list[Piece]:
        """Skip the blank lines between thinking and answer."""
        self._held = self._held.lstrip()
        if not self._held:
            return []
        self._read = self._read_answer
        return self._read()

    def _read_answer(self) -> list[Piece]:
        text, self._held = self._held, ""
        return self._feed_calls(text)

    def _feed_calls(self, text: str) -> list[Piece]:
        if not text:
            return []
        return [text] if self._calls is None else list(self._calls.feed(text))

    def _keep(self, pieces: list[Piece]) -> list[Piece]:
        for piece in pieces:
            if isinstance(piece, str):
                self.text += piece
            elif isinstance(piece, ReasoningDelta):
                self.reasoning += piece.text
        return pieces
