"""bAbI: short stories of who went where, with the facts that each answer rests on.

Weston et al., arXiv 1502.05698. The original format: numbered lines, a new story at each line 1,
and questions between them as `3 Where is John?<tab>hallway<tab>1` (answer, supporting lines).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ttt_core.document import Document
from ttt_core.errors import DocumentError
from ttt_core.evaluation.benchmarks.base import Benchmark
from ttt_core.evaluation.data import text_files
from ttt_core.examples import Example, Question

_FORM = "Answer with {} only."
_DIRECTIONS = {"n": "north", "e": "east", "s": "south", "w": "west"}
_DIRECTION = re.compile(r"\b(?:north|east|south|west)\b", re.IGNORECASE)


class Babi(Benchmark):
    """Accuracy by task and by how many facts a question needs.

    A question may know only the lines before it: one asked of the whole story would have another
    answer. So each question has a document of its own, the facts that stand before it, one a
    line, without their numbers and without earlier questions. Their story is
    the source of all of them. Chance is that of a guess among the answers that the file has.
    Paths (qa19, `s,w`) are asked for and read in words, since no question says what letters mean.
    """

    name = "babi"
    description = "bAbI: who is where, and what, after a short story of movements"
    max_new_tokens = 16

    def all_examples(self) -> Iterator[Example]:
        """Yield an example a question; see `Benchmark`."""
        for path in text_files(self.source):
            asked = list(_read(path))
            answers = tuple(sorted({one.answer for one in asked}))
            yield from (_example(path, one, answers) for one in asked)

    def score(self, answer: str, question: Question) -> float:
        """Return 1 if of all possible answers the answer names the right one, and no other.

        Whole words, in either case. An answer such as `apple,football` is right in any order, a
        path only in its own.
        """
        if _is_path(question.references[0]):
            steps = [step.lower() for step in _DIRECTION.findall(answer)]
            return float(steps == question.references[0].split(","))
        possible = {word for choice in question.choices for word in choice.split(",")}
        named = {word for word in possible if re.search(rf"\b{re.escape(word)}\b", answer, re.I)}
        return float(any(named == set(right.split(",")) for right in question.references))


@dataclass(frozen=True)
class _Asked:
    story: int
    number: int
    facts: tuple[str, ...] = field(repr=False)
    text: str = field(repr=False)
    answer: str = field(repr=False)
    support: tuple[str, ...] = field(repr=False)


def _read(path: Path) -> Iterator[_Asked]:
    story, questions = 0, 0
    facts: dict[int, str] = {}
    for count, line in enumerate(Document.from_file(path).text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {count:,}"
        number, _, rest = line.strip().partition(" ")
        if not number.isdecimal() or not rest:
            raise DocumentError(f"{where}: expected a number, a space and a sentence")
        if int(number) == 1:
            story, questions, facts = story + 1, 0, {}
        if "\t" in rest:
            questions += 1
            yield _asked(story, questions, facts, rest, where)
        else:
            facts[int(number)] = rest.strip()


def _asked(story: int, number: int, facts: dict[int, str], line: str, where: str) -> _Asked:
    cells = [cell.strip() for cell in line.split("\t")]
    if len(cells) != 3 or not all(cells):
        raise DocumentError(
            f"{where}: expected question, answer and supporting lines, tabs between"
        )
    support = cells[2].split()
    if not all(one.isdecimal() and int(one) in facts for one in support):
        raise DocumentError(f"{where}: supporting lines must be facts that stand before it")
    needles = tuple(facts[int(one)] for one in support)
    return _Asked(story, number, tuple(facts.values()), cells[0], _in_words(cells[1]), needles)


def _in_words(answer: str) -> str:
    """Write a path of letters in words; other answers are as they are."""
    steps = answer.split(",")
    return ",".join(_DIRECTIONS[s] for s in steps) if set(steps) <= set(_DIRECTIONS) else answer


def _is_path(answer: str) -> bool:
    return set(answer.split(",")) <= set(_DIRECTIONS.values())


def _form(answer: str) -> str:
    if _is_path(answer):
        return _FORM.format("the directions in their order, commas between them,")
    return _FORM.format("the words, commas between them," if "," in answer else "one word")


def _example(path: Path, asked: _Asked, answers: tuple[str, ...]) -> Example:
    task = re.search(r"qa\d+", path.stem)
    question = Question(
        id="1",
        text=f"{asked.text} {_form(asked.answer)}",
        references=(asked.answer,),
        chance=1 / len(answers),
        needles=asked.support,
        choices=answers,
        groups={
            "task": task[0] if task else path.stem,
            "supporting facts": str(len(asked.support)),
        },
    )
    story = f"{path.stem}-{asked.story}"
    return Example(
        id=f"{story}/{asked.number}",
        document="\n".join(asked.facts),
        questions=(question,),
        source=story,
    )
