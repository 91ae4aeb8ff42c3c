"""Bugs made by rule: one line changes, the meaning changes with it, and the style does not."""

from __future__ import annotations

import ast
import textwrap
from functools import cache
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttt_core.errors import ConfigError
from ttt_core.sandbox.tasks.code_modules import Module, standard_library
from ttt_core.sandbox.tasks.mutations import KINDS, Mutation, changes_code, find_mutations


def mutate(code: str) -> list[tuple[str, str]]:
    """Return the kind and the changed line of every bug that the function in `code` can have."""
    source = textwrap.dedent(code).strip() + "\n"
    return [
        (mutation.kind, mutation.apply(source).split("\n")[mutation.line - 1].strip())
        for mutation in bugs_of(source)
    ]


def bugs_of(source: str) -> list[Mutation]:
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    return find_mutations(function, source.split("\n"))


@cache
def small_modules() -> list[Module]:
    """Some modules of the library that are not too long, from all over the alphabet."""
    library = standard_library()
    read = (library.module(path) for path in library.paths()[::7])
    small = (module for module in read if module and 50 <= len(module.lines) <= 600)
    return list(islice(small, 30))


@pytest.mark.parametrize("index", range(30))
def test_in_real_code_every_bug_changes_one_line_and_the_tree(index: int) -> None:
    module = small_modules()[index]
    tree = ast.dump(ast.parse(module.source))
    found = [mutation for function in module.functions for mutation in function.mutations]
    for mutation in found[:: 1 + len(found) // 8]:
        bugged = mutation.apply(module.source)
        pairs = zip(module.lines, bugged.removesuffix("\n").split("\n"), strict=True)
        changed = [number for number, (a, b) in enumerate(pairs, 1) if a != b]
        assert changed == [mutation.line]
        assert ast.dump(ast.parse(bugged)) != tree
        assert mutation.kind in KINDS
        assert mutation.effect.endswith(".")


@pytest.mark.parametrize(
    ("code", "kind", "changed"),
    [
        ("def f(n):\n    while n<3: g()", "boundary", ["while n<=3: g()"]),
        ("def f(n):\n    return 0 <= n < g()", "boundary",
         ["return 0 < n < g()", "return 0 <= n <= g()"]),
        ("def f(n):\n    return (n) >= (9)", "boundary", ["return (n) > (9)"]),
        ("def f(n):\n    return n  is  not None", "inverted", ["return n  is None"]),
        ("def f(n):\n    return n in g()", "inverted", ["return n not in g()"]),
        ("def f(n):\n    return n != 's'", "inverted", ["return n == 's'"]),
        ("def f(n):\n    if n.ok: g()", "inverted", ["if not n.ok: g()"]),
        ("def f(n):\n    return 'a' if not n else 'b'", "inverted", ["return 'a' if n else 'b'"]),
        ("def f(a, b):\n    if a and b: g()", "and-or", ["if a or b: g()"]),
        ("def f(a):\n    return [x for x in a if not (x.a or x.b)]", "and-or",
         ["return [x for x in a if not (x.a and x.b)]"]),
        ("def f(a):\n    a += 1", "plus-minus", ["a -= 1"]),
        ("def f(a):\n    return a - len(a)", "plus-minus", ["return a + len(a)"]),
        ("def f(a):\n    return a[0]", "off-by-one", ["return a[1]"]),
        ("def f(a):\n    return a[-1]", "off-by-one", ["return a[-2]"]),  # Nobody writes -0.
        ("def f(a):\n    return a != -1", "off-by-one", ["return a != -2"]),
        ("def f(a):\n    return a[1:-1]", "off-by-one", ["return a[2:-1]", "return a[1:-2]"]),
        ("def f(a):\n    return a > 2", "off-by-one", ["return a > 1", "return a > 3"]),
        ("def f(a):\n    return g(range(a))", "off-by-one", ["return g(range(a - 1))"]),
        ("def f(a):\n    return g(range(1, a, 2))", "off-by-one",
         ["return g(range(2, a, 2))", "return g(range(1, a - 1, 2))", "return g(range(1, a, 1))",
          "return g(range(1, a, 3))"]),
        ("def f(a):\n    return max(a, 7)", "min-max", ["return min(a, 7)"]),
        ("def f():\n    return True", "return-value", ["return False"]),
        ("def f():\n    return -1", "return-value", ["return 0"]),
        ("def f(a, n=8, *, k=False): g()", "default",
         ["def f(a, n=9, *, k=False): g()", "def f(a, n=8, *, k=True): g()"]),
        ("def f(a):\n    for x in a: break", "break-continue", ["for x in a: continue"]),
        ("def f(a, b):\n    return g(a)", "wrong-variable", ["return g(b)"]),
        ("def f(self, a):\n    b = g()\n    return self[a:2]", "wrong-variable",
         ["return self[b:2]"]),
    ],
)  # fmt: skip
def test_each_kind_where_it_applies(code: str, kind: str, changed: list[str]) -> None:
    assert [line for found, line in mutate(code) if found == kind] == changed


@pytest.mark.parametrize(
    "code",
    [
        "def f(a):\n    return a + 'b'",
        "def f(a):\n    assert a == 1",
        "def f(a):\n    raise E(a[0] + 1)",
        "def f(a):\n    return f'{a[0] + 1}'",
        "def f(a: T[1], b: int = None) -> T[0]: g()",
        "def f():\n    if sys.version_info >= v: g()",
        "def f(a):\n    return (a\n            < g())",
        "def f(a, b):\n    x = a and b",
        "def f(a, b):\n    if not (a and g):\n        h()",
        "def f(a):\n    return a[0x0]",
        "def f(a):\n    return a[64]",
        "def f(a):\n    return a(a)",
        "def f(a):\n    b = 's'\n    return lambda: g(b)",
    ],
    ids=[
        "strings-are-not-subtracted",
        "assertions",
        "error-messages",
        "f-strings",
        "annotations",
        "python-version",
        "operator-beside-a-line-break",
        "choice-of-a-value",
        "parentheses-would-stay",
        "unusual-number",
        "large-number",
        "no-other-variable",
        "other-scope",
    ],
)
def test_left_alone(code: str) -> None:
    assert [line for kind, line in mutate(code) if kind != "and-or" or "if" not in line] == []


def test_equal_values_do_not_matter_where_the_larger_one_is_kept() -> None:
    kept = "def f(a):\n    if a > b.c:\n        b.c = a\n"
    other = "def f(a):\n    if a > b.c:\n        b.c = 0\n"
    assert mutate(kept) == []
    assert mutate(other) == [("boundary", "if a >= b.c:")]


def test_a_variable_without_a_value_yet_takes_nobodys_place() -> None:
    late = "def f(a):\n    g(a)\n    b = h()\n"
    assert mutate(late) == []
    assert mutate(late + "    g(a)\n") == [("wrong-variable", "g(b)")]


def test_a_line_does_not_grow_beyond_the_usual_width() -> None:
    line = "    return " + "n" * 64 + " < 9"
    assert len(line) == 79
    kinds = [mutation.kind for mutation in bugs_of(f"def f():\n{line}\n")]
    assert kinds == ["off-by-one"]  # `< 8`; `<= 9` and `< 10` are a character longer.


@given(
    a=st.integers(-3, 3),
    b=st.integers(-3, 3),
    operator=st.sampled_from(["<", "<=", ">", ">="]),
    gaps=st.tuples(st.sampled_from(["", " ", "  "]), st.sampled_from(["", " ", " ("])),
)
def test_boundaries_matter_exactly_where_both_sides_are_equal(
    a: int, b: int, operator: str, gaps: tuple[str, str]
) -> None:
    closing = ")" if "(" in gaps[1] else ""
    source = f"def f(a, b):\n    return a{gaps[0]}{operator}{gaps[1]}b{closing}\n"
    [mutation] = [each for each in bugs_of(source) if each.kind == "boundary"]
    assert (run(source, a, b) != run(mutation.apply(source), a, b)) == (a == b)
    gained = run(mutation.apply(source), 0, 0)
    assert ("also holds" in mutation.effect) == gained


def run(source: str, *arguments: int) -> bool:
    space: dict[str, object] = {}
    exec(source, space)
    function = space["f"]
    assert callable(function)
    return bool(function(*arguments))


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("x = 1", "x = 2", True),
        ("x = 1", "x = True", True),
        ("x = (1, 2)", "x = (True, 2)", True),
        ("def f(): return a", "def f(): return b", True),
        ("def f(a, b): return a", "def f(a, b): return b", True),
        ("x = a in {1, 2}", "x = a in {1, 3}", True),
        ("x = 1", "\n\nx = (1)", False),
        ("if 0: a()", "if 0: b()", False),
        ("x = 1", "x = = 1", False),
    ],
)
def test_code_changes_with_its_meaning_and_not_with_its_looks(
    before: str, after: str, changed: bool
) -> None:
    assert changes_code(before, after) is changed


def test_a_bug_of_another_module_is_refused() -> None:
    [mutation] = bugs_of("def f(n):\n    return n is None\n")
    with pytest.raises(ConfigError, match="line 2"):
        mutation.apply("def f(): pass")
