"""Quoting from text: which line of a passage of source code contains a given word?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from random import Random

from ttt_core.examples import Example, Question, Split
from ttt_core.sandbox.larger.source_text import passage
from ttt_core.sandbox.tasks.seeds import stream

_WORD = re.compile(r"[A-Za-z_]{4,}")
_QUESTIONS = 4
_MOST_CHARS = 100
"""Of a line that is asked for."""


class QuoteLine:
    """Asks for lines by words that no other line of the passage has.

    A task for training only: its passages are the standard library's, which is what the model's
    training text is made of.

    Args:
        source_chars: At most so many characters of the library are used.
    """

    name = "quote-line, training"
    description = "Which line of a passage contains a word?"
    unit = "lines"
    lengths: tuple[int, ...] = (25, 50, 100)
    max_new_tokens = 64

    def __init__(self, source_chars: int) -> None:
        self._source_chars = source_chars

    def examples(
        self, length: int | None, *, split: Split, seed: int, count: int
    ) -> Iterator[Example]:
        """Yield passages of at most `length` lines; see `Task`."""
        for index in range(count):
            rng = stream(self.name, split, seed, index, "passage")
            yield self._example(f"{split}-{seed}-{index}", length or self.lengths[0], rng)

    def score(self, answer: str, question: Question) -> float:
        """Return 1 if the answer is the line, white space at its ends aside."""
        return float(answer.strip() in question.references)

    def _example(self, name: str, length: int, rng: Random) -> Example:
        while True:
            lines = passage(rng, length, most_chars=self._source_chars)
            asked = _unique_words(lines)
            if asked:
                break
        chosen = rng.sample(asked, min(_QUESTIONS, len(asked)))
        questions = tuple(_question(str(i), *pair) for i, pair in enumerate(chosen))
        return Example(name, "\n".join(lines) + "\n", questions, length)


def _unique_words(lines: list[str]) -> list[tuple[str, str]]:
    """List words that stand in one line only, not even as a part of another word, and their lines.

    A word's letters within a longer word would be a second answer.
    """
    text = "\n".join(lines)
    words = Counter(word for line in lines for word in set(_WORD.findall(line)))
    single = {word for word, count in words.items() if count == 1 and text.count(word) == 1}
    return [
        (word, line.strip())
        for line in lines
        if len(line.strip()) <= _MOST_CHARS
        for word in dict.fromkeys(_WORD.findall(line))
        if word in single
    ]


def _question(number: str, word: str, line: str) -> Question:
    return Question(
        id=number,
        text=f"Quote the line that contains `{word}`.",
        references=(line,),
        needles=(line,),
    )
