"""Single flight: the same work asked for at once is done once; and how to wait for one's turn."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_TELL = 0.2
"""Seconds between two calls of `on_wait`."""


def say_nothing(seconds: float) -> None:
    """Do nothing; the default callback."""


class SingleFlight:
    """Lets one thread at a time work on a key; the others wait, then find its result."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._flights: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def __call__(
        self,
        key: str,
        on_wait: Callable[[float], None] = say_nothing,
        *,
        timeout: float = math.inf,
    ) -> Iterator[bool]:
        """Wait for whoever works on `key`, then hold it for the length of the block.

        Args:
            key: What is worked on.
            on_wait: Called several times a second while waiting, with the seconds so far; may
                raise, to wait no longer.
            timeout: Seconds to wait at most.

        Yields:
            Whether it is held: False if somebody else kept it for all that time.
        """
        with self._guard:
            lock, users = self._flights.get(key, (threading.Lock(), 0))
            self._flights[key] = (lock, users + 1)
        try:
            held = acquire(lambda seconds: lock.acquire(timeout=seconds), timeout, on_wait)
            try:
                yield held
            finally:
                if held:
                    lock.release()
        finally:
            with self._guard:
                lock, users = self._flights.pop(key)
                if users > 1:
                    self._flights[key] = (lock, users - 1)


def acquire(
    try_for: Callable[[float], bool], timeout: float, on_wait: Callable[[float], None]
) -> bool:
    """Wait for a lock in small steps, so that who waits can be told, and can leave.

    Args:
        try_for: Tries to take the lock for so many seconds; returns whether it has it.
        timeout: Seconds to wait at most.
        on_wait: Called between the steps with the seconds so far; may raise.

    Returns:
        Whether the lock was taken.
    """
    started = time.monotonic()
    while True:
        left = max(timeout - (time.monotonic() - started), 0.0)
        if try_for(min(_TELL, left)):
            return True
        if left <= _TELL:
            return False
        on_wait(time.monotonic() - started)
