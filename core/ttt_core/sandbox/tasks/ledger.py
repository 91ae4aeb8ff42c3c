"""A ledger whose keys are near duplicates of one another: hard distractors in few lines.

With n lines there are about as many adjectives as nouns, the square root of n each, and every
combination of them is a key. So each key shares its adjective with the square root of n others,
and its noun with as many; in the registry it takes thousands of lines to have so many.

Keys that move (of two lines of one key, the last one holds) would be the more usual ledger. The
bundled model takes either line, at 64 lines already: there would be nothing to dilute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from random import Random

from ttt_core.sandbox.tasks.lookup import LookupTask, Record
from ttt_core.sandbox.words import adjectives, nouns, places


class Ledger(LookupTask):
    """Records with keys from a square of words; a value is a place, or a noun.

    Nouns are values that the bundled model has never seen as such, and they are in keys, too. Half
    of the values are nouns; results are broken down by it (group `value`). Chance is that of a
    guess among all nouns and places.
    """

    name = "ledger"
    description = "What does it say of this key, going by a ledger full of similar keys?"

    @property
    def _most(self) -> int:
        return min(len(adjectives()), len(nouns())) ** 2

    def _records(self, rng: Random) -> Sequence[Record]:
        first = rng.sample(adjectives(), len(adjectives()))
        second = rng.sample(nouns(), len(nouns()))
        side = min(len(first), len(second))
        # Around the square of the first few words of each kind comes the next larger one.
        drawn = [(max(cell), rng.random(), cell) for cell in product(range(side), repeat=2)]
        return [
            (f"{first[row]} {second[column]}", rng.choice(rng.choice((places(), nouns()))))
            for _, _, (row, column) in sorted(drawn)
        ]

    def _chance(self, record: Record) -> float:
        return 1 / (len(places()) + len(nouns()))

    def _groups(self, record: Record) -> Mapping[str, str]:
        return {"value": "place" if record[1] in places() else "noun"}
