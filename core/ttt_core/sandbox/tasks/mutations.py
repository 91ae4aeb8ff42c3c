"""Single-line logic bugs that can be put into a function: where, how, and what goes wrong then.

Each is an edit of a few characters at a place that the syntax tree gives, as in mutation testing
(DeMillo, Lipton and Sayward 1978). An edit may happen not to matter for any input: what can be
said cheaply is that the compiled code is another one (`changes_code`).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence

from ttt_core.sandbox.tasks.bug_edits import Mutation, changes_code, keeps_width
from ttt_core.sandbox.tasks.bug_operators import (
    boundary,
    inverted_comparison,
    keeps_extreme,
    min_max,
    off_by_one,
    plus_minus,
    short_range,
    wrong_variable,
)
from ttt_core.sandbox.tasks.bug_source import Source, code_nodes
from ttt_core.sandbox.tasks.bug_statements import (
    and_or,
    break_continue,
    inverted_condition,
    return_value,
    wrong_default,
)

KINDS = (
    "and-or",
    "boundary",
    "break-continue",
    "default",
    "inverted",
    "min-max",
    "off-by-one",
    "plus-minus",
    "return-value",
    "wrong-variable",
)
"""The kinds of bugs there are, in alphabetical order."""

_Finder = Callable[[ast.AST, Source], Iterator[Mutation]]
_CONDITIONS: tuple[_Finder, ...] = (and_or, inverted_condition)
_FINDERS: Mapping[type[ast.AST], tuple[_Finder, ...]] = {
    ast.AugAssign: (plus_minus,),
    ast.BinOp: (off_by_one, plus_minus),
    ast.Break: (break_continue,),
    ast.Call: (min_max, off_by_one, short_range),
    ast.Compare: (boundary, inverted_comparison, off_by_one),
    ast.Continue: (break_continue,),
    ast.If: _CONDITIONS,
    ast.IfExp: _CONDITIONS,
    ast.Return: (return_value,),
    ast.Slice: (off_by_one,),
    ast.Subscript: (off_by_one,),
    ast.While: _CONDITIONS,
    ast.arguments: (wrong_default,),
    ast.comprehension: _CONDITIONS,
}
"""What to look for in which parts of a tree; in most there is nothing."""


def find_mutations(
    function: ast.FunctionDef | ast.AsyncFunctionDef, lines: Sequence[str]
) -> list[Mutation]:
    """Return the bugs that could be put into a function, in the order of their places.

    Args:
        function: Part of the tree of a module.
        lines: All lines of that module, which is ASCII.
    """
    source, nodes = Source(lines), code_nodes(function)
    harmless = {keeps_extreme(node) for node in nodes}
    found = [
        mutation
        for node in nodes
        if node not in harmless
        for finder in _FINDERS.get(type(node), ())
        for mutation in finder(node, source)
    ]
    found += wrong_variable(function, source)
    found.sort(key=lambda each: (each.line, each.start, each.kind, each.replacement))
    return [mutation for mutation in found if keeps_width(mutation, lines)]


__all__ = ["KINDS", "Mutation", "changes_code", "find_mutations"]
