"""Recurrence: in place, but only where the next token could have been retrieved.

A position qualifies when the longest context that ends there and has occurred before in the
document was, at some earlier occurrence, followed by the very token that follows here. Exact
longest-suffix matching with an online suffix automaton (Blumer et al., 1985), linear in the
document's length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ttt_core.packed import PackedBatch
from ttt_core.supervision.base import Given
from ttt_core.supervision.random_span import sampled_batches


class RecurrenceSupervision:
    """`config.positions` retrievable positions a step, anywhere in the document."""

    def __init__(self, given: Given) -> None:
        """See `Supervision`."""
        document = given.document
        recurrent = retrievable_positions(document.input_ids[document.start : document.end])
        self._given = given
        self._positions = [position + document.start for position in recurrent]

    def batches(self) -> Iterator[PackedBatch]:
        """Yield batches of positions without end; see `Supervision`."""
        return sampled_batches(self._given, self._positions)


def retrievable_positions(ids: Sequence[int]) -> list[int]:
    """Return each i for which ids[i + 1] followed an earlier occurrence of i's longest context."""
    automaton = _SuffixAutomaton()
    found = []
    for i, token in enumerate(ids[:-1]):
        automaton.append(token)
        if automaton.repeated_context_precedes(ids[i + 1]):
            found.append(i)
    return found


class _SuffixAutomaton:
    """All substrings of a growing sequence, as a minimal automaton."""

    def __init__(self) -> None:
        self._next: list[dict[int, int]] = [{}]
        self._link = [-1]
        self._length = [0]
        self._last = 0

    def repeated_context_precedes(self, token: int) -> bool:
        """Whether the longest suffix that occurred before was once followed by `token`."""
        context = self._link[self._last]
        return context > 0 and token in self._next[context]

    def append(self, token: int) -> None:
        """Extend the sequence by one token."""
        new = self._state({}, -1, self._length[self._last] + 1)
        state = self._last
        while state != -1 and token not in self._next[state]:
            self._next[state][token] = new
            state = self._link[state]
        self._link[new] = 0 if state == -1 else self._suffix_target(state, token)
        self._last = new

    def _suffix_target(self, state: int, token: int) -> int:
        target = self._next[state][token]
        if self._length[state] + 1 == self._length[target]:
            return target
        clone = self._state(dict(self._next[target]), self._link[target], self._length[state] + 1)
        while state != -1 and self._next[state].get(token) == target:
            self._next[state][token] = clone
            state = self._link[state]
        self._link[target] = clone
        return clone

    def _state(self, transitions: dict[int, int], link: int, length: int) -> int:
        self._next.append(transitions)
        self._link.append(link)
        self._length.append(length)
        return len(self._next) - 1
