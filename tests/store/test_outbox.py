"""The outbox: marks that survive whoever set them, and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ttt_core.store.outbox import Outbox

ENTRY = "0f" * 16, "ab" * 32
OTHER = "0f" * 16, "cd" * 32


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "store" / "outbox")


def test_a_mark_stays_until_it_is_taken_away(outbox: Outbox) -> None:
    assert not outbox.pending()
    outbox.add(*ENTRY)
    outbox.add(*ENTRY)
    assert ENTRY in outbox
    assert OTHER not in outbox
    assert Outbox(outbox.path).pending() == [ENTRY]  # Another process's.
    outbox.discard(*ENTRY)
    outbox.discard(*ENTRY)
    assert ENTRY not in outbox
    assert not outbox.pending()


def test_what_is_to_be_replaced_stays_so_until_it_is(outbox: Outbox) -> None:
    outbox.add(*OTHER)
    outbox.add(*ENTRY, replaces=True)
    outbox.add(*ENTRY)
    assert outbox.replaces(*ENTRY)
    assert not outbox.replaces(*OTHER)
    outbox.discard(*ENTRY)
    assert not outbox.replaces(*ENTRY)
    outbox.add(*ENTRY)
    assert not outbox.replaces(*ENTRY)


def test_a_mark_that_another_process_takes_away_meanwhile_is_no_error(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = os.close

    def close_late(descriptor: int) -> None:
        close(descriptor)
        outbox.discard(*ENTRY)

    monkeypatch.setattr(os, "close", close_late)
    outbox.add(*ENTRY)
    assert ENTRY not in outbox


@pytest.mark.skipif(os.name == "nt", reason="no mode bits there")
def test_marks_are_private_and_empty(outbox: Outbox) -> None:
    umask = os.umask(0)
    try:
        outbox.add(*ENTRY)
    finally:
        os.umask(umask)
    (marker,) = outbox.path.iterdir()
    assert marker.name == "-".join(ENTRY)
    assert marker.stat().st_size == 0
    assert marker.stat().st_mode & 0o777 == 0o600
    assert outbox.path.stat().st_mode & 0o777 == 0o700
    assert outbox.path.parent.stat().st_mode & 0o777 == 0o700


def test_foreign_names_are_not_looked_at(outbox: Outbox) -> None:
    outbox.add(*ENTRY)
    for name in ("README", "-".join(ENTRY) + ".tmp", "-".join(ENTRY).upper(), "x" * 97):
        (outbox.path / name).touch()
    assert outbox.pending() == [ENTRY]


@pytest.mark.parametrize("age", [7200, -7200])
def test_only_an_old_mark_is_taken_for_a_dead_writers(outbox: Outbox, age: float) -> None:
    outbox.add(*ENTRY)
    outbox.discard(*ENTRY, older_than=3600)
    assert ENTRY in outbox
    then = time.time() - age  # Or a clock was set back.
    os.utime(outbox.path / "-".join(ENTRY), (then, then))
    outbox.add(*ENTRY)
    outbox.discard(*ENTRY, older_than=3600)
    assert ENTRY in outbox  # It was marked again.
    os.utime(outbox.path / "-".join(ENTRY), (then, then))
    outbox.discard(*ENTRY, older_than=3600)
    assert ENTRY not in outbox


@pytest.mark.parametrize(
    "entry", [("..", "x"), (ENTRY[0], ENTRY[1] + "/.."), ("", ""), (ENTRY[1], ENTRY[0])]
)
def test_only_digests_become_names(outbox: Outbox, entry: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="hexadecimal digits"):
        outbox.add(*entry)
    with pytest.raises(ValueError, match="hexadecimal digits"):
        outbox.discard(*entry)
    assert not outbox.path.exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    outbox = Outbox(tmp_path / "store" / "outbox")
    with pytest.raises(OSError, match="store"):
        outbox.add(*ENTRY)
    assert not outbox.pending()
    assert ENTRY not in outbox
    outbox.discard(*ENTRY)
