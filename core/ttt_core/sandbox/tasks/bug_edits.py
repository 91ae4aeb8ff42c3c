"""An edit of a few characters that makes a bug, and whether it changes what the code does.

The source text is edited, not printed anew from its tree: the style stays the author's, so that
only the meaning can give the bug away.
"""

from __future__ import annotations

import dis
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import CodeType

from ttt_core.errors import ConfigError

_WIDTH = 79
"""The standard library's line length; an edit that crosses it would stand out."""


@dataclass(frozen=True)
class Mutation:
    """A single-line bug.

    Attributes:
        kind: Such as `boundary`; see `ttt_core.sandbox.tasks.mutations`.
        line: The only line that changes, counted from 1.
        start: Where what is replaced begins, in characters from the line's beginning.
        end: Where it ends; equal to `start` where something is only put in.
        replacement: What stands there instead.
        effect: What goes wrong, in one sentence.
    """

    kind: str
    line: int
    start: int
    end: int
    replacement: str = field(repr=False)
    effect: str = field(repr=False)

    def apply(self, source: str) -> str:
        """Put the bug into the module that it was found in.

        Raises:
            ConfigError: The module is another one: it has no such place.
        """
        lines = source.split("\n")
        if self.line > len(lines) or self.end > len(lines[self.line - 1]):
            raise ConfigError(f"expected a module with column {self.end} in line {self.line}")
        lines[self.line - 1] = self.apply_to_line(lines[self.line - 1])
        return "\n".join(lines)

    def apply_to_line(self, line: str) -> str:
        """Put the bug into its line."""
        return line[: self.start] + self.replacement + line[self.end :]


def keeps_width(mutation: Mutation, lines: Sequence[str]) -> bool:
    """Tell whether the line stays within the usual width, or was too long already."""
    line = lines[mutation.line - 1]
    return len(mutation.apply_to_line(line)) <= max(_WIDTH, len(line))


def changes_code(before: str, after: str) -> bool:
    """Tell whether two modules both compile, and to different instructions or constants.

    Nothing is run. Different instructions may still do the same; what is caught here is what runs
    the same, such as code that the compiler drops.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Old code has old escapes in its strings.
            return _instructions(before) != _instructions(after)
    except (SyntaxError, ValueError):
        return False


def _instructions(code: str | CodeType) -> list[object]:
    """Return what code does, without line numbers."""
    return [(each.opname, _essence(each.argval)) for each in dis.Bytecode(code)]


def _essence(constant: object) -> object:
    """Return what an instruction works on, so that 1 is not True and functions are what they do."""
    if isinstance(constant, CodeType):
        return _instructions(constant)
    if isinstance(constant, tuple):
        return [_essence(each) for each in constant]
    if isinstance(constant, frozenset):
        return sorted(repr(each) for each in constant)
    return type(constant), repr(constant)
