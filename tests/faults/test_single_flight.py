"""The same document asked for by many processes at once is adapted once, whoever dies of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.store.samples import child_environment

pytestmark = pytest.mark.skipif(os.name == "nt", reason="fork and SIGKILL")

Give = Callable[[str, Path], None]


@pytest.fixture(scope="module")
def give() -> Iterator[Give]:
    """Gives a play of `actors.py` on a store."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.actors"],
        env=child_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None

        def give(name: str, path: Path) -> None:
            parent.stdin.write(json.dumps([name, str(path)]) + "\n")
            parent.stdin.flush()
            answer = parent.stdout.readline()
            assert answer, "the parent of all actors died"
            assert json.loads(answer) is None, json.loads(answer)

        try:
            yield give
        finally:
            parent.stdin.close()
            parent.wait(timeout=60)


def test_one_process_trains_and_the_others_have_it_from_the_store(
    give: Give, tmp_path: Path
) -> None:
    give("at_once", tmp_path / "store")


def test_another_process_takes_over_from_one_that_is_killed_while_it_trains(
    give: Give, tmp_path: Path
) -> None:
    give("killed", tmp_path / "store")


def test_a_process_that_waited_for_too_long_trains_by_itself(give: Give, tmp_path: Path) -> None:
    give("too_slow", tmp_path / "store")


def test_waiting_for_another_process_can_be_cancelled(give: Give, tmp_path: Path) -> None:
    give("cancelled", tmp_path / "store")


def test_what_a_process_holds_in_memory_is_not_evicted_until_it_is_killed(
    give: Give, tmp_path: Path
) -> None:
    give("pinned", tmp_path / "store")
