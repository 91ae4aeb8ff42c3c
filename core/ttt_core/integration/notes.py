"""Lines of retrieved pieces: for one prompt, the documents of a group stand for them."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

MOST_LINES = 1 << 16
"""That are remembered for one model; those noted last stay."""


class Noted(NamedTuple):
    """What is known of the lines of a prompt.

    Attributes:
        identifier: Of the group.
        stands: For each line, whether the group's documents stand for it.
        known: For each line, whether it was noted with that group; it may have to stay.
    """

    identifier: str
    stands: list[bool]
    known: list[bool]


@dataclass
class _Line:
    stands: Counter[str] = field(default_factory=Counter)
    stays: Counter[str] = field(default_factory=Counter)


class Notes:
    """By digests of lines, how many prompts that hold them are still to come, for each group.

    A note is good for one prompt: another engine may show the same pieces and mean them. Its users
    see to it that they take turns.
    """

    def __init__(self, most: int = MOST_LINES) -> None:
        self._lines: OrderedDict[tuple[str, str], _Line] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self._lines)

    def add(self, folder: str, identifier: str, digests: Sequence[str], *, stands: bool) -> None:
        """Note lines that a prompt is going to hold.

        Args:
            folder: Of the namespace.
            identifier: Of a group of documents.
            digests: Of the lines.
            stands: Whether the documents stand for them, or they are to stay beside these.
        """
        for digest in digests:
            key = (folder, digest)
            line = self._lines.setdefault(key, _Line())
            counter = line.stands if stands else line.stays
            counter[identifier] = counter.pop(identifier, 0) + 1  # The last one stands last.
            self._lines.move_to_end(key)
        while len(self._lines) > self._most:
            self._lines.popitem(last=False)

    def find(self, folder: str, digests: Sequence[str], weights: Sequence[int]) -> Noted | None:
        """Find the group with which most of the lines were noted; of equals the one noted last.

        Args:
            folder: Of the namespace.
            digests: Of the lines of a prompt.
            weights: What each of them counts.
        """
        lines = [self._lines.get((folder, digest)) or _Line() for digest in digests]
        shares: Counter[str] = Counter()
        for line, weight in zip(lines, weights, strict=True):
            for identifier in line.stands | line.stays:
                shares[identifier] += weight
        if not shares:
            return None
        # Of equal counts, `max` takes the first: that of the line, and group, noted first.
        best = max(reversed(shares), key=shares.__getitem__)
        stands = [best in line.stands for line in lines]
        known = [best in line.stands or best in line.stays for line in lines]
        return Noted(best, stands, known)

    def take(self, folder: str, identifier: str, digests: Sequence[str]) -> None:
        """Strike out the lines of a prompt."""
        for digest in digests:
            line = self._lines.get((folder, digest))
            if line is None:
                continue
            counter = line.stands if identifier in line.stands else line.stays
            counter.subtract([identifier])
            if counter[identifier] <= 0:
                del counter[identifier]
            if not line.stands and not line.stays:
                del self._lines[folder, digest]
