"""Every promise of docs/reliability.md names tests, and they exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
DOCUMENT = (TESTS.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
PROMISES = re.findall(r"^\| (?!promise|---)(.+) \| (.*) \|$", DOCUMENT, re.MULTILINE)


def functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_promise_is_held_by_tests_that_exist() -> None:
    assert len(PROMISES) > 20
    missing = []
    for promise, held_by in PROMISES:
        named = re.findall(r"`([\w/]+\.py)` ([\w ]+)", held_by)
        missing += [promise] if not named else []
        for file, words in named:
            name = "test_" + words.strip().replace(" ", "_")
            found = (TESTS / file).exists() and name in functions(TESTS / file)
            missing += [] if found else [f"{file}::{name}"]
    assert missing == []
