"""Checks a transaction log from its text alone, and so proves what the generator made.

Shares no code with the generator: it reads the text, replays it and reports every broken rule.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ttt_core.errors import DocumentError

_ENTRY = re.compile(
    r"\[(TX\d+)\]: (Transfer \$(\d+): ([A-Z])=(-?\d+) -> (-?\d+), ([A-Z])=(-?\d+) -> (-?\d+))"
)
_INITIAL = "Initial balances: "


class Anomaly(NamedTuple):
    """A broken rule."""

    bug_type: str
    bug_location: str
    """The id of the entry."""


def check_log(text: str) -> list[Anomaly]:
    """Replay a log and return all anomalies, in the order of the entries.

    An entry that says the same as an earlier one is a duplicate, and nothing else. What an entry
    wrote, right or wrong, is what the next one has to continue from.

    Raises:
        DocumentError: The text is no log.
    """
    last = _initial_balances(text)
    seen: set[str] = set()
    found: list[Anomaly] = []
    for entry in _ENTRY.finditer(text):
        location, content = entry[1], entry[2]
        repeated = bool({location, content} & seen)
        kinds = ["DUPLICATE_TXN"] if repeated else _broken(entry, last)
        found += [Anomaly(kind, location) for kind in kinds]
        seen |= {location, content}
        last |= {entry[4]: int(entry[6]), entry[7]: int(entry[9])}
    return found


def _initial_balances(text: str) -> dict[str, int]:
    lines = [line for line in text.splitlines() if line.startswith(_INITIAL)]
    if len(lines) != 1:
        raise DocumentError(f"expected one line of initial balances, found {len(lines)}")
    pairs = (pair.split("=") for pair in lines[0].removeprefix(_INITIAL).split(", "))
    return {account: int(balance) for account, balance in pairs}


def _broken(entry: re.Match[str], last: dict[str, int]) -> list[str]:
    """List the rules that an entry breaks by itself or against the last balances."""
    amount, had, has, held, holds = (int(entry[group]) for group in (3, 5, 6, 8, 9))
    broken = {
        "CALC_ERROR": (has, holds) != (had - amount, held + amount),
        "NEGATIVE_BAL": min(has, holds) < 0,
        "LOST_UPDATE": (had, held) != (last[entry[4]], last[entry[7]]),
    }
    return [kind for kind, so in broken.items() if so]
