"""Locks between processes of one machine: on a name, and on a file that is in use.

Both are the kernel's (`flock`), which gives them back when their holder dies, whatever it dies of.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ttt_core.flights import acquire, say_nothing

if TYPE_CHECKING:
    from filelock import BaseFileLock

try:
    import fcntl
except ImportError:  # Windows: a file that is open cannot be removed there, which is as good.
    fcntl = None  # type: ignore[assignment]

LOCK_SUFFIX = ".lock"

OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # A pipe of that name would wait for a writer.
    | getattr(os, "O_BINARY", 0)
)
"""How a file that others may have put there is opened."""

_POLL = 0.05

_TOUCH = 600.0
"""Seconds between two notes that a file is still in use."""

_MOST_PINS = 256
"""Files one process keeps open: a fraction of the usual limit of 1,024."""


@contextlib.contextmanager
def locked(
    path: Path, *, timeout: float, on_wait: Callable[[float], None] = say_nothing
) -> Iterator[bool]:
    """Hold the lock of that name for the length of the block; no other process or thread does.

    Its file is there while the lock is held or waited for, and gone afterwards.

    Args:
        path: The lock's file, in a folder that exists.
        timeout: Seconds to wait at most.
        on_wait: Called again and again with the seconds waited so far; may raise.

    Yields:
        Whether the lock is held: False if somebody else kept it for all that time.

    Raises:
        OSError: The file cannot be made.
    """
    from filelock import FileLock

    lock = FileLock(path, mode=0o600, thread_local=False, poll_interval=_POLL)
    if not acquire(partial(_try_for, lock), timeout, on_wait):
        yield False
        return
    holder = os.getpid()
    try:
        yield True
    finally:
        # A child that was forked inside the block leaves it, too, but the lock is not its own.
        if os.getpid() == holder:
            # First the name, then the lock: who waits for this file notices that it has no name
            # any more, and starts over.
            with contextlib.suppress(OSError):
                path.unlink()
            lock.release()


def sweep_locks(folder: Path) -> int:
    """Remove the files of locks that nobody holds; their holders were killed. Returns how many."""
    from filelock import FileLock, Timeout

    removed = 0
    for path in folder.glob(f"*{LOCK_SUFFIX}"):
        lock = FileLock(path, mode=0o600, thread_local=False)
        with contextlib.suppress(OSError, Timeout):
            lock.acquire(timeout=0)
            try:
                path.unlink()
                removed += 1
            finally:
                lock.release()
    return removed


class Pin:
    """Keeps a file from being removed by `remove_unused`, in any process, while this object lives.

    One process pins at most 256 files; beyond that, those that were pinned first are let go.

    Args:
        descriptor: An open file; it is closed with this object.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._touched = time.monotonic()
        self._close = weakref.finalize(self, _let_go, descriptor)
        self._close.atexit = False
        _pins[descriptor] = weakref.ref(self)
        for reference in list(_pins.values())[:-_MOST_PINS]:
            if (oldest := reference()) is not None:
                oldest.close()

    def touch(self) -> None:
        """Note that the file is still in use; cheap enough for every use."""
        if time.monotonic() - self._touched > _TOUCH and self._close.alive:
            self._touched = time.monotonic()
            if os.utime in os.supports_fd:
                with contextlib.suppress(OSError):
                    os.utime(self._descriptor)

    def close(self) -> None:
        """Let the file go."""
        self._close()


_pins: dict[int, weakref.ref[Pin]] = {}
"""Those that are open, by descriptor, the oldest first."""


def _let_go(descriptor: int) -> None:
    _pins.pop(descriptor, None)  # First, since another thread may get the number at once.
    os.close(descriptor)


def _let_parents_pins_go() -> None:
    """In a forked child: a file is pinned until all copies of its descriptor are closed."""
    for reference in list(_pins.values()):
        if (inherited := reference()) is not None:
            inherited.close()


if hasattr(os, "register_at_fork"):  # `filelock` does the same for its locks.
    os.register_at_fork(after_in_child=_let_parents_pins_go)


def pin(path: Path) -> Pin | None:
    """Pin a file; None if it is not there, or about to be removed."""
    try:
        descriptor = os.open(path, OPEN_FLAGS)
    except OSError:
        return None
    if _flock(descriptor, exclusive=False) and os.fstat(descriptor).st_nlink:
        return Pin(descriptor)
    os.close(descriptor)
    return None


def in_use(path: Path) -> bool:
    """Whether somebody has pinned a file."""
    try:
        descriptor = os.open(path, OPEN_FLAGS)
    except OSError:
        return False
    try:
        return not _flock(descriptor, exclusive=True)
    finally:
        os.close(descriptor)


def remove_unused(path: Path) -> bool:
    """Remove a file unless somebody has pinned it; return whether it is gone.

    Args:
        path: The file; that no other one takes its name meanwhile is the caller's business.

    Raises:
        OSError: It cannot be removed.
    """
    try:
        descriptor = os.open(path, OPEN_FLAGS)
    except FileNotFoundError:
        return True
    except OSError:
        if stat.S_ISREG(path.lstat().st_mode):
            raise
        path.unlink(missing_ok=True)  # Nobody has pinned a link or a socket: none is opened.
        return True
    try:
        if not _flock(descriptor, exclusive=True):
            return False
        if os.name == "nt":
            os.close(descriptor)
            descriptor = -1
        path.unlink(missing_ok=True)
        return True
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _try_for(lock: BaseFileLock, seconds: float) -> bool:
    from filelock import Timeout

    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        return False
    return True


def _flock(descriptor: int, *, exclusive: bool) -> bool:
    """Lock an open file at once or not at all; True also where the file system knows no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
