"""What all recipes of the cookbook have to show: they run offline, and print what they say."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar, NamedTuple

ROOT = Path(__file__).parent.parent


class Run(NamedTuple):
    """One recipe, what it printed, and the folder of its store."""

    path: Path
    printed: list[str]
    home: Path

    @property
    def doc(self) -> str:
        """The recipe's docstring."""
        return ast.get_docstring(ast.parse(self.path.read_text("utf-8"))) or ""

    def numbers(self, pattern: str) -> list[list[int]]:
        """Whole numbers of each line that matches somewhere, one for each group."""
        found = [re.search(pattern, line) for line in self.printed]
        return [[int(group.replace(",", "")) for group in each.groups()] for each in found if each]


def execute(path: Path, home: Path, *arguments: str) -> Run:
    """Run a recipe with the bundled model and a store of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(path), *arguments],
        cwd=ROOT,
        env={**os.environ, "TTT_HOME": str(home), "TTT_MODEL": "", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Run(path, done.stdout.splitlines(), home)


class RecipeForm:
    """Tests of a recipe's form, for modules with a fixture `run`."""

    longest: ClassVar[int]
    """Lines behind the docstring."""

    def test_the_output_shown_is_what_is_printed(self, run: Run) -> None:
        shown = shown_output(run.doc)
        assert len(shown) >= 3
        assert without_numbers(shown[0]) == without_numbers(run.printed[0])
        printed = {without_numbers(line) for line in run.printed}
        assert [line for line in shown if without_numbers(line) not in printed] == []

    def test_it_says_when_not_to_use_it(self, run: Run) -> None:
        (_, reasons) = run.doc.split("\nWhen not to use it: ")
        assert len(reasons.split()) >= 15
        assert f"python {run.path.relative_to(ROOT).as_posix()}" in run.doc

    def test_it_is_short_and_in_the_table(self, run: Run) -> None:
        whole = run.path.read_text("utf-8")
        lines = len(whole.splitlines()) - (ast.parse(whole).body[0].end_lineno or 0)
        assert lines <= self.longest
        table = (run.path.parent / "README.md").read_text("utf-8")
        row = next(row for row in table.splitlines() if f"]({run.path.name})" in row)
        assert f" | {lines} | " in row


def shown_output(doc: str) -> list[str]:
    """Return the lines of the docstring's example."""
    block = doc.split("Prints (shortened):\n")[1].split("\n\n")[0]
    return [line.removeprefix("    ") for line in block.splitlines()]


def without_numbers(line: str) -> str:
    """Leave out what differs from run to run: times, token counts, ids of secret namespaces."""
    return " ".join(re.sub(r"\b[0-9a-f]{16}\b|[\d.,]*\d", "#", line).split())
