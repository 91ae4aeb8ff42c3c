"""The same document asked for by many processes at once is adapted once, whoever dies of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plays import Give, giving

pytestmark = pytest.mark.skipif(os.name == "nt", reason="fork and SIGKILL")


@pytest.fixture(scope="module")
def give() -> Iterator[Give]:
    """Gives a play of `actors.py` on a store."""
    with giving("tests.faults.actors") as give:
        yield give


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
