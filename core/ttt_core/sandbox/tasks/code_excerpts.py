"""Documents made of code: a window that grows around one function, then further modules.

Every line carries its file and number, `heapq.py:L23| code`, so that a place can be read off. The
lines of a shorter document are all in the longer one, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from ttt_core.sandbox.tasks.bug_answers import Place
from ttt_core.sandbox.tasks.code_modules import Function, Module


@dataclass(frozen=True)
class Excerpt:
    """Consecutive lines of a module, from `first` to `last`, counted from 1."""

    module: Module
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def numbered(self) -> list[str]:
        """Return the lines as they stand in the document."""
        shown = self.module.lines[self.first - 1 : self.last]
        return [
            number_line(Place(self.module.path, number), code)
            for number, code in enumerate(shown, self.first)
        ]

    def lines_that_can_err(self) -> set[int]:
        """Return the lines into which some bug could be put."""
        return {
            mutation.line
            for function in self.module.functions
            for mutation in function.mutations
            if self.first <= mutation.line <= self.last
        }


def number_line(place: Place, code: str) -> str:
    """Write a line of the document."""
    return f"{place}| {code}".rstrip()


def window(module: Module, function: Function, length: int, share: float) -> Excerpt:
    """Cut `length` lines around a function, or take the whole module if it has no more.

    Args:
        module: Where the function is.
        function: It has no more than `length` lines.
        length: How many lines.
        share: How much of the rest stands in front of the function, from 0 to 1, as far as the
            module goes. With the same share, longer windows hold the shorter ones.
    """
    total = len(module.lines)
    rest = length - (function.last - function.first + 1)
    first = max(1, min(function.first - int(share * rest), total - length + 1))
    return Excerpt(module, first, min(total, first + length - 1))


def surround(
    middle: Excerpt, others: Iterable[Module], length: int, rng: Random
) -> Sequence[Excerpt]:
    """Put modules before and after an excerpt until there are `length` lines; the last is cut.

    Fewer lines come out where the modules have no more.
    """
    before: list[Excerpt] = []
    after: list[Excerpt] = []
    missing = length - len(middle)
    for module in others:
        if missing <= 0:
            break
        excerpt = Excerpt(module, 1, min(missing, len(module.lines)))
        (before if rng.random() < 0.5 else after).append(excerpt)
        missing -= len(excerpt)
    return [*reversed(before), middle, *after]
