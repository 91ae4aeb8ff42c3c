"""Single flight: the same work asked for at once is done once."""

from __future__ import annotations

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
    def __call__(self, key: str, on_wait: Callable[[float], None] = say_nothing) -> Iterator[None]:
        """Wait for whoever works on `key`, then hold it for the length of the block.

        Args:
            key: What is worked on.
            on_wait: Called several times a second while waiting, with the seconds so far; may
                raise, to wait no longer.
        """
        with self._guard:
            lock, users = self._flights.get(key, (threading.Lock(), 0))
            self._flights[key] = (lock, users + 1)
        try:
            _acquire(lock, on_wait)
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._guard:
                lock, users = self._flights.pop(key)
                if users > 1:
                    self._flights[key] = (lock, users - 1)


def _acquire(lock: threading.Lock, on_wait: Callable[[float], None]) -> None:
    started = time.monotonic()
    while not lock.acquire(timeout=_TELL):
        on_wait(time.monotonic() - started)
