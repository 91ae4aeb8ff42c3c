"""What a family of models agrees on: how a call is written, read, explained and answered."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence

from ttt_core.tools.calls import Tool, ToolCall
from ttt_core.tools.reader import CallReader, Source, Steps

_EXAMPLE = ToolCall("", "TOOL_NAME", {"ARGUMENT_NAME": "VALUE"})


class ToolFormat(ABC):
    """One way of writing tool calls. Stateless: one object serves every answer.

    Attributes:
        name: For messages and tests.
        triggers: Text at which calls begin; the first is the one that the grammar writes.
        control_tokens: Tags that decoding must keep visible although the tokenizer may call
            them special.
        only_at_start: Whether a trigger means a call only where the answer begins with it.
    """

    name: str
    triggers: tuple[str, ...]
    control_tokens: frozenset[str] = frozenset()
    only_at_start: bool = False

    @abstractmethod
    def rules(
        self,
        tools: Sequence[Tool],
        *,
        literal: Callable[[str], str],
        schema: Callable[[Tool], str],
        parallel: bool,
    ) -> str:
        """Write Lark rules for `calls`: one call, or one and more if `parallel`.

        Two rules are for others to use: `calls`, everything from the first trigger to the end of
        the last closing tag, and `calls_body`, the same without that first trigger.

        Args:
            tools: At least one.
            literal: Lark for a piece of text that may be one special token of the tokenizer.
            schema: Lark (`%json {...}`) for values of `tool.parameters`.
            parallel: Whether several calls may follow each other.
        """

    def rules_beside_json(
        self,
        tools: Sequence[Tool],
        *,
        literal: Callable[[str], str],
        schema: Callable[[Tool], str],
        parallel: bool,
    ) -> str:
        """Write `rules` so that an answer may also be JSON of another schema, `%json {...}`."""
        return self.rules(tools, literal=literal, schema=schema, parallel=parallel)

    @property
    def call_pattern(self) -> str:
        """Regular expression (Rust's, `.` without line breaks) of all texts that hold a call.

        Free text must not match it: what the reader would take for a call, is one by the grammar.
        """
        return rf"(?s:.*)({'|'.join(map(re.escape, self.triggers))})(?s:.*)"

    def reader(self, *, names: Collection[str] | None = None, json: bool = False) -> CallReader:
        """Start reading one answer; the reader never raises, whatever the answer holds.

        Args:
            names: The tools that may be called; a call of another is invalid. None: any.
            json: Whether the answer is JSON where it does not begin with a call: a trigger inside
                a string of it means nothing.
        """
        return CallReader(self.parse, names=names, json=json)

    @abstractmethod
    def parse(self, source: Source) -> Steps[None]:
        """Read one answer from front to back, see `ttt_core.tools.reader`."""

    @abstractmethod
    def render(self, calls: Sequence[ToolCall]) -> str:
        """Write calls as the model would have written them."""

    def example(self) -> str:
        """Show the shape of one call, with words in capitals where names and values go."""
        return self.render([_EXAMPLE])

    def instructions(
        self, tools: Sequence[Tool], *, parallel: bool = True, choice: str = "auto"
    ) -> str:
        """Tell a model its tools and how to call them, for prompts whose template does not.

        Args:
            tools: All of them, whatever the choice.
            parallel: Whether several calls may be made.
            choice: `tool_choice` as in `ttt_core.tools.grammar.compose`; what is told is what
                that enforces.
        """
        listed = "\n".join(json.dumps(tool.as_openai(), ensure_ascii=False) for tool in tools)
        return (
            f"You can call these tools, one JSON description per line:\n{listed}\n\n"
            f"To call a tool, write exactly this, filled in:\n{self.example()}\n"
            f"End your answer after the call; the result is then given to you. "
            f"{_what_may_be_called(choice, parallel)}"
        )

    def result(self, name: str, content: str) -> str:
        """Show a tool's result where the chat template knows no role `tool`."""
        return f"Result of the tool {name}:\n{content}"


def _what_may_be_called(choice: str, parallel: bool) -> str:
    """Say what `tool_choice` enforces."""
    if choice == "none":
        return "Do not call a tool now: answer without one."
    if choice == "auto":
        several = "You may write several calls." if parallel else "Write one call at most."
        return f"{several} If no tool is needed, answer without calling one."
    if choice == "required":
        several = "one or several calls" if parallel else "one call"
        return f"You have to call a tool now: your answer is {several} and nothing else."
    return (
        f"You have to call the tool {choice} now: your answer is one call of it and nothing else."
    )
