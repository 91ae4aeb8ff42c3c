"""Values within a number of bytes, the least recently used first out. Knows nothing of threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteLRU(Generic[K, V]):
    """Values by key, and who is to go when they are more than `limit` bytes.

    The value used last always stays, even if it alone is larger: whoever works with it holds it
    anyway, and would have to make it again for every use.

    Args:
        limit: Bytes.
        size: The bytes of a value.
    """

    def __init__(self, limit: int, size: Callable[[V], int]) -> None:
        self.limit = limit
        self._size = size
        self._values: OrderedDict[K, V] = OrderedDict()
        self._sizes: dict[K, int] = {}

    def __len__(self) -> int:
        """Number of values."""
        return len(self._values)

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return sum(self._sizes.values())

    def get(self, key: K) -> V | None:
        """Return a value, which counts as a use."""
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def peek(self, key: K) -> V | None:
        """Return a value without using it."""
        return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        """Hold a value, as the one used last; nothing goes yet."""
        self._values[key] = value
        self._values.move_to_end(key)
        self._sizes[key] = self._size(value)

    def pop(self, key: K) -> V | None:
        """Hold a value no longer."""
        self._sizes.pop(key, None)
        return self._values.pop(key, None)

    def excess(self) -> tuple[K, V] | None:
        """Return who is to go next, or None while the limit holds."""
        if len(self._values) <= 1 or self.nbytes <= self.limit:
            return None
        return next(iter(self._values.items()))

    def trim(self) -> None:
        """Let go until the limit holds."""
        while (oldest := self.excess()) is not None:
            self.pop(oldest[0])

    def clear(self) -> None:
        """Hold nothing."""
        self._values.clear()
        self._sizes.clear()
