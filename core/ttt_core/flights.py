"""Single flight: the same work asked for at once is done once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class SingleFlight:
    """Lets one thread at a time work on a key; the others wait, then find its result."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._flights: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def __call__(self, key: str) -> Iterator[None]:
        """Wait for whoever works on `key`, then hold it for the length of the block."""
        with self._guard:
            lock, users = self._flights.get(key, (threading.Lock(), 0))
            self._flights[key] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, users = self._flights.pop(key)
                if users > 1:
                    self._flights[key] = (lock, users - 1)
