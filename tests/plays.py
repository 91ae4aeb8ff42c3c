"""Plays with real processes: a parent that has loaded what it needs forks the actors of each.

Forking the test's own process would fork its threads' locks, too; so a module with plays runs as a
process of its own (`serve`), and a test tells it which one to give, and where (`giving`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.store.samples import child_environment

Give = Callable[[str, Path], None]
"""Gives a play by name, at a place; fails with the traceback of whatever went wrong in it."""


@contextmanager
def giving(module: str) -> Iterator[Give]:
    """Start a module that calls `serve`, and end it after the block."""
    with subprocess.Popen(
        [sys.executable, "-m", module],
        env=child_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        orders, answers = parent.stdin, parent.stdout
        assert orders is not None
        assert answers is not None

        def give(name: str, path: Path) -> None:
            orders.write(json.dumps([name, str(path)]) + "\n")
            orders.flush()
            answer = answers.readline()
            assert answer, "the parent of all actors died"
            assert json.loads(answer) is None, json.loads(answer)

        try:
            yield give
        finally:
            orders.close()
            parent.wait(timeout=60)


def serve(*plays: Callable[[Path], None]) -> None:
    """Give plays as they are asked for on standard input, until it is closed."""
    known = {play.__name__: play for play in plays}
    for line in sys.stdin:
        name, path = json.loads(line)
        problem = None
        try:
            known[name](Path(path))
        except BaseException:
            problem = traceback.format_exc()
        sys.stdout.write(json.dumps(problem) + "\n")
        sys.stdout.flush()
