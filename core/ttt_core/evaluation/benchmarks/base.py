"""What benchmarks share: which rows choose settings, which are scored, and which are drawn.

A benchmark's examples have ids of their own, and everything here is decided by them: adding rows,
or shuffling the file, moves no example from one split to the other.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from ttt_core.errors import DocumentError
from ttt_core.evaluation.data import Source, read_rows
from ttt_core.examples import Example, Question, Split

TUNE_SHARE = 0.1
"""Of the examples, in which settings may be chosen; by chance, so small files may have none."""


class Benchmark(ABC):
    """A `Task` whose examples are read from somewhere; see `ttt_core.examples.Task`.

    A subclass names itself and says how to read all examples and how to score an answer.
    """

    name: str
    description: str
    unit: str = ""
    lengths: tuple[int, ...] = ()
    max_new_tokens: int

    def __init__(self, source: Source) -> None:
        """Read from `source`: a file, a folder or `hub:owner/name`; nothing is read yet."""
        self.source = source

    @abstractmethod
    def all_examples(self) -> Iterator[Example]:
        """Yield every example in the file's order.

        Raises:
            DocumentError: The data are not there, or not as they should be.
        """

    @abstractmethod
    def score(self, answer: str, question: Question) -> float:
        """Return how good an answer is, from 0 to 1."""

    def examples(
        self, length: int | None, *, split: Split, seed: int, count: int
    ) -> Iterator[Example]:
        """Yield `count` examples of a split (all of it if it has fewer), in a seeded order.

        `tune` is a tenth of the examples, told by a hash of their sources (of their ids, where
        they have none), whatever the seed, so that no source is in both; `score` is the rest. A
        larger count begins with the examples of a smaller one.

        Raises:
            ValueError: A length was asked for.
            DocumentError: The data are not there, or not as they should be, or none are of this
                split.
        """
        if length is not None:
            raise ValueError(f"{self.name} has no length axis; expected None, got {length}")
        there: Counter[Split] = Counter()
        yield from draw(self.name, self._of_split(split, there), seed=seed, count=count)
        if count > 0 and not there[split]:
            raise DocumentError(
                f"{self.source} has no example for the split {split!r}, and {there.total():,} in "
                f"all; of many, a tenth is 'tune', for choosing settings, and the rest is 'score'"
            )

    def _of_split(self, split: Split, there: Counter[Split]) -> Iterator[Example]:
        """Yield the examples of a split, and count those of both."""
        for example in distinct(self.all_examples()):
            own = split_of(self.name, example.source or example.id)
            there[own] += 1
            if own == split:
                yield example


def split_of(benchmark: str, source_id: str) -> Split:
    """Tell the split of an example; the same for every seed, so that none is ever in both."""
    return "tune" if _uniform(benchmark, "split", source_id) < TUNE_SHARE else "score"


def draw(benchmark: str, examples: Iterable[Example], *, seed: int, count: int) -> list[Example]:
    """Draw `count` examples without replacement, holding no more than those in memory."""
    return heapq.nsmallest(
        max(0, count),
        examples,
        key=lambda one: (_uniform(benchmark, f"seed {seed}", one.id), one.id),
    )


def source_of(text: str) -> str:
    """Name a text by a hash, which tells nothing of it."""
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def distinct(examples: Iterable[Example]) -> Iterator[Example]:
    """Pass examples on, and insist on ids of their own.

    Raises:
        DocumentError: Two have the same id.
    """
    seen: set[str] = set()
    for number, example in enumerate(examples, 1):
        if example.id in seen:
            raise DocumentError(f"example {number:,} has the id of an earlier one: {example.id!r}")
        seen.add(example.id)
        yield example


def _uniform(*parts: str) -> float:
    """Hash texts to a number in [0, 1)."""
    digest = sha256("\0".join(parts).encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@dataclass(frozen=True)
class Record:
    """A row that knows where it stands, and says which field is not as it should be."""

    where: str
    fields: Mapping[str, Any]

    def text(self, field: str) -> str:
        """Return a field that must be text with at least one character that is not white space.

        Raises:
            DocumentError: It is missing, of another type, or blank.
        """
        value = self.fields.get(field)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(field, "text", kind(value))
        return value

    def texts(self, field: str) -> tuple[str, ...]:
        """Return a field that must be a text or a list of texts, at least one.

        Raises:
            DocumentError: It is missing, empty, or of another type.
        """
        value = self.fields.get(field)
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not values:
            raise self.wrong(field, "a text or a list of them", kind(value))
        for one in values:
            if not isinstance(one, str):
                raise self.wrong(field, "a list of texts", f"{kind(one)} in it")
        return tuple(values)

    def integer(self, field: str) -> int:
        """Return a field that must be a whole number; tables hold them as text.

        Raises:
            DocumentError: It is missing, or something else.
        """
        value = self.fields.get(field)
        if isinstance(value, str) and value.strip().removeprefix("-").isdecimal():
            return int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(field, "a whole number", kind(value))
        return value

    def wrong(self, field: str, expected: str, found: str) -> DocumentError:
        """Make the error that says what is wrong with a field; `found` must not quote it."""
        return DocumentError(f"{self.where}, field {field!r}: expected {expected}, found {found}")


def records(
    source: Source, *, split: str | None = None, name: str | None = None
) -> Iterator[Record]:
    """Yield the rows of `read_rows` as records, counted from 1.

    Raises:
        DocumentError: As `read_rows` does.
    """
    for number, row in enumerate(read_rows(source, split=split, name=name), 1):
        yield Record(f"row {number:,} of {source}", row)


def kind(value: object) -> str:
    """Say what a value is, without quoting it."""
    if value is None:
        return "nothing"
    if isinstance(value, str | list | dict):
        empty = not (value.strip() if isinstance(value, str) else value)
        return f"{'an empty' if empty else 'a'} {type(value).__name__}"
    return type(value).__name__


def fifth(index: int, total: int) -> str:
    """Say in which fifth of `total` places the one at `index` (from 0) is: `1st fifth`."""
    return ("1st", "2nd", "3rd", "4th", "5th")[min(4, index * 5 // total)] + " fifth"
