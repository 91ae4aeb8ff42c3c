"""Bugs in expressions: a wrong operator, a number off by one, the wrong variable."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from itertools import pairwise

from ttt_core.sandbox.tasks.bug_edits import Mutation
from ttt_core.sandbox.tasks.bug_source import Source, Span, code_nodes, span_of

_BOUNDARIES = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_OPPOSITES = {
    "==": "!=",
    "!=": "==",
    "is": "is not",
    "is not": "is",
    "in": "not in",
    "not in": "in",
}
MOST = 20
"""Of larger numbers most are round or well known, and one more shows."""

INVERTED = "A check is the wrong way round: it holds exactly where it should not."


def boundary(node: ast.AST, source: Source) -> Iterator[Mutation]:
    """`<` for `<=` and the like: equal values fall on the wrong side."""
    if not isinstance(node, ast.Compare):
        return
    operands = [node.left, *node.comparators]
    for left, right in pairwise(operands):
        span = source.between(left, right)
        old = source.text(span) if span else ""
        if span and old in _BOUNDARIES and not _asks_version(node):
            effect = (
                "A comparison also holds when both sides are equal, which it should not."
                if len(old) == 1
                else "A comparison does not hold when both sides are equal, though it should."
            )
            yield Mutation("boundary", *span, _BOUNDARIES[old], effect)


def keeps_extreme(node: ast.AST) -> ast.expr | None:
    """Return the condition of `if a > b: b = a`: there equal values change nothing."""
    if not isinstance(node, ast.If) or node.orelse or len(node.body) > 1:
        return None
    test, action = node.test, node.body[0]
    if not isinstance(test, ast.Compare) or not isinstance(action, ast.Assign):
        return None
    compared = {ast.unparse(each) for each in (test.left, *test.comparators)}
    assigned = {ast.unparse(each) for each in (*action.targets, action.value)}
    return test if compared == assigned else None


def inverted_comparison(node: ast.AST, source: Source) -> Iterator[Mutation]:
    """`==` for `!=`, `is` for `is not`, `in` for `not in`."""
    if not isinstance(node, ast.Compare) or len(node.ops) > 1:
        return
    span = source.between(node.left, node.comparators[0])
    old = " ".join(source.text(span).split()) if span else ""
    if span and old in _OPPOSITES and not _asks_version(node):
        yield Mutation("inverted", *span, _OPPOSITES[old], INVERTED)


def _asks_version(node: ast.Compare) -> bool:
    """Tell whether the comparison asks which Python runs: there the answer is known."""
    return any(
        isinstance(inner, ast.Attribute) and inner.attr in ("version_info", "hexversion")
        for inner in ast.walk(node)
    )


def plus_minus(node: ast.AST, source: Source) -> Iterator[Mutation]:
    """`+` for `-`, where a number or a length is added or subtracted (strings can't be)."""
    if not isinstance(node, (ast.BinOp, ast.AugAssign)):
        return
    left, right = (
        (node.left, node.right) if isinstance(node, ast.BinOp) else (node.target, node.value)
    )
    if not isinstance(node.op, (ast.Add, ast.Sub)) or not (_counts(left) or _counts(right)):
        return
    span = source.between(left, right)
    if span is None:
        return
    old = source.text(span)
    done, due = ("subtracted", "added") if "+" in old else ("added", "subtracted")
    new = old.translate(str.maketrans("+-", "-+"))
    effect = f"An amount is {done} where it should be {due}."
    yield Mutation("plus-minus", *span, new, effect)


def _counts(node: ast.expr) -> bool:
    """Tell whether an expression is plainly a number."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in ("len", "int", "ord", "abs")
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def off_by_one(node: ast.AST, source: Source) -> Iterator[Mutation]:
    """An index, a bound, a step or a count that is one too large or too small."""
    for number, effect, least in _numbers(node):
        span = span_of(number)
        if span is None or source.text(span) != str(number.value):
            continue
        assert isinstance(number.value, int)
        if source.text(Span(span.line, span.start - 1, span.start)) == "-":
            least = max(1, least)  # Nobody writes -0.
        for new in (number.value + 1, number.value - 1):
            if least <= new <= MOST:
                yield Mutation("off-by-one", *span, str(new), effect)


def _numbers(node: ast.AST) -> Iterator[tuple[ast.Constant, str, int]]:
    """Yield numbers in `node`, what goes wrong when they do, and the smallest plausible ones."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        effect = "A number that is added or subtracted is off by one."
        yield from ((number, effect, 1) for number in _integers(node.left, node.right))
    elif isinstance(node, ast.Subscript):
        effect = "An item is taken from the position next to the right one."
        yield from ((number, effect, 0) for number in _integers(node.slice))
    elif isinstance(node, ast.Slice):
        effect = "A part of a sequence begins or ends one position off."
        yield from ((number, effect, 1) for number in _integers(node.lower, node.upper))
    elif isinstance(node, ast.Compare):
        effect = "A value is compared with a number that is off by one."
        yield from ((number, effect, 0) for number in _integers(*node.comparators))
    elif is_range(node):
        assert isinstance(node, ast.Call)
        effect = "A loop over numbers has a bound or step that is off by one."
        yield from ((number, effect, 1) for number in _integers(*node.args))


def _integers(*nodes: ast.expr | None) -> Iterator[ast.Constant]:
    """Yield those of the nodes that are integers, without their signs."""
    for node in nodes:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            node = node.operand
        if isinstance(node, ast.Constant) and type(node.value) is int:
            yield node


def is_range(node: ast.AST) -> bool:
    """Tell whether it is a call of `range`."""
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range"
    )


def short_range(node: ast.AST, source: Source) -> Iterator[Mutation]:
    """`range(n - 1)` for `range(n)`."""
    if not is_range(node):
        return
    assert isinstance(node, ast.Call)
    for stop in node.args[:1] if len(node.args) == 1 else node.args[1:2]:
        span = span_of(stop)
        if span and isinstance(stop, (ast.Name, ast.Attribute, ast.Call)):
            effect = "A loop over numbers stops one too early."
            place = Span(span.line, span.end, span.end)
            yield Mutation("off-by-one", *place, " - 1", effect)


def min_max(node: ast.AST, source: Source) -> Iterator[Mutation]:
    """`min` for `max`."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
        return
    new = {"min": "max", "max": "min"}.get(node.func.id)
    span = span_of(node.func)
    if new and span:
        done, due = ("largest", "smallest") if new == "max" else ("smallest", "largest")
        effect = f"The {done} of several values is taken where the {due} is needed."
        yield Mutation("min-max", *span, new, effect)


def wrong_variable(
    function: ast.FunctionDef | ast.AsyncFunctionDef, source: Source
) -> Iterator[Mutation]:
    """Another variable of the same function, one that has a value by then."""
    known = _known_from(function)
    for parent in code_nodes(function, same_scope=True):
        operands = [name for name in _operands(parent) if name.id in known]
        if not operands:
            continue
        near = {node.id for node in ast.walk(parent) if isinstance(node, ast.Name)}
        for name in operands:
            others = [o for o, line in known.items() if line < name.lineno and o not in near]
            span = span_of(name)
            if not others or span is None:
                continue
            # One of them, without randomness: which bugs a module can have must not be drawn.
            new = others[(name.lineno + name.col_offset) % len(others)]
            effect = f"The value of `{new}` is used where that of `{name.id}` is needed."
            yield Mutation("wrong-variable", *span, new, effect)


def _known_from(function: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, int]:
    """Return from which line on variables have a value, whichever branches are taken."""
    arguments = function.args
    given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    known = {each.arg: 0 for each in given if each.arg not in ("self", "cls")}
    for statement in function.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        for target in targets:
            for node in ast.walk(target):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    known.setdefault(node.id, statement.end_lineno or statement.lineno)
    return known


def _operands(node: ast.AST) -> list[ast.Name]:
    """Return the variables that are compared, reckoned with, passed on or used as an index."""
    found: Sequence[ast.expr | None] = ()
    if isinstance(node, ast.Compare):
        found = [node.left, *node.comparators]
    elif isinstance(node, ast.BinOp):
        found = [node.left, node.right]
    elif isinstance(node, ast.Call):
        found = node.args
    elif isinstance(node, ast.Subscript):
        found = [node.slice]
    elif isinstance(node, ast.Slice):
        found = [node.lower, node.upper]
    return [each for each in found if isinstance(each, ast.Name)]
