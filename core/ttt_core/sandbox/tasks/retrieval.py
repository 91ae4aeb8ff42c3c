"""Key-value retrieval with many needles: one key among many, all values of a key, several keys.

In the sense of RULER (Hsieh et al. 2024, arXiv 2404.06654), with its needles and wording:
`One of the special magic numbers for amber-falcon is: 4170392.` Two deviations: the question says
how to answer, since our answers are not begun for the model, and one document may carry several
questions, since it is read once. Keys and values of a seed are the same at every length and in
every haystack.

Chance: who knows that an answer is a number of seven digits but has not read the document guesses
one of 9,000,000 for each reference, so 1.1e-7 is found of each when as many are guessed as are
asked for. That is the expected share for one reference, and v times it for v of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from ttt_core.errors import ConfigError
from ttt_core.examples import Example, Question, Split
from ttt_core.sandbox.tasks.lengths import check_length
from ttt_core.sandbox.tasks.retrieval_haystack import (
    Haystack,
    Needle,
    check_haystack,
    count_words,
    filler,
    lay_out,
    take_words,
)
from ttt_core.sandbox.tasks.retrieval_scoring import string_match_all
from ttt_core.sandbox.tasks.seeds import stream
from ttt_core.sandbox.words import adjectives, nouns

_VALUES = range(10**6, 10**7)
"""Seven digits, as in RULER."""


class Retrieval:
    """What the three tasks share.

    Args:
        haystack: What the needles are hidden in.
        questions: How many questions a document carries.
        queries: How many keys a question asks for.
        values: How many values a key has.
        keys: How many keys with needles there are at least, asked for or not; the haystack
            `needles` has as many more as fit.

    Raises:
        ConfigError: There is no such haystack, or a count is below 1.
    """

    name: str
    description: str
    unit = "words"
    lengths: tuple[int, ...] = (250, 500, 1000, 2000, 4000, 8000)
    max_new_tokens = 128

    def __init__(
        self,
        haystack: Haystack,
        *,
        questions: int,
        queries: int = 1,
        values: int = 1,
        keys: int = 1,
    ) -> None:
        check_haystack(haystack)
        if min(questions, queries, values, keys) < 1:
            raise ConfigError("questions, queries, values and keys must be at least 1")
        self._haystack = haystack
        self._questions = questions
        self._queries = queries
        self._values = values
        self._keys = max(keys, questions * queries)

    def examples(
        self, length: int | None, *, split: Split, seed: int, count: int
    ) -> Iterator[Example]:
        """Yield documents of at most `length` words, short of it by less than one sentence.

        Raises:
            ConfigError: The needles alone have more words, or there are too few keys for so many.
        """
        words = count_words(_needle("a-key", 0))
        most = len(_all_keys()) * words if self._haystack == "needles" else None
        length = check_length(length, self.unit, least=self._keys * self._values * words, most=most)
        for index in range(count):
            yield self._example(length, split, seed, index)

    def score(self, answer: str, question: Question) -> float:
        """Return the share of the references that the answer contains; see `string_match_all`."""
        return string_match_all(answer, question.references)

    def _example(self, length: int, split: Split, seed: int, index: int) -> Example:
        rng = stream(self.name, split, seed, index, "needle")
        keys = rng.sample(_all_keys(), self._keys)
        needles = self._draw_needles(keys, rng)
        hidden = [needle for each in needles.values() for needle in each]
        room = length - sum(count_words(needle.text) for needle in hidden)
        hay = take_words(self._hay(keys, stream(self.name, split, seed, index, "haystack")), room)
        return Example(
            id=f"{split}-{seed}-{index}",
            document=lay_out(hidden, hay, self._haystack),
            questions=tuple(
                self._question(number, keys[start : start + self._queries], needles)
                for number, start in enumerate(
                    range(0, self._questions * self._queries, self._queries)
                )
            ),
            length=length,
        )

    def _draw_needles(self, keys: Sequence[str], rng: Random) -> dict[str, list[Needle]]:
        """Give each key its values, no two of them the same, each at a depth of its own."""
        values = iter(rng.sample(_VALUES, len(keys) * self._values))
        return {
            key: [Needle(_needle(key, next(values)), rng.random()) for _ in range(self._values)]
            for key in keys
        }

    def _hay(self, keys: Sequence[str], rng: Random) -> Iterator[str]:
        """Yield the haystack's lines."""
        if self._haystack != "needles":
            yield from filler(self._haystack, rng)
        others = sorted(set(_all_keys()) - set(keys))
        for key in rng.sample(others, len(others)):
            yield _needle(key, rng.choice(_VALUES))

    def _question(
        self, number: int, keys: Sequence[str], needles: dict[str, list[Needle]]
    ) -> Question:
        asked = [needle for key in keys for needle in needles[key]]
        groups: dict[str, str] = {"haystack": self._haystack}
        if len(asked) == 1:
            groups["depth"] = _fifth(asked[0].depth)
        return Question(
            id=str(number),
            text=_ask(keys, len(asked)),
            references=tuple(_value(needle) for needle in asked),
            chance=len(asked) / len(_VALUES),
            needles=tuple(needle.text for needle in asked),
            groups=groups,
        )


class MultiKey(Retrieval):
    """One value is asked for, among many keys that look like its own.

    In the haystack `needles` (the default; RULER's `niah_multikey_2`) every line is such a key; in
    the others there are `keys` of them (`niah_multikey_1`). The group `depth` says in which fifth
    of the document the needle stands.
    """

    name = "multi-key"
    description = "Find the number of one key among many keys of the same form (RULER)."

    def __init__(
        self, haystack: Haystack = "needles", *, keys: int = 4, questions: int = 4
    ) -> None:
        super().__init__(haystack, questions=questions, keys=keys)


class MultiValue(Retrieval):
    """All values of one key are asked for (RULER's `niah_multivalue`)."""

    name = "multi-value"
    description = "Find all numbers that one key has, wherever they stand (RULER)."

    def __init__(self, haystack: Haystack = "text", *, values: int = 4, questions: int = 1) -> None:
        super().__init__(haystack, questions=questions, values=values)


class MultiQuery(Retrieval):
    """The values of several keys are asked for at once (RULER's `niah_multiquery`)."""

    name = "multi-query"
    description = "Find the numbers of several keys at once (RULER)."

    def __init__(
        self, haystack: Haystack = "text", *, queries: int = 4, questions: int = 1
    ) -> None:
        super().__init__(haystack, questions=questions, queries=queries)


def _all_keys() -> list[str]:
    """Return every key there can be."""
    return [f"{adjective}-{noun}" for adjective in adjectives() for noun in nouns()]


def _needle(key: str, value: int) -> str:
    """Write a needle as RULER does."""
    return f"One of the special magic numbers for {key} is: {value}."


def _value(needle: Needle) -> str:
    """Read the value off a needle."""
    return needle.text.rpartition(" ")[2].rstrip(".")


def _ask(keys: Sequence[str], answers: int) -> str:
    """Ask as RULER does, and say how to answer."""
    if answers == 1:
        return (
            f"What is the special magic number for {keys[0]} mentioned in the provided text? "
            f"Answer with the number only."
        )
    named = ", ".join(keys[:-1]) + f", and {keys[-1]}" if len(keys) > 1 else keys[0]
    return (
        f"What are all the special magic numbers for {named} mentioned in the provided text? "
        f"Answer with the numbers only, separated by commas."
    )


def _fifth(depth: float) -> str:
    """Name the fifth of the document that a depth lies in."""
    fifth = min(int(5 * depth), 4)
    return f"{20 * fifth}-{20 * fifth + 20}%"
