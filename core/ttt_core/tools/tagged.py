"""Calls as JSON objects behind a tag: each in tags of its own, or all of them in one list."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

from ttt_core.tools.base import ToolFormat
from ttt_core.tools.calls import Tool, ToolCall
from ttt_core.tools.draft import Draft
from ttt_core.tools.envelope import call_rules, envelope, envelope_rule, quote, read_call
from ttt_core.tools.reader import Source, Steps, accept, peek, skip_space, text_until


class TaggedFormat(ToolFormat):
    """Base of the formats with tags; reading takes single objects and lists everywhere.

    Attributes:
        opening: The tag that calls begin with.
        closing: The tag that they end with; may be empty.
        gap: What stands between tags and JSON.
    """

    opening: str
    closing: str = ""
    gap: str = ""

    def rules(
        self,
        tools: Sequence[Tool],
        *,
        literal: Callable[[str], str],
        schema: Callable[[Tool], str],
        parallel: bool,
    ) -> str:
        """See `ToolFormat`."""
        closing = literal(self.closing) if self.closing else ""
        body = self._body(literal(self.opening), closing, parallel=parallel)
        head = f"calls: {literal(self.opening)} calls_body\ncalls_body: {body}\n"
        return head + call_rules(tools, schema, self._call) + "\n"

    def parse(self, source: Source) -> Steps[None]:
        """See `ToolFormat`."""
        while trigger := (yield from text_until(source, self.triggers)):
            if trigger.endswith("["):
                source.at -= 1
            yield from self._read_calls(source)

    def _call(self, tool: Tool, arguments: str) -> str:
        return envelope_rule(tool, arguments)

    @abstractmethod
    def _body(self, opening: str, closing: str, *, parallel: bool) -> str:
        """Write Lark for what stands behind the first opening tag, rule `call` for a call."""

    def _read_calls(self, source: Source) -> Steps[None]:
        yield from skip_space(source)
        closing = (self.closing,) if self.closing else ()
        if (yield from accept(source, "[")):
            yield from skip_space(source)
        more = (yield from peek(source)) != "]"
        while more:
            yield from read_call(source, Draft(source), (*closing, *self.triggers))
            yield from skip_space(source)
            if (yield from accept(source, ",")):
                yield from skip_space(source)
            more = (yield from peek(source)) == "{"
        yield from accept(source, "]")
        if closing:
            yield from skip_space(source)
            yield from accept(source, *closing)


class PairFormat(TaggedFormat):
    """Every call in tags of its own."""

    def render(self, calls: Sequence[ToolCall]) -> str:
        """See `ToolFormat`."""
        inside = (f"{self.gap}{envelope(call)}{self.gap}" for call in calls)
        return "\n".join(f"{self.opening}{text}{self.closing}" for text in inside)

    def _body(self, opening: str, closing: str, *, parallel: bool) -> str:
        one = f"{quote(self.gap)} call {quote(self.gap)} {closing}"
        return one + (f' ("\\n" {opening} {one})*' if parallel else "")


class ListFormat(TaggedFormat):
    """All calls in one JSON list."""

    def render(self, calls: Sequence[ToolCall]) -> str:
        """See `ToolFormat`."""
        inside = ", ".join(map(self._write, calls))
        return f"{self.opening}{self.gap}[{inside}]{self.closing}"

    def _write(self, call: ToolCall) -> str:
        return envelope(call)

    def _body(self, opening: str, closing: str, *, parallel: bool) -> str:
        more = '(", " call)*' if parallel else ""
        return f'{quote(self.gap + "[")} call {more} "]" {closing}'
