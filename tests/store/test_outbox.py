"""The outbox: marks that survive whoever set them, and nothing else."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from ttt_core.store.outbox import Outbox, Outboxes

ENTRY = "0f" * 16, "ab" * 32
OTHER = "0f" * 16, "cd" * 32
STRANGE = "1f" * 16, "ab" * 32
HERE, THERE = "aa" * 16, "bb" * 16
"""Two remotes."""


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
    with pytest.raises(OSError, match="store"):
        outbox.prepare()
    assert outbox.forget(ENTRY[0]) == 0


def test_preparing_makes_the_folder(outbox: Outbox) -> None:
    outbox.prepare()
    outbox.prepare()
    assert outbox.path.stat().st_mode & 0o077 == 0
    assert not outbox.pending()


@pytest.fixture
def outboxes(tmp_path: Path) -> Outboxes:
    return Outboxes(tmp_path / "store" / "outbox")


def test_remotes_have_marks_of_their_own(outboxes: Outboxes) -> None:
    assert not outboxes.pending()
    assert ENTRY not in outboxes
    outboxes.of(HERE).add(*ENTRY)
    assert ENTRY in outboxes.of(HERE)
    assert ENTRY not in outboxes.of(THERE)
    assert not outboxes.of(THERE).pending()
    outboxes.of(THERE).discard(*ENTRY)
    assert ENTRY in outboxes


def test_all_remotes_count(outboxes: Outboxes) -> None:
    outboxes.of(HERE).add(*ENTRY)
    outboxes.of(THERE).add(*ENTRY)
    outboxes.of(THERE).add(*OTHER)
    assert sorted(outboxes.pending()) == [ENTRY, ENTRY, OTHER]
    outboxes.of(HERE).discard(*ENTRY)
    assert ENTRY in outboxes
    outboxes.discard(*ENTRY)
    assert outboxes.pending() == [OTHER]


def test_a_namespace_s_marks_are_forgotten_for_all_remotes(outboxes: Outboxes) -> None:
    for remote in (HERE, THERE):
        for entry in (ENTRY, OTHER, STRANGE):
            outboxes.of(remote).add(*entry)
    assert outboxes.forget(ENTRY[0]) == 4
    assert outboxes.pending() == [STRANGE, STRANGE]


def test_what_else_lies_there_is_no_mark(outboxes: Outboxes) -> None:
    outboxes.of(HERE).add(*ENTRY)
    (outboxes.path / "-".join(OTHER)).touch()
    (outboxes.path / "notes").mkdir()
    (outboxes.path / THERE).touch()
    (outboxes.path / HERE / "notes").touch()
    assert outboxes.pending() == [ENTRY]
    assert OTHER not in outboxes
    assert outboxes.forget(ENTRY[0]) == 1


def test_marks_that_cannot_be_listed_are_no_reason_to_evict(
    outboxes: Outboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path) -> list[str]:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "listdir", fails)
    with pytest.raises(OSError, match="Input/output"):
        _ = ENTRY in outboxes
    with pytest.raises(OSError, match="Input/output"):
        outboxes.forget(ENTRY[0])
    assert not outboxes.pending()
    outboxes.discard(*ENTRY)


@pytest.mark.parametrize("remote", ["", "..", HERE.upper(), HERE + "/", HERE + "\n"])
def test_a_remote_is_a_digest(outboxes: Outboxes, remote: str) -> None:
    with pytest.raises(ValueError, match="hexadecimal digits"):
        outboxes.of(remote)
