"""Generated documents with known answers: a registry, one record a line.

A line reads `amber falcon: Oslo`. Its key has two words, and in a long registry both are shared
with many other lines, so that only their combination tells a record from its neighbours. Seeded,
pure Python; no torch.
"""

import random
from dataclasses import dataclass

from ttt_core.sandbox.words import adjectives, nouns, places


@dataclass(frozen=True)
class Question:
    """A question about one record, and what a right answer says."""

    text: str
    key: str
    value: str
    answer: str
    """The record restated: the sandbox model answers so, and so would a careful person."""


@dataclass(frozen=True)
class Registry:
    """A document and the questions that it answers."""

    text: str
    records: tuple[tuple[str, str], ...]
    """Every (key, value), in the order of the lines."""
    questions: tuple[Question, ...]


def max_lines() -> int:
    """Return how many distinct keys there are, and so how many lines a registry can have."""
    return len(adjectives()) * len(nouns())


def format_record(key: str, value: str) -> str:
    """Write one record as it stands in the document, without its newline."""
    return f"{key}: {value}"


def make_question(key: str, value: str) -> Question:
    """Ask for the value of `key`."""
    return Question(f"Where is {key}?", key, value, format_record(key, value))


def make_registry(lines: int, *, seed: int, questions: int = 32) -> Registry:
    """Generate a registry of `lines` records with distinct keys.

    Args:
        lines: The number of records.
        seed: The same arguments always give the same registry.
        questions: How many records are asked for, each at most once, drawn uniformly over the
            lines; a registry with fewer lines is asked for all of them.

    Raises:
        ValueError: If `lines` is not between 1 and `max_lines()`, or `questions` is negative.
    """
    if not 1 <= lines <= max_lines():
        raise ValueError(f"lines must be between 1 and {max_lines()}, got {lines}")
    if questions < 0:
        raise ValueError(f"questions must not be negative, got {questions}")
    rng = random.Random(seed)
    records = tuple((key, rng.choice(places())) for key in _draw_keys(lines, rng))
    text = "".join(format_record(key, value) + "\n" for key, value in records)
    asked = rng.sample(records, min(questions, lines))
    return Registry(text, records, tuple(make_question(key, value) for key, value in asked))


def _draw_keys(count: int, rng: random.Random) -> list[str]:
    """Draw distinct keys uniformly from all pairs of an adjective and a noun."""
    first, second = adjectives(), nouns()
    drawn = rng.sample(range(max_lines()), count)
    return [f"{first[index // len(second)]} {second[index % len(second)]}" for index in drawn]


def is_correct(answer_text: str, question: Question) -> bool:
    """Tell whether the answer restates the record, key and value both, white space aside."""
    return answer_text.split() == question.answer.split()


def value_correct(answer_text: str, question: Question) -> bool:
    """Tell whether the answer ends in the right value, whatever it says of the key."""
    return answer_text.split()[-1:] == [question.value]
