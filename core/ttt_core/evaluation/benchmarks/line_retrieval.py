"""LongEval's line retrieval: find the number in a line that has a random name.

Li et al. 2023, https://lmsys.org/blog/2023-06-29-longchat/, https://github.com/DachengLi1/LongChat
(`longeval/utils.py`, against which the scoring is checked). The prompts come ready-made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ttt_core.evaluation.benchmarks.base import Benchmark, Record, fifth, records
from ttt_core.examples import Example, Question

_SEAM = "\n\nNow the record is over."
_LARGEST = 50_000
"""Numbers are drawn from 1 to this (`longeval/generate_testcases.py`)."""


class LineRetrieval(Benchmark):
    """Accuracy by the line's place, and by how many lines there are.

    Document and question, a blank line between them, are the official prompt. Chance is that of
    guessing a number of 1 to 50,000.
    """

    name = "line-retrieval"
    description = "LongEval: find the number in a named line of a long record"
    max_new_tokens = 100

    def all_examples(self) -> Iterator[Example]:
        """Yield an example a row; see `Benchmark`."""
        for number, row in enumerate(records(self.source), 1):
            yield _example(row, str(number))

    def score(self, answer: str, question: Question) -> float:
        """Return 1 if the last number in the answer is right: the official rule."""
        numbers = re.findall(r"[0-9]+", answer)
        return float(bool(numbers) and _plain(numbers[-1]) in question.references)


def _plain(digits: str) -> str:
    """Strip leading zeros; as text, since Python refuses to make numbers of very long ones."""
    return digits.lstrip("0") or "0"


def _example(row: Record, number: str) -> Example:
    prompt = row.text("prompt")
    document, seam, asked = prompt.rpartition(_SEAM)
    if not seam:
        raise row.wrong("prompt", f"a question that begins {_SEAM.strip()!r}", "none")
    needle = row.text("correct_line").strip()
    lines = [line for line in document.splitlines() if line.startswith("line ")]
    if lines.count(needle) != 1:
        raise row.wrong("correct_line", "a line that the prompt has once", "another")
    question = Question(
        id="1",
        text=(seam + asked).strip(),
        references=(str(row.integer("expected_number")),),
        chance=1 / _LARGEST,
        needles=(needle,),
        groups={"position": fifth(lines.index(needle), len(lines)), "lines": str(len(lines))},
    )
    return Example(id=number, document=document, questions=(question,))
