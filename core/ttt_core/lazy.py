"""Attributes that are computed when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class lazy_property(Generic[T]):
    """`functools.cached_property` without a lock.

    Before Python 3.12 that one has a lock for all instances of the class together: who was forked
    while another thread computed the value of one would wait for ever to compute that of another.
    Here two threads may compute the same value at once, as with Python 3.12.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        """Note under which name the value is kept."""
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        """Compute the value and keep it: the next time, Python finds it before it asks here."""
        if instance is None:  # Documentation tools ask the class.
            return self  # type: ignore[return-value]
        value = instance.__dict__[self._name] = self._compute(instance)
        return value
