"""Calls that may hang or fail: bounded in time, and not made in vain. Knows no remote."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

_MOST_HUNG = 8
"""Threads that may wait for an answer that never comes; then no more are started."""

_LASTING = (
    FileNotFoundError,
    PermissionError,
    ImportError,
    LookupError,
    MemoryError,
    NotImplementedError,
    TypeError,
    ValueError,
)
"""Errors that stay the same however often one tries; all others may be the network's."""


class DownError(Exception):
    """What was asked was not done, or not even tried since it failed just now."""


class Breaker:
    """Keeps from asking in vain: closed until something fails, then open for a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open_until: float | None = None

    @property
    def is_open(self) -> bool:
        until = self._open_until
        return until is not None and time.monotonic() < until

    def admit(self, attempts: int, pause: float) -> int:
        """Return the attempts that may be made: after a pause one caller may make a single one.

        Raises:
            DownError: None.
        """
        with self._lock:
            if self._open_until is None:
                return attempts
            if self.is_open:
                raise DownError
            self._open_until = time.monotonic() + pause
            return 1

    def trip(self, pause: float) -> None:
        with self._lock:
            self._open_until = time.monotonic() + pause

    def expire(self) -> None:
        with self._lock:
            if self._open_until is not None:
                self._open_until = time.monotonic()

    def reset(self) -> bool:
        """Close it; return whether it was not."""
        with self._lock:
            was_open, self._open_until = self._open_until is not None, None
        return was_open


class BoundedCalls:
    """Runs calls that may hang, each in a thread that nobody has to wait for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hung: list[threading.Thread] = []

    def __call__(self, call: Callable[[], T], timeout: float) -> T:
        """Return what `call` returns, or raise what it raises.

        It runs in a thread of its own, which nobody waits for after `timeout`, not even the
        interpreter at its end.

        Raises:
            TimeoutError: It took more than `timeout` seconds, or too many before it still hang.
        """
        with self._lock:
            self._hung = [thread for thread in self._hung if thread.is_alive()]
            if len(self._hung) >= _MOST_HUNG:
                raise TimeoutError(errno.ETIMEDOUT, "too many calls hang")
        future: Future[T] = Future()
        thread = threading.Thread(
            target=_run, args=(call, future), name="ttt-remote-call", daemon=True
        )
        thread.start()
        thread.join(timeout)
        if not future.done():
            with self._lock:
                self._hung.append(thread)
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        return future.result()


def may_pass(error: BaseException) -> bool:
    """Whether the same call may succeed a little later."""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    refused = any("Credential" in kind or "Auth" in kind for kind in kinds)
    return not refused and not isinstance(error, _LASTING)


def _run(call: Callable[[], T], future: Future[T]) -> None:
    try:
        future.set_result(call())
    except Exception as error:
        future.set_exception(error)
    except BaseException as error:  # asyncio's CancelledError, and the like.
        future.set_exception(OSError(f"ended by {type(error).__name__}"))
