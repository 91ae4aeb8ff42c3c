"""Looking up records by their keys, one record a line: what the registry and the ledger share.

A longer document has all lines of the shorter one, in the same order, with others between them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from random import Random

from ttt_core.errors import ConfigError
from ttt_core.examples import Example, Question, Split
from ttt_core.sandbox.registry import format_record, is_correct, make_question
from ttt_core.sandbox.tasks.lengths import check_length
from ttt_core.sandbox.tasks.seeds import stream

Record = tuple[str, str]
"""Key and value."""


class LookupTask(ABC):
    """Asks for records in the words of the sandbox; the answer restates the record.

    A subclass says which records there are, and in which order they come in as documents grow. The
    first ones are asked for, at every length (all of them if the document has fewer lines).

    Args:
        questions: How many records of a document are asked for.
    """

    name: str
    description: str
    unit = "lines"
    lengths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    max_new_tokens = 16

    def __init__(self, *, questions: int = 32) -> None:
        if questions < 1:
            raise ConfigError(f"questions must be at least 1, got {questions}")
        self._questions = questions

    @property
    @abstractmethod
    def _most(self) -> int:
        """The lines of the longest document."""

    @abstractmethod
    def _records(self, rng: Random) -> Sequence[Record]:
        """Draw `_most` records with distinct keys."""

    @abstractmethod
    def _chance(self, record: Record) -> float:
        """Return the chance to guess the value for who knows the possible ones."""

    def _groups(self, record: Record) -> Mapping[str, str]:
        """Return the groups of the question for a record."""
        return {}

    def examples(
        self, length: int | None, *, split: Split, seed: int, count: int
    ) -> Iterator[Example]:
        """Yield documents of `length` lines; see `Task`.

        Raises:
            ConfigError: There are no so many keys, or `length` is below 1.
        """
        lines = check_length(length, self.unit, least=1, most=self._most)
        return (self._example(lines, split, seed, index) for index in range(count))

    def score(self, answer: str, question: Question) -> float:
        """Return 1 if the answer restates the record, key and value, white space aside."""
        key, _, value = question.references[0].partition(": ")
        return float(is_correct(answer, make_question(key, value)))

    def _example(self, length: int, split: Split, seed: int, index: int) -> Example:
        records = self._records(stream(self.name, split, seed, index, "records"))[:length]
        order = stream(self.name, split, seed, index, "order")
        # A number for each record, in the order in which they come in: those that come later
        # go between the others, and move none of them.
        placed = sorted((order.random(), record) for record in records)
        text = "".join(format_record(*record) + "\n" for _, record in placed)
        asked = records[: self._questions]
        questions = tuple(self._question(str(i), record) for i, record in enumerate(asked))
        return Example(f"{split}-{seed}-{index}", text, questions, length)

    def _question(self, number: str, record: Record) -> Question:
        made = make_question(*record)
        return Question(
            id=number,
            text=made.text,
            references=(made.answer,),
            chance=self._chance(record),
            needles=(made.answer,),
            groups=self._groups(record),
        )
