"""What evaluations are made of: documents, questions on them, and tasks that produce both.

Light: loads no torch. Generated tasks (`ttt_core.sandbox.tasks`) and published benchmarks
(`ttt_core.evaluation`) are the same to whoever runs them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

Split = Literal["tune", "score"]
"""Settings may be chosen on `tune`; figures are made of `score`. They share no example."""


@dataclass(frozen=True)
class Question:
    """One question on a document, and what a right answer says.

    Attributes:
        id: Tells it from the other questions of its document.
        text: What is asked, the form of the answer included.
        references: Right answers; several where each of them counts.
        chance: Expected score of who knows the form of the answers, but not the document.
        needles: Pieces of the document, verbatim, that the answer rests on; empty: not known.
        choices: The answers to choose from, in order; empty: the answer is free.
        groups: By what results are broken down: names and values, such as `difficulty: hard`.
        max_new_tokens: Room for the answer, where it differs from the task's.
    """

    id: str
    text: str = field(repr=False)
    references: tuple[str, ...] = field(repr=False)
    chance: float = 0.0
    needles: tuple[str, ...] = field(default=(), repr=False)
    choices: tuple[str, ...] = field(default=(), repr=False)
    groups: Mapping[str, str] = field(default_factory=dict)
    max_new_tokens: int | None = None


@dataclass(frozen=True)
class Example:
    """A document and the questions on it.

    Attributes:
        id: Tells it from the other examples of its task and length.
        document: The text.
        questions: At least one.
        length: Its place on the length axis, in the task's unit; None: as long as it is.
        source: Names what it shares with other examples, which are not independent of it then: a
            story, or a document that several examples ask about; a hash where it would quote one.
            None: nothing.
    """

    id: str
    document: str = field(repr=False)
    questions: tuple[Question, ...]
    length: int | None = None
    source: str | None = None


@runtime_checkable
class Task(Protocol):
    """Produces examples, and scores answers to their questions.

    Attributes:
        name: In lower case, with hyphens; names the task on the command line and in results.
        description: One sentence.
        unit: What lengths count, such as `lines`; empty if the task has no length axis.
        lengths: The lengths that are asked for if nobody says which; the shortest first.
        max_new_tokens: Room for an answer, unless the question has its own.
    """

    name: str
    description: str
    unit: str
    lengths: tuple[int, ...]
    max_new_tokens: int

    def examples(
        self, length: int | None, *, split: Split, seed: int, count: int
    ) -> Iterator[Example]:
        """Yield at most `count` examples; the same arguments always yield the same ones.

        Args:
            length: In `unit`; None where there is no length axis. Generated tasks keep seed and
                needle while the haystack grows with `length`.
            split: Which of two disjoint sets.
            seed: Other seeds give other documents (benchmarks: another draw).
            count: How many.

        Raises:
            ValueError: There can be no document of that length.
            DocumentError: A benchmark's data are not there, or not as they should be.
        """
        ...

    def score(self, answer: str, question: Question) -> float:
        """Return how good an answer is, from 0 to 1."""
        ...
