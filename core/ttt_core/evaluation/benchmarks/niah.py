"""Needle in a haystack: one sentence, hidden at a known depth of a text that has nothing to do
with it.

Kamradt 2023, https://github.com/gkamradt/LLMTest_NeedleInAHaystack, whose needle, question and
insertion behind a full stop these are. There a judge model gives 1 to 10 points; here an answer is
right if it contains all key phrases, which needs no judge and cannot be argued with.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from ttt_core.document import Document
from ttt_core.errors import ConfigError, DocumentError
from ttt_core.evaluation.data import Source, text_files
from ttt_core.examples import Example, Question, Split
from ttt_core.sandbox.tasks.lengths import check_length
from ttt_core.sandbox.tasks.retrieval_haystack import count_words, filler, take_words
from ttt_core.sandbox.tasks.seeds import stream

GENERATED = "generated"
"""The source that is no file: seeded sentences that look like English."""

# A sentence ends at a stop before white space, or at an empty line; the white space behind it
# belongs to it, so that joining sentences gives the text. Scripts without spaces have no words to
# count, and so no place here.
_SENTENCE = re.compile(r".+?(?:[.!?…]+[\"'\u201d\u2019)\]]*(?=\s)|\n\s*\n|\Z)\s*", re.S)


@dataclass(frozen=True)
class Needle:
    """What is hidden, and how it is asked for.

    Attributes:
        text: A sentence.
        question: What it answers.
        answer: A right answer.
        keys: Phrases that an answer must contain, all of them, in either case.
    """

    text: str = field(repr=False)
    question: str = field(repr=False)
    answer: str = field(repr=False)
    keys: tuple[str, ...] = field(repr=False)


SANDWICH = Needle(
    text=(
        "The best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a "
        "sunny day."
    ),
    question="What is the best thing to do in San Francisco?",
    answer="Eat a sandwich and sit in Dolores Park on a sunny day.",
    keys=("sandwich", "Dolores Park"),
)
"""The original. Known flaw: models have read about it, so an answer may come from memory."""


class NeedleInAHaystack:
    """Accuracy by depth and length in words; examples go through the depths in turn, and the next
    seed begins one depth further on, so that a few examples of several seeds reach all depths.

    A document is whole sentences, at most `length` words with the needle. It begins at a drawn
    sentence and goes on at the beginning when the text is over; `tune` begins at every tenth
    sentence, `score` at the others, so they share no document. An example's haystack begins the
    same at every length.

    Chance is stated as 0, for who knows only the form; see `SANDWICH` on memory.

    Args:
        source: A .txt or .md file, a folder of them, or `generated`.
        needle: What is hidden.
        depths: Percent of the sentences that stand in front of the needle.
    """

    name = "niah"
    description = "Needle in a haystack: find one sentence at any depth of an unrelated text"
    unit = "words"
    lengths = (500, 1000, 2000, 4000, 8000, 16000)
    max_new_tokens = 64

    def __init__(
        self,
        source: Source = GENERATED,
        *,
        needle: Needle = SANDWICH,
        depths: Sequence[int] = (0, 25, 50, 75, 100),
    ) -> None:
        if not depths or not all(0 <= depth <= 100 for depth in depths):
            raise ConfigError(f"depths must be percentages of 0 to 100, got {list(depths)}")
        if not needle.keys or not all(key.lower() in needle.answer.lower() for key in needle.keys):
            raise ConfigError("a needle needs keys, and its answer must contain them")
        self._source, self._needle, self._depths = source, needle, tuple(depths)
        self._sentences: tuple[str, ...] | None = None

    def examples(
        self, length: int | None, *, split: Split, seed: int, count: int
    ) -> Iterator[Example]:
        """Yield documents of at most `length` words; see `Task`.

        Raises:
            ConfigError: The needle alone is longer, or the haystack is shorter.
            DocumentError: There is no haystack, or it has no sentences.
        """
        least = count_words(self._needle.text) + 1
        words = check_length(length, self.unit, least=least)
        return (self._example(words, split, seed, index) for index in range(count))

    def score(self, answer: str, question: Question) -> float:
        """Return 1 if the answer contains all keys, white space and case aside, else 0."""
        plain = " ".join(answer.lower().split())
        return float(all(" ".join(key.lower().split()) in plain for key in self._needle.keys))

    def _example(self, words: int, split: Split, seed: int, index: int) -> Example:
        depth = self._depths[(seed + index) % len(self._depths)]
        room = words - count_words(self._needle.text)
        hay = self._hay(room, split, seed, index)
        place = round(len(hay) * depth / 100)
        before, behind = "".join(hay[:place]), "".join(hay[place:])
        question = Question(
            id="1",
            text=self._needle.question,
            references=(self._needle.answer,),
            needles=(self._needle.text,),
            groups={"depth": f"{depth}%"},
        )
        return Example(
            id=f"{split}-{seed}-{index}",
            document=f"{before}{self._needle.text} {behind}".strip(),
            questions=(question,),
            length=words,
        )

    def _hay(self, words: int, split: Split, seed: int, index: int) -> list[str]:
        """Return sentences of at most `words` words, each with the white space behind it."""
        rng = stream(self.name, split, seed, index, "haystack")
        if self._source == GENERATED:
            return [f"{one} " for one in take_words(filler("text", rng), words)]
        text = self._read()
        starts = [n for n in range(len(text)) if (n % 10 == 0) == (split == "tune")]
        if not starts:
            raise DocumentError(
                f"{self._source}: expected at least two sentences, found {len(text)}"
            )
        start = rng.choice(starts)
        return _first_words([*text[start:], *text[:start]], words, str(self._source))

    def _read(self) -> tuple[str, ...]:
        """Read all files once, and part them into sentences."""
        if self._sentences is None:
            texts = [Document.from_file(path).text + "\n\n" for path in text_files(self._source)]
            self._sentences = tuple(one for text in texts for one in sentences(text))
        return self._sentences


def sentences(text: str) -> list[str]:
    """Part a text at sentence ends, so that joining the parts gives the text again."""
    return [found[0] for found in _SENTENCE.finditer(text)]


def _first_words(text: Sequence[str], words: int, source: str) -> list[str]:
    """Take as many of the sentences as have at most `words` words together.

    Raises:
        ConfigError: There are not that many words, so that a longer document would not be longer.
    """
    totals = list(accumulate(count_words(one) for one in text))
    if totals[-1] < words:
        raise ConfigError(
            f"{source} has {totals[-1]:,} words, but a document of this length needs {words:,}: "
            f"give more text, or ask for a shorter length"
        )
    return list(text[: bisect_right(totals, words)])
