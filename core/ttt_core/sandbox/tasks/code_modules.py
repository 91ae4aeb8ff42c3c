"""Real code found on the machine: the modules of a folder, by default Python's standard library.

Which library is part of the result: another Python has other modules, so the documents of one
version are not those of the next.
"""

from __future__ import annotations

import ast
import os
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ttt_core.errors import DocumentError
from ttt_core.sandbox.tasks.mutations import Mutation, find_mutations

_SKIPPED_FOLDERS = (
    *("__pycache__", "encodings", "idlelib", "lib2to3", "pydoc_data", "site-packages"),
    *("test", "tests", "turtledemo"),
)
"""Tests, programs rather than libraries, tables of character sets, and what is not Python's own."""

_GENERATED = re.compile(
    r"(?:auto(?:matically)?[- ]?generated|generated (?:by|from)|do not edit)", re.IGNORECASE
)
_HEAD_CHARS = 2000
"""Where a file says that it was generated."""

_ODD_LINE_ENDS = re.compile(r"[\r\v\f\x1c-\x1e]")
"""Some readers count lines at these, others do not; line numbers must not be in doubt."""


@dataclass(frozen=True)
class Function:
    """A function or method that is not inside another one.

    Attributes:
        name: With its classes, such as `Popen.poll`.
        first: Its first line, decorators included, counted from 1.
        last: Its last line.
        mutations: The bugs that could be put into it.
    """

    name: str
    first: int
    last: int
    mutations: tuple[Mutation, ...] = field(repr=False)


@dataclass(frozen=True)
class Module:
    """A file of code.

    Attributes:
        path: Relative to its library, with forward slashes.
        source: Its text, with `\\n` for line ends.
    """

    path: str
    source: str = field(repr=False)
    functions: tuple[Function, ...] = field(repr=False)

    @property
    def lines(self) -> list[str]:
        """Its lines, without their ends; line `n` is number `n - 1`."""
        return self.source.removesuffix("\n").split("\n")


@dataclass(frozen=True)
class Library:
    """A folder of modules.

    Attributes:
        name: What results call it.
        root: The folder.
    """

    name: str
    root: Path

    def paths(self) -> tuple[str, ...]:
        """Return the files that may hold usable modules, in order."""
        return _list_files(self.root)

    def module(self, path: str) -> Module | None:
        """Read a module; None if it cannot be used: see `read_module`."""
        return _read_cached(self.root, path)


def standard_library() -> Library:
    """Return the library of the Python that runs."""
    version = platform.python_version()
    return Library(f"python-{version}", Path(sysconfig.get_path("stdlib")))


@lru_cache(maxsize=8)
def _list_files(root: Path) -> tuple[str, ...]:
    """List the Python files below `root`, but in folders that are skipped.

    Raises:
        DocumentError: There are none.
    """
    found = tuple(sorted(path.relative_to(root).as_posix() for path in _walk(root)))
    if not found:
        raise DocumentError(f"expected Python modules in {root}, found none: give another folder")
    return found


def _walk(root: Path) -> Iterator[Path]:
    for folder, inner, files in os.walk(root):
        # `config-3.11-...` holds what extensions are built with.
        inner[:] = [
            name
            for name in inner
            if name not in _SKIPPED_FOLDERS and not name.startswith(("config-", "."))
        ]
        for name in files:
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                yield Path(folder, name)


@lru_cache(maxsize=1024)
def _read_cached(root: Path, path: str) -> Module | None:
    return read_module(root, path)


def read_module(root: Path, path: str) -> Module | None:
    """Read the module at `path` below `root`.

    None if it cannot be used: not readable, not ASCII, with odd characters that may end lines,
    generated, or not in this Python's syntax.
    """
    try:
        source = (root / path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
    if _ODD_LINE_ENDS.search(source) or _GENERATED.search(source[:_HEAD_CHARS]):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Old code has old escapes in its strings.
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    lines = source.split("\n")
    return Module(path, source, tuple(_functions(tree, "", lines)))


def _functions(node: ast.AST, prefix: str, lines: list[str]) -> Iterator[Function]:
    """Yield the functions in a module or class, also those under `if` and `try`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min([child.lineno, *(mark.lineno for mark in child.decorator_list)])
            yield Function(
                name=f"{prefix}{child.name}",
                first=first,
                last=child.end_lineno or child.lineno,
                mutations=tuple(find_mutations(child, lines)),
            )
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.", lines)
        elif isinstance(child, ast.stmt):
            yield from _functions(child, prefix, lines)
