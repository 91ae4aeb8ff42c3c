"""Bug localisation in real code: one single-line logic bug somewhere in a library.

After the task of the qTTT paper (Bansal et al., arXiv 2512.13898), which injects bugs into the
OLMo repository and asks for `file:line` under a description in words. Here the code is Python's
standard library as found on the machine, and bugs are made by rule (`mutations`), all kinds equally
often. The question says what goes wrong and in which function: without the function's name most
descriptions fit hundreds of lines, and a bug report has it. It names neither file nor line, and no
other module in the document has a function of that name.

Models have read this library in training. Knowing it by heart helps every arm alike, but figures
of this task are not those of unseen code; give a folder of your own for that.

Chance: who knows which lines could hold such a bug, but not what they say, names one of
them: 1 / their number. It falls as the document grows; results show it beside the score.
Who finds the function and a line in it that could have a bug of that kind, without seeing that it
has, is right far more often. The group `alike` says among how many lines that choice is: only from
two on does the answer need more than finding the place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import NamedTuple

from ttt_core.errors import ConfigError, DocumentError
from ttt_core.examples import Example, Question, Split
from ttt_core.sandbox.tasks.bug_answers import Place, read_place
from ttt_core.sandbox.tasks.code_excerpts import Excerpt, number_line, surround, window
from ttt_core.sandbox.tasks.code_modules import Function, Library, Module, standard_library
from ttt_core.sandbox.tasks.lengths import check_length
from ttt_core.sandbox.tasks.mutations import KINDS, Mutation, changes_code
from ttt_core.sandbox.tasks.seeds import stream

_SHORTEST, _LONGEST = 8, 60
"""Lines of a function that gets a bug: enough to hide it, few enough for short documents."""

_TUNE_SHARE = 4
"""One module in so many is for `tune`; no document of `score` shows any of it."""


class _Bug(NamedTuple):
    """Where the bug is, and in which module, already changed."""

    module: Module
    function: Function
    mutation: Mutation

    @property
    def place(self) -> Place:
        return Place(self.module.path, self.mutation.line)

    @property
    def needle(self) -> str:
        return number_line(self.place, self.module.lines[self.mutation.line - 1])

    def lines_alike(self) -> int:
        """Return in how many lines of the function a bug of this kind could be, this one too."""
        kind = self.mutation.kind
        return len({each.line for each in self.function.mutations if each.kind == kind})


class BugLocalization:
    """Find the line with the bug.

    Args:
        root: A folder of Python code; None: the standard library. The group `library` of every
            question says which, as `python-3.11.7` or by the folder's name.
    """

    name = "bugs"
    description = "Find the line of a logic bug in modules of Python's standard library."
    unit = "lines"
    lengths: tuple[int, ...] = (100, 250, 500, 1000, 2500, 5000)
    max_new_tokens = 48

    def __init__(self, root: Path | None = None) -> None:
        self._library = Library(root.resolve().name, root) if root else standard_library()

    def examples(
        self, length: int | None, *, split: Split, seed: int, count: int
    ) -> Iterator[Example]:
        """Yield documents of exactly `length` lines; see `Task`.

        Raises:
            ConfigError: A function might not fit into `length` lines, or the modules of the split
                have fewer.
            DocumentError: There is no module, or none that a bug can be put into.
        """
        length = check_length(length, self.unit, least=_LONGEST)
        for index in range(count):
            yield self._example(length, split, seed, index)

    def score(self, answer: str, question: Question) -> float:
        """Return 1 if the answer names file and line, in whichever of the usual forms."""
        named = read_place(answer)
        right = [read_place(reference) for reference in question.references]
        return float(
            named is not None and any(place and place.is_meant_by(named) for place in right)
        )

    def _example(self, length: int, split: Split, seed: int, index: int) -> Example:
        bug = self._draw_bug(split, stream(self.name, split, seed, index, "needle"))
        excerpts = self._excerpts(bug, length, split, stream(self.name, split, seed, index, "hay"))
        candidates = sum(len(excerpt.lines_that_can_err()) for excerpt in excerpts)
        question = Question(
            id="0",
            text=_ask(bug),
            references=(str(bug.place),),
            chance=1 / candidates,
            needles=(bug.needle,),
            groups={
                "mutation": bug.mutation.kind,
                "alike": _bucket(bug.lines_alike()),
                "library": self._library.name,
            },
        )
        lines = [line for excerpt in excerpts for line in excerpt.numbered()]
        return Example(f"{split}-{seed}-{index}", "\n".join(lines) + "\n", (question,), length)

    def _draw_bug(self, split: Split, rng: Random) -> _Bug:
        """Draw the kind of bug first, so that the rare kinds are not rare here."""
        paths = self._shuffled(split, rng)
        for kind in rng.sample(KINDS, len(KINDS)):
            for path in paths:
                module = self._library.module(path)
                bug = _break(module, kind, rng) if module else None
                if bug:
                    return bug
        raise DocumentError(
            f"expected a function of {_SHORTEST} to {_LONGEST} lines that a bug can be put into "
            f"in {self._library.root} (split {split!r}, {len(paths)} files), found none: give "
            f"another folder"
        )

    def _excerpts(self, bug: _Bug, length: int, split: Split, rng: Random) -> Sequence[Excerpt]:
        """Lay the document out around the bug."""
        middle = window(bug.module, bug.function, length, share=rng.random())
        paths = self._shuffled(split, rng)
        excerpts = surround(middle, self._others(paths, bug), length, rng)
        found = sum(len(excerpt) for excerpt in excerpts)
        if found < length:
            raise ConfigError(
                f"expected at least {length:,} lines of code in {self._library.root} (split "
                f"{split!r}), found {found:,}: ask for shorter documents or give a larger folder"
            )
        return excerpts

    def _others(self, paths: Sequence[str], bug: _Bug) -> Iterator[Module]:
        """Yield modules in which the question cannot mean anything."""
        for path in paths:
            module = self._library.module(path) if path != bug.module.path else None
            if module and all(each.name != bug.function.name for each in module.functions):
                yield module

    def _shuffled(self, split: Split, rng: Random) -> list[str]:
        paths = [path for path in self._library.paths() if _split_of(path) == split]
        return rng.sample(paths, len(paths))


def _split_of(path: str) -> Split:
    """Tell which split shows the file."""
    drawn = hashlib.sha256(path.encode("utf-8")).digest()[0]
    return "tune" if drawn % _TUNE_SHARE == 0 else "score"


def _break(module: Module, kind: str, rng: Random) -> _Bug | None:
    """Put a bug of a kind into a module, None if no function of the right size takes one."""
    names = [function.name for function in module.functions]
    places = [
        (function, mutation)
        for function in module.functions
        if _SHORTEST <= function.last - function.first + 1 <= _LONGEST
        and names.count(function.name) == 1
        for mutation in function.mutations
        if mutation.kind == kind
    ]
    for function, mutation in rng.sample(places, len(places)):
        source = mutation.apply(module.source)
        if changes_code(module.source, source):
            return _Bug(replace(module, source=source), function, mutation)
    return None


def _bucket(count: int) -> str:
    """Name the size of a group's number."""
    return "1" if count == 1 else "2-3" if count <= 3 else "4+"


def _ask(bug: _Bug) -> str:
    """Describe the bug and ask for its place."""
    return (
        f"The function `{bug.function.name}` in this code has a bug, on one line. "
        f"{bug.mutation.effect} Which line is it? Answer with its file and number only, in the "
        f"form in which every line begins, such as `path/file.py:L123`."
    )
