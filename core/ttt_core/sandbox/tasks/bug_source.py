"""Looking at a function's tree and its text at once: what is code, and where operators stand."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

_OPERATOR = re.compile(
    r"[\s)]*(is\s+not|not\s+in|is|in|and|or|[<>]=?|[!=]=|[-+]=?)[\s(]*", re.ASCII
)


class Span(NamedTuple):
    """A piece of one line: its number from 1, and columns from 0."""

    line: int
    start: int
    end: int


@dataclass(frozen=True)
class Source:
    """The lines of a module (ASCII, so that the tree's byte offsets are columns)."""

    lines: Sequence[str]

    def text(self, span: Span) -> str:
        """Return what stands there."""
        return self.lines[span.line - 1][span.start : span.end]

    def between(self, left: ast.expr, right: ast.expr) -> Span | None:
        """Return the place of the operator between two operands, None if lines break there."""
        assert left.end_lineno is not None
        assert left.end_col_offset is not None
        if left.end_lineno != right.lineno:
            return None
        gap = Span(right.lineno, left.end_col_offset, right.col_offset)
        found = _OPERATOR.fullmatch(self.text(gap))
        if found is None:
            return None
        return Span(right.lineno, gap.start + found.start(1), gap.start + found.end(1))


def span_of(node: ast.expr | ast.stmt) -> Span | None:
    """Return the place of a node, None if it goes over several lines."""
    if node.end_lineno != node.lineno or node.end_col_offset is None:
        return None
    return Span(node.lineno, node.col_offset, node.end_col_offset)


def code_nodes(node: ast.AST, *, same_scope: bool = False) -> list[ast.AST]:
    """List what a function does: no annotations, decorators, assertions, errors or f-strings.

    What an assertion checks or an error says is not what the function is for; and positions inside
    f-strings are wrong before Python 3.12.

    Args:
        node: Where to begin; not listed.
        same_scope: Leave out what has variables of its own: functions and comprehensions.
    """
    skipped = (*_SKIPPED, *_SCOPES) if same_scope else _SKIPPED
    found, waiting = list[ast.AST](), [node]
    while waiting:
        parent = waiting.pop()
        for name in parent._fields:
            value = None if name in _NOT_RUN else getattr(parent, name, None)
            for child in value if isinstance(value, list) else (value,):
                if isinstance(child, ast.AST) and not isinstance(child, skipped):
                    found.append(child)
                    waiting.append(child)
    return found


_NOT_RUN = frozenset(["annotation", "ctx", "decorator_list", "op", "returns", "type_params"])
_SKIPPED = (ast.Assert, ast.Raise, ast.JoinedStr)
_SCOPES = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Lambda,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)
