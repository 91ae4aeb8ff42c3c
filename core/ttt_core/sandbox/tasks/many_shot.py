"""Many-shot in-context classification: the document is demonstrations, the question a new text.

Built the way LongICLBench builds it (Li et al., 2024, arXiv 2404.02060; its `banking77_infer.py`):
demonstrations come in rounds in which every label occurs once, and the length counts the rounds.
Unlike there, the labels are shuffled within a round, and every example draws demonstrations of its
own. A longer document begins with the shorter one.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from ttt_core.errors import ConfigError, DocumentError
from ttt_core.examples import Example, Question, Split
from ttt_core.sandbox.tasks.lengths import check_length
from ttt_core.sandbox.tasks.seeds import stream


class Labelled(NamedTuple):
    """A text and its label, each on one line."""

    text: str
    label: str


class Pools(NamedTuple):
    """From what one example is drawn."""

    shown: Mapping[str, Sequence[str]]
    """By label, the texts that may be demonstrated."""
    asked: Sequence[Labelled]
    """The texts that may be asked for; none of them is shown."""


@dataclass(frozen=True)
class Wording:
    """How demonstrations and questions are written.

    Attributes:
        introduction: What stands above the demonstrations.
        text: What a text is called, without the colon.
        label: What a label is called, without the colon.
    """

    introduction: str = (
        "Predict the label of a text. The label must be one of those in the demonstrations, "
        "written exactly as there. Answer with the label only. The demonstrations:"
    )
    text: str = "text"
    label: str = "label"

    def demonstration(self, item: Labelled) -> str:
        """Write a text with its label, two lines."""
        return f"{self.question(item.text)} {item.label}"

    def question(self, text: str) -> str:
        """Write a text whose label is asked for."""
        return f"{self.text}: {text}\n{self.label}:"

    def asked_text(self, question: str) -> str:
        """Return the text that `question` made a question of."""
        return question.removeprefix(f"{self.text}: ").removesuffix(f"\n{self.label}:")

    def read_label(self, answer: str, text: str) -> str:
        """Read the label that an answer gives for `text`, in lower case, as LongICLBench does.

        What restates the text is skipped, what begins another demonstration is cut, and the first
        line of what is left counts. One deviation: an answer may begin with the label's name and a
        colon even where it doesn't restate the text.
        """
        answer = answer.rpartition(text)[2].strip().removeprefix(f"{self.label}:")
        lines = answer.split(f"{self.text}:")[0].strip().splitlines()
        return lines[0].strip().lower() if lines else ""


class ManyShotTask(ABC):
    """What tasks of many-shot classification share; they differ in where texts come from.

    Args:
        name: See `Task`; likewise `description`.
        wording: How it is written.
        questions: Questions on a document, each about another text, at most.
    """

    unit = "demonstrations per label"
    lengths: tuple[int, ...] = (1, 2, 3, 4, 5)
    max_new_tokens = 32

    def __init__(self, name: str, description: str, *, wording: Wording, questions: int) -> None:
        if questions < 1:
            raise ConfigError(f"questions must be at least 1, got {questions}")
        self.name = name
        self.description = description
        self._wording = wording
        self._questions = questions

    @abstractmethod
    def _pools(self, split: Split, seed: int, index: int) -> Pools:
        """Return what example `index` is drawn from, the same at every length."""

    def examples(
        self, length: int | None, *, split: Split, seed: int, count: int
    ) -> Iterator[Example]:
        """Yield documents of `length` rounds; see `Task`.

        A label with fewer texts than rounds is left out of the rounds for which it has none.
        Questions are the same at every length. Their needles are the label's demonstrations.

        Raises:
            ConfigError: `length` is below 1.
            DocumentError: There is nothing to ask for in this split.
        """
        rounds = check_length(length, self.unit, least=1)
        return (self._example(rounds, split, seed, index) for index in range(count))

    def score(self, answer: str, question: Question) -> float:
        """Return 1 if the answer is the label, whatever its case."""
        text = self._wording.asked_text(question.text)
        read = self._wording.read_label(answer, text)
        return float(read in {reference.lower() for reference in question.references})

    def _example(self, rounds: int, split: Split, seed: int, index: int) -> Example:
        pools = self._pools(split, seed, index)
        if not pools.asked:
            raise DocumentError(
                f"expected at least one text to ask for in the split {split!r}, found none: give "
                f"more rows, or rows of labels that are demonstrated"
            )
        lines = list(
            draw_rounds(pools.shown, rounds, stream(self.name, split, seed, index, "shown"))
        )
        written = [self._wording.demonstration(item) for item in lines]
        needles: dict[str, list[str]] = {label: [] for label in pools.shown}
        for item, needle in zip(lines, written, strict=True):
            needles[item.label].append(needle)
        rng = stream(self.name, split, seed, index, "asked")
        asked = rng.sample(pools.asked, min(self._questions, len(pools.asked)))
        return Example(
            id=f"{split}-{seed}-{index}",
            document="\n".join([self._wording.introduction, *written, ""]).lstrip("\n"),
            questions=tuple(self._question(i, item, needles) for i, item in enumerate(asked)),
            length=rounds,
        )

    def _question(
        self, number: int, item: Labelled, needles: Mapping[str, Sequence[str]]
    ) -> Question:
        return Question(
            id=str(number),
            text=self._wording.question(item.text),
            references=(item.label,),
            chance=1 / len(needles),
            needles=tuple(needles[item.label]),
        )


class ManyShot(ManyShotTask):
    """Many-shot classification of given rows, such as those of a labelled file.

    Chance is that of a guess among the labels. Texts to ask for are divided by a hash of the text:
    with `test_rows`, a tenth of them is `tune`, the others `score`; without, a tenth of the rows is
    asked in `tune`, three tenths are asked in `score`, and the others are demonstrated in both.

    Args:
        rows: Mappings from column to value; `ttt_core.evaluation.data.read_rows` reads files.
        test_rows: Rows to ask for; None: some of `rows`.
        text: The text's column.
        label: The label's column.
        name: See `Task`; likewise `description`.
        wording: How it is written.
        questions: Questions on a document, at most.

    Raises:
        DocumentError: A row has no such column or an empty one, or there are no two labels.
    """

    def __init__(
        self,
        rows: Iterable[Mapping[str, Any]],
        *,
        test_rows: Iterable[Mapping[str, Any]] | None = None,
        text: str = "text",
        label: str = "category",
        name: str = "many-shot",
        description: str = "Which label of many does a new text have?",
        wording: Wording | None = None,
        questions: int = 32,
    ) -> None:
        super().__init__(name, description, wording=wording or Wording(), questions=questions)
        train = _read(rows, text, label)
        if test_rows is None:
            shown = [item for item in train if _tenth(item.text) >= 4]
            asked = [item for item in train if _tenth(item.text) < 4]
        else:
            shown, asked = train, _read(test_rows, text, label)
        self._shown = _by_label(shown)
        known = {item.text for item in shown}
        self._asked = [i for i in asked if i.label in self._shown and i.text not in known]

    def _pools(self, split: Split, seed: int, index: int) -> Pools:
        return Pools(
            self._shown,
            [item for item in self._asked if (_tenth(item.text) == 0) == (split == "tune")],
        )


def draw_rounds(texts: Mapping[str, Sequence[str]], rounds: int, rng: Random) -> Iterator[Labelled]:
    """Draw demonstrations in rounds in which every label occurs once, in random order.

    The first rounds are the same however many follow. A label that has run out of texts is left
    out of the rounds that are left.
    """
    orders = {label: rng.sample(list(own), len(own)) for label, own in texts.items()}
    for number in range(rounds):
        labels = [label for label, own in orders.items() if len(own) > number]
        rng.shuffle(labels)
        yield from (Labelled(orders[label][number], label) for label in labels)


def _read(rows: Iterable[Mapping[str, Any]], text: str, label: str) -> list[Labelled]:
    """Read rows; white space becomes single spaces, since a line is a demonstration's unit."""
    items = []
    for number, row in enumerate(rows, 1):
        for column in (text, label):
            if not str(row.get(column) or "").strip():
                raise DocumentError(
                    f"row {number}: expected something in the column {column!r}, found nothing; "
                    f"the columns are: {', '.join(map(repr, row))}"
                )
        items.append(Labelled(*(" ".join(str(row[column]).split()) for column in (text, label))))
    return items


def _by_label(items: Iterable[Labelled]) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for item in items:
        texts.setdefault(item.label, []).append(item.text)
    if len(texts) < 2:
        raise DocumentError(
            f"expected demonstrations of at least two labels, found {len(texts)}; each label needs "
            f"several texts, since some are kept for questions"
        )
    return texts


def _tenth(text: str) -> int:
    """Return which tenth of all texts this one is in, 0 to 9."""
    return hashlib.sha256(text.encode("utf-8")).digest()[0] * 10 // 256
