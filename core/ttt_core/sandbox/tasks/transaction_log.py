"""Generates a bank's transaction log with exactly one anomaly, growing from the anomaly outwards.

The anomalous entry and the state of the accounts at that moment are drawn first. Earlier entries
are then drawn backwards in time and later ones forwards, so a longer log has the shorter one inside
it, word for word but for the ids, and nothing has to be steered. The initial balances follow.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple, get_args

BugType = Literal["CALC_ERROR", "NEGATIVE_BAL", "LOST_UPDATE", "DUPLICATE_TXN"]
BUG_TYPES: tuple[BugType, ...] = get_args(BugType)

ACCOUNTS = ("A", "B", "C", "D", "E", "F")
SHORTEST = 16
"""Entries of the shortest log: what the anomaly conflicts with is in it."""
_FARTHEST = 8
"""How many entries before the anomaly the other one can be."""
_MOST = 999
"""Dollars of the greatest transfer."""
_MONEY = 15_000
"""Dollars in all accounts when the anomaly comes."""
_SLIPS = (1, 9, 10, 90, 100)
"""By how much a miscalculated balance is off, up or down: a carry, two digits swapped."""


class Entry(NamedTuple):
    """A transfer from `source` to `target`: each account's balance before and after, in dollars."""

    source: str
    target: str
    amount: int
    source_before: int
    source_after: int
    target_before: int
    target_after: int

    def write(self, number: int) -> str:
        """Write it as the paper's log does, without the newline."""
        return (
            f"[{entry_id(number)}]: Transfer ${self.amount}: "
            f"{self.source}={self.source_before} -> {self.source_after}, "
            f"{self.target}={self.target_before} -> {self.target_after}"
        )


@dataclass(frozen=True)
class Log:
    """A log and its one anomaly.

    Attributes:
        initial: Balance by account, before the first entry.
        entries: All entries; number 1 is the first.
        bug_type: What is wrong.
        bug: The number of the entry that is wrong.
        other: The number of the one that it conflicts with: whose update is lost, or that is
            repeated; None: it is wrong by itself.
    """

    initial: dict[str, int]
    entries: tuple[Entry, ...]
    bug_type: BugType
    bug: int
    other: int | None


def entry_id(number: int) -> str:
    """Return the id of entry `number`."""
    return f"TX{number:03}"


def make_log(length: int, bug_type: BugType, needle: Random, haystack: Random) -> Log:
    """Generate a log of `length` entries.

    Args:
        length: At least `SHORTEST`. Each greater length adds one entry at one of the ends.
        bug_type: What is to be wrong.
        needle: Draws the anomaly, where it is, and the entries to the one it conflicts with.
        haystack: Draws the others.
    """
    # Not among the first sixteenth: there must be an entry to conflict with at every length.
    depth = (1 + (SHORTEST - 1) * needle.random()) / SHORTEST
    gap = needle.randint(1, min(_FARTHEST, int(depth * SHORTEST)))
    grown = _start(bug_type, gap, needle)
    behind = 0
    for shorter in range(1, length):
        if int(depth * (shorter + 1)) == int(depth * shorter):
            grown.append(haystack)
            behind += 1
        elif shorter - behind > gap:  # The nearest ones are there.
            grown.prepend(haystack)
    bug = length - behind
    paired = bug_type in ("LOST_UPDATE", "DUPLICATE_TXN")
    return Log(grown.first, tuple(grown.entries), bug_type, bug, bug - gap if paired else None)


class _Growing:
    """A log that grows at both ends, with balances at its ends.

    Args:
        first: Balance by account.
    """

    def __init__(self, first: dict[str, int]) -> None:
        self.entries: list[Entry] = []
        self.first = first
        self._last = dict(first)
        self._seen: set[Entry] = set()

    def balance(self, account: str) -> int:
        """Return an account's balance at the end."""
        return self._last[account]

    def knows(self, entry: Entry) -> bool:
        """Tell whether there is an entry that says the same."""
        return entry in self._seen

    def add(self, entry: Entry) -> None:
        """Append an entry as it is, right or wrong."""
        self.entries.append(entry)
        self._seen.add(entry)
        self._last[entry.source] = entry.source_after
        self._last[entry.target] = entry.target_after

    def append(self, rng: Random) -> None:
        """Append a random right entry."""
        while True:
            source, target, amount = _transfer(rng, ACCOUNTS)
            entry = _right(source, target, amount, self._last[source], self._last[target])
            # An overdrawn account first gets its money back, in one go.
            if min(entry.source_after, entry.target_after) >= 0 and not self.knows(entry):
                return self.add(entry)

    def prepend(
        self, rng: Random, *, among: Collection[str] = ACCOUNTS, touching: str | None = None
    ) -> None:
        """Put a random right entry in front, between accounts `among`, one of them `touching`."""
        while True:
            source, target, amount = _transfer(rng, among)
            before = self.first[source] + amount, self.first[target] - amount
            entry = _right(source, target, amount, *before)
            fits = touching is None or touching in (source, target)
            if fits and entry.target_before >= 0 and not self.knows(entry):
                break
        self.entries.insert(0, entry)
        self._seen.add(entry)
        self.first = {**self.first, source: before[0], target: before[1]}


def _transfer(rng: Random, among: Collection[str]) -> tuple[str, str, int]:
    source, target = rng.sample(sorted(among), 2)
    return source, target, rng.randint(1, _MOST)


def _right(source: str, target: str, amount: int, has: int, gets: int) -> Entry:
    return Entry(source, target, amount, has, has - amount, gets, gets + amount)


def _start(bug_type: BugType, gap: int, rng: Random) -> _Growing:
    """Draw the anomaly and the `gap` entries before it."""
    while True:
        grown = _Growing(_balances(rng))
        stale = rng.choice(ACCOUNTS)
        lost = bug_type == "LOST_UPDATE"
        for distance in range(1, gap + 1):
            others = [each for each in ACCOUNTS if each != stale]
            hidden = lost and distance < gap
            grown.prepend(
                rng,
                among=others if hidden else ACCOUNTS,
                touching=stale if lost and not hidden else None,
            )
        entry = _wrong(grown, bug_type, stale, rng)
        if entry is not None:
            grown.add(entry)
            return grown


def _balances(rng: Random) -> dict[str, int]:
    """Divide the money uniformly among the accounts, as long random transfers do.

    So the balances around the anomaly look like all others.
    """
    cuts = sorted(rng.randint(0, _MONEY) for _ in ACCOUNTS[1:])
    return {
        account: upper - lower
        for account, lower, upper in zip(ACCOUNTS, [0, *cuts], [*cuts, _MONEY], strict=True)
    }


def _wrong(grown: _Growing, bug_type: BugType, stale: str, rng: Random) -> Entry | None:
    """Draw an entry that is wrong as asked for behind those that there are; None: try again."""
    if bug_type == "DUPLICATE_TXN":
        entry = grown.entries[0]
        last = grown.balance(entry.source), grown.balance(entry.target)
        return None if last == (entry.source_before, entry.target_before) else entry
    source, target, amount = _transfer(rng, ACCOUNTS)
    has, gets = grown.balance(source), grown.balance(target)
    if bug_type == "LOST_UPDATE":
        if stale not in (source, target):
            return None
        has = grown.first[stale] if source == stale else has
        gets = grown.first[stale] if target == stale else gets
    entry = _right(source, target, amount, has, gets)
    if bug_type == "CALC_ERROR":
        slip = rng.choice(_SLIPS) * rng.choice((-1, 1))
        side = rng.choice(("source_after", "target_after"))
        entry = entry._replace(**{side: getattr(entry, side) + slip})
    overdrawn = min(entry.source_after, entry.target_after) < 0
    fits = overdrawn == (bug_type == "NEGATIVE_BAL") and not grown.knows(entry)
    return entry if fits else None
