"""Bugs in what decides and returns: conditions, results, defaults and the ends of loops."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ttt_core.sandbox.tasks.bug_edits import Mutation
from ttt_core.sandbox.tasks.bug_operators import INVERTED, MOST
from ttt_core.sandbox.tasks.bug_source import Source, Span, span_of


def _conditions(node: ast.AST) -> list[ast.expr]:
    """Return the conditions that `node` decides by."""
    if isinstance(node, (ast.If, ast.While, ast.IfExp)):
        return [node.test]
    return node.ifs if isinstance(node, ast.comprehension) else []


def inverted_condition(node: ast.AST, source: Source) -> Iterator[Mutation]:
    """`not` put in front of a condition, or taken away."""
    for test in _conditions(node):
        span = span_of(test)
        if span is None:
            continue
        if isinstance(test, (ast.Name, ast.Attribute, ast.Call, ast.Subscript)):
            place = Span(span.line, span.start, span.start)
            yield Mutation("inverted", *place, "not ", INVERTED)
        elif source.text(span).startswith("not ") and isinstance(test, ast.UnaryOp):
            # Not where parentheses would stay behind, for no reason that a reader could see.
            place = Span(span.line, span.start, test.operand.col_offset)
            if source.text(place) == "not ":
                yield Mutation("inverted", *place, "", INVERTED)


def and_or(node: ast.AST, source: Source) -> Iterator[Mutation]:
    """`and` for `or` in a condition; elsewhere they choose values, which is another matter."""
    for test in _conditions(node):
        for inner in _joined(test):
            span = source.between(*inner.values) if len(inner.values) == 2 else None
            if span is None:
                continue
            new, effect = (
                ("or", "One of two conditions is enough where both are needed.")
                if isinstance(inner.op, ast.And)
                else ("and", "Two conditions are both needed where one should be enough.")
            )
            yield Mutation("and-or", *span, new, effect)


def _joined(test: ast.expr) -> Iterator[ast.BoolOp]:
    """Yield where conditions are joined in a condition."""
    if isinstance(test, ast.BoolOp):
        yield test
        for value in test.values:
            yield from _joined(value)
    elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        yield from _joined(test.operand)


def return_value(node: ast.AST, source: Source) -> Iterator[Mutation]:
    """Another truth value or number returned."""
    span = span_of(node.value) if isinstance(node, ast.Return) and node.value else None
    if span is None:
        return
    old = source.text(span)
    new = {"True": "False", "False": "True", "0": "1", "1": "0", "-1": "0"}.get(old)
    if new:
        effect = f"In one case {new} is returned where it should be {old}."
        yield Mutation("return-value", *span, new, effect)


def wrong_default(node: ast.AST, source: Source) -> Iterator[Mutation]:
    """Another truth value or number as an argument's default."""
    if not isinstance(node, ast.arguments):
        return
    positional = [*node.posonlyargs, *node.args]
    given = [
        *zip(positional[len(positional) - len(node.defaults) :], node.defaults, strict=True),
        *zip(node.kwonlyargs, node.kw_defaults, strict=True),
    ]
    for argument, default in given:
        span = span_of(default) if isinstance(default, ast.Constant) else None
        if span is None:
            continue
        old = source.text(span)
        new = {"True": "False", "False": "True", "1": "0"}.get(old)
        if new is None and old.isdecimal() and int(old) < MOST:
            new = str(int(old) + 1)
        if new:
            effect = f"The argument `{argument.arg}` has a wrong default."
            yield Mutation("default", *span, new, effect)


def break_continue(node: ast.AST, source: Source) -> Iterator[Mutation]:
    """`break` for `continue`."""
    span = span_of(node) if isinstance(node, (ast.Break, ast.Continue)) else None
    if span is None:
        return
    new, effect = (
        ("continue", "A loop goes on with its next round where it should end.")
        if isinstance(node, ast.Break)
        else ("break", "A loop ends where it should go on with its next round.")
    )
    yield Mutation("break-continue", *span, new, effect)
