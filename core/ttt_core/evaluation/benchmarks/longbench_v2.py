"""LongBench v2: 503 questions with four choices on documents of 8k to 2M words.

Bai et al., arXiv 2412.15204, https://github.com/THUDM/LongBench. Prompt (`prompts/0shot.txt`),
answer extraction and room for an answer (`pred.py`) are checked against that repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ttt_core.evaluation.benchmarks.base import Benchmark, Record, kind, records, source_of
from ttt_core.examples import Example, Question

LETTERS = ("A", "B", "C", "D")
GROUPS = ("domain", "sub_domain", "difficulty", "length")

_DOCUMENT = "Please read the following text and answer the question below.\n\n<text>\n{}\n</text>"
_ASKED = (
    "What is the correct answer to this question: {question}\n"
    "Choices:\n{choices}\n\n"
    'Format your response as follows: "The correct answer is (insert answer here)".'
)


class LongBenchV2(Benchmark):
    """Accuracy by domain, sub-domain, difficulty and length (the row's own: short, medium, long).

    Document and question, a blank line between them, are the official prompt without reasoning;
    the line before the text therefore belongs to the document.
    """

    name = "longbench-v2"
    description = "LongBench v2: questions with four choices on long documents of six domains"
    max_new_tokens = 128

    def all_examples(self) -> Iterator[Example]:
        """Yield an example a row; see `Benchmark`."""
        return (_example(row) for row in records(self.source))

    def score(self, answer: str, question: Question) -> float:
        """Return 1 if the letter that `extract_letter` finds is right; no letter is wrong."""
        return float(extract_letter(answer) in question.references)


def extract_letter(answer: str) -> str | None:
    """Find the letter in "The correct answer is (B)", asterisks and brackets aside.

    The official rule: no other form counts, and the first with brackets goes before one without.
    """
    plain = answer.replace("*", "")
    for pattern in (r"The correct answer is \(([A-D])\)", r"The correct answer is ([A-D])"):
        if found := re.search(pattern, plain):
            return found[1]
    return None


def _example(row: Record) -> Example:
    right = row.text("answer")
    if right not in LETTERS:
        raise row.wrong("answer", "one of A, B, C, D", kind(right))
    choices = tuple(f"({letter}) {row.text(f'choice_{letter}').strip()}" for letter in LETTERS)
    asked = row.text("question").strip()
    question = Question(
        id="1",
        text=_ASKED.format(question=asked, choices="\n".join(choices)),
        references=(right,),
        chance=1 / len(LETTERS),
        choices=LETTERS,
        groups={group: row.text(group) for group in GROUPS},
    )
    document = _DOCUMENT.format(row.text("context").strip())
    return Example(
        id=row.text("_id"),
        document=document,
        questions=(question,),
        source=source_of(document),  # Several questions may be about it.
    )
