"""A call while it is being read: from the first piece of it to a call that can be made, or not."""

from __future__ import annotations

from collections.abc import Iterator

from ttt_core.tools.calls import NAME, InvalidToolCall, ToolCall, ToolCallDelta, new_call_id
from ttt_core.tools.reader import Event, Source
from ttt_core.tools.scanning import Malformed, parse_object


class Draft:
    """Collects one call's name and arguments, and hands on pieces as soon as the name is known.

    Attributes:
        name: As far as it is known.
        arguments: Text of the arguments so far; None: none were met.
        complete: Whether the arguments were read to their end.
    """

    def __init__(self, source: Source, *, tentative: bool = False) -> None:
        self.name: str | None = None
        self.arguments: str | None = None
        self.complete = False
        self._source = source
        self._start = source.at
        self._id = new_call_id()
        self._index: int | None = None
        self._sent = 0
        self._tentative = tentative

    @property
    def begun(self) -> bool:
        """Whether pieces of it were handed on: what is text from now on, is text of a call."""
        return self._index is not None

    def set_name(self, name: object) -> Iterator[Event]:
        """Learn the name.

        Raises:
            Malformed: No tool can have it, or none has it and the text may be no call at all.
        """
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise Malformed("what stands for the tool's name is none")
        if self._tentative:
            self._source.check_offered(name)
        self.name = name
        yield from self._hand_on()

    def add(self, text: str) -> Iterator[Event]:
        """Learn more of the arguments."""
        self.arguments = (self.arguments or "") + text
        yield from self._hand_on()

    def close(self) -> Iterator[Event]:
        """End the call where its text ends."""
        try:
            if self.name is None:
                raise Malformed("the call has no name")
            if not (self.arguments or "").strip():
                yield from self.add("{}")
            self._source.check_offered(self.name)
            yield ToolCall(self._id, self.name, parse_object(self.arguments or ""))
        except Malformed as error:
            yield from self.fail(str(error))

    def fail(self, error: str, lost: str = "") -> Iterator[Event]:
        """End a call that cannot be made; `lost` is what was read in search of its end."""
        if self.name is None or self.arguments is None:
            self.arguments = self._source.text[self._start : self._source.at]
        else:
            self.arguments += lost
        self._tentative = False
        yield from self._hand_on(nameless=True)
        yield InvalidToolCall(self._id, self.name, self.arguments, error)

    def _hand_on(self, *, nameless: bool = False) -> Iterator[Event]:
        if self.name is None and not nameless:
            return
        if self._tentative and self.arguments is None:
            return
        new = (self.arguments or "")[self._sent :]
        self._sent += len(new)
        if self._index is not None:
            if new:  # An event without text would be taken for WAIT.
                yield ToolCallDelta(self._index, arguments=new)
            return
        self._index, self._source.calls = self._source.calls, self._source.calls + 1
        yield ToolCallDelta(self._index, self._id, self.name, new)
