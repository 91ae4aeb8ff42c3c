"""Locks between processes: one holder at a time, none left behind, given back by the dead."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.store.samples import posix_only, start
from ttt_core import locks
from ttt_core.locks import Pin, locked, pin, remove_unused, sweep_locks

HOLD = """
import sys
from pathlib import Path
from ttt_core.locks import locked
with locked(Path(sys.argv[1]), timeout=60) as held:
    print(held, flush=True)
    sys.stdin.read()
"""

HOLD_PIN = """
import sys
from pathlib import Path
from ttt_core.locks import pin
pinned = pin(Path(sys.argv[1]))
print(pinned is not None, flush=True)
sys.stdin.read()
"""


FORKED = """
import os, sys
from pathlib import Path
from ttt_core.locks import locked, pin
lock, file = map(Path, sys.argv[1:])
pinned = pin(file)
with locked(lock, timeout=0) as held:
    if os.fork() == 0:
        sys.stdin.read()  # Lives on, until the test lets it end.
        os._exit(0)
    print(held, flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(path: Path, code: str = HOLD) -> Iterator[int]:
    """Another process holds it for the length of the block; gives its id."""
    with start(code, path) as process:
        try:
            assert process.stdout.readline() == "True\n"
            yield process.pid
        finally:
            process.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.lock"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    return file


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# ---------------------------------------------------------------- locked


def test_a_lock_s_file_is_there_while_it_is_held_and_gone_afterwards(path: Path) -> None:
    with locked(path, timeout=0) as held:
        assert held
        assert path.exists()
    assert not path.exists()
    with pytest.raises(RuntimeError), locked(path, timeout=0):
        raise RuntimeError
    assert not path.exists()


@posix_only
def test_only_the_owner_can_open_a_lock_s_file(path: Path) -> None:
    before = os.umask(0)
    try:
        with locked(path, timeout=0):
            assert path.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_what_another_process_holds_is_waited_for_and_then_given_up(path: Path) -> None:
    waited: list[float] = []
    with held_elsewhere(path):
        started = time.monotonic()
        with locked(path, timeout=1.0, on_wait=waited.append) as held:
            assert not held
        assert 0.9 < time.monotonic() - started < 10
        with locked(path, timeout=0) as held:
            assert not held
        assert path.exists()
    assert len(waited) >= 3
    assert waited == sorted(waited)


def test_a_waiting_caller_can_leave(path: Path) -> None:
    def leave(seconds: float) -> None:
        raise KeyboardInterrupt

    with (
        held_elsewhere(path),
        pytest.raises(KeyboardInterrupt),
        locked(path, timeout=60, on_wait=leave),
    ):
        raise AssertionError


def test_a_killed_process_s_lock_is_free_at_once(path: Path) -> None:
    with held_elsewhere(path) as process:
        os.kill(process, signal.SIGKILL)
        with locked(path, timeout=30) as held:
            assert held
    assert not path.exists()


def test_waiters_survive_that_the_file_goes_when_the_lock_is_given_back(path: Path) -> None:
    """Each waits for a file that loses its name; never may two hold the lock, or one wait on."""
    inside, most, done, together = 0, 0, [], threading.Barrier(6)

    def work() -> None:
        nonlocal inside, most
        together.wait(timeout=60)
        for _ in range(20):
            with locked(path, timeout=60) as held:
                assert held
                inside += 1
                os.listdir(path.parent)  # Lets other threads run.
                most = max(most, inside)
                inside -= 1
        done.append(True)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert len(done) == 6
    assert most == 1
    assert not path.exists()


def test_a_lock_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    impossible = tmp_path / "file" / "x.lock"
    with pytest.raises(OSError, match="file"), locked(impossible, timeout=0):
        raise AssertionError


@posix_only
def test_a_link_in_a_lock_s_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"), locked(path, timeout=0):
        raise AssertionError
    assert not target.exists()


# ---------------------------------------------------------------- sweep_locks


def test_the_files_of_dead_locks_are_swept_and_held_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "dead.lock").write_bytes(b"")
    (tmp_path / "other").write_bytes(b"")
    with held_elsewhere(tmp_path / "held.lock"):
        assert sweep_locks(tmp_path) == 1
        assert sorted(path.name for path in tmp_path.iterdir()) == ["held.lock", "other"]
        with locked(tmp_path / "held.lock", timeout=0) as held:
            assert not held
    assert sweep_locks(tmp_path) == 1
    assert sweep_locks(tmp_path / "none") == 0


def test_sweeping_in_the_middle_of_it_all_lets_nobody_in_twice(path: Path) -> None:
    inside, most, stop = 0, 0, threading.Event()

    def sweep() -> None:
        while not stop.is_set():
            sweep_locks(path.parent)

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            with locked(path, timeout=60) as held:
                assert held
                inside += 1
                os.listdir(path.parent)  # Lets other threads run.
                most = max(most, inside)
                inside -= 1

    sweeper = threading.Thread(target=sweep)
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in (sweeper, *threads):
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    stop.set()
    sweeper.join(timeout=60)
    assert most == 1


# ---------------------------------------------------------------- pins


def test_a_pinned_file_stays_until_it_is_let_go(file: Path) -> None:
    pinned = pin(file)
    assert pinned is not None
    assert not remove_unused(file)
    assert file.exists()
    pinned.close()
    pinned.close()  # Twice is fine.
    assert remove_unused(file)
    assert not file.exists()
    assert remove_unused(file)  # It is gone, as it was to be.


def test_a_pin_ends_with_its_object(file: Path) -> None:
    pinned = pin(file)
    assert not remove_unused(file)
    del pinned
    gc.collect()
    assert remove_unused(file)


def test_many_may_pin_one_file(file: Path) -> None:
    first, second = pin(file), pin(file)
    assert first is not None
    assert second is not None
    first.close()
    assert not remove_unused(file)
    second.close()
    assert remove_unused(file)


def test_another_process_s_pin_holds_until_that_is_killed(file: Path) -> None:
    with held_elsewhere(file, HOLD_PIN) as process:
        assert not remove_unused(file)
        os.kill(process, signal.SIGKILL)
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        assert remove_unused(file)


@posix_only
def test_what_a_killed_process_held_is_free_although_its_child_lives_on(
    path: Path, file: Path
) -> None:
    with start(FORKED, path, file) as process:
        assert process.stdout.readline() == "True\n"
        assert not remove_unused(file)
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with locked(path, timeout=30) as held:
            assert held
        assert remove_unused(file)


def test_a_file_that_is_not_there_or_is_being_removed_is_not_pinned(file: Path) -> None:
    import fcntl

    assert pin(file.with_name("none")) is None
    descriptor = os.open(file, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # As `remove_unused` does.
    before = descriptors()
    assert pin(file) is None
    assert descriptors() == before
    os.close(descriptor)


def test_beyond_256_pins_the_first_ones_are_let_go(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}" for number in range(300)]
    for path in paths:
        path.write_bytes(b"")
    before = descriptors()
    pins = [pin(path) for path in paths]
    assert all(isinstance(pinned, Pin) for pinned in pins)
    assert descriptors() - before <= 256
    assert remove_unused(paths[0])
    assert not remove_unused(paths[-1])
    for pinned in pins:
        pinned.close()
    assert descriptors() <= before


def test_pins_that_come_and_go_do_not_pile_up(file: Path) -> None:
    before = descriptors()
    for _ in range(1000):
        pinned = pin(file)
        assert pinned is not None
        pinned.close()
    assert descriptors() <= before
    assert len(locks._pins) <= 256


def test_pins_that_came_and_went_push_out_none_that_is_held(file: Path, tmp_path: Path) -> None:
    held, other = pin(file), tmp_path / "other"
    other.write_bytes(b"")
    for _ in range(300):
        passing = pin(other)
        assert passing is not None
        passing.close()
    assert not remove_unused(file)
    assert held is not None
    held.close()
    assert remove_unused(file)


@posix_only
def test_a_use_is_noted_now_and_then(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = pin(file)
    assert pinned is not None
    os.utime(file, (0, 0))
    pinned.touch()
    assert file.stat().st_mtime == 0  # Cheap: it is only just open.
    monkeypatch.setattr(locks, "_TOUCH", -1.0)
    pinned.touch()
    assert time.time() - file.stat().st_mtime < 60
    pinned.close()
    pinned.touch()  # Must not touch whatever has the descriptor's number now.


@posix_only
def test_a_link_is_neither_pinned_nor_followed(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    assert pin(link) is None
    assert remove_unused(link)
    assert not link.is_symlink()
    assert file.exists()


@posix_only
def test_a_pipe_in_a_file_s_place_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert remove_unused(tmp_path / "pipe")
    assert list(tmp_path.iterdir()) == []
