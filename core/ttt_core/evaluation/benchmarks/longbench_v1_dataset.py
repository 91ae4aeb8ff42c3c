"""What a data set of LongBench is: a prompt to take apart at its markers, and a metric.

Metrics, first lines and buckets of length are those of THUDM/LongBench (`eval.py`), read there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ttt_core.evaluation.metrics import (
    best_of,
    classification_score,
    code_similarity,
    count_score,
    qa_f1,
    qa_f1_chinese,
    retrieval_score,
    rouge_l,
    rouge_l_chinese,
)

_METRICS = {
    "qa_f1": qa_f1,
    "qa_f1_zh": qa_f1_chinese,
    "rouge_l": rouge_l,
    "rouge_l_zh": rouge_l_chinese,
    "retrieval": retrieval_score,
    "count": count_score,
    "code_sim": code_similarity,
}


@dataclass(frozen=True)
class Pieces:
    """A prompt in three; put together they are the prompt, character for character.

    Attributes:
        instruction: What is in front of the document.
        document: What is read, with its heading.
        request: What stands behind it: the question, and often the instruction once more.
    """

    instruction: str
    document: str
    request: str

    @property
    def question(self) -> str:
        """Instruction and request; only white space where the document was is changed."""
        return f"{self.instruction.strip()}\n\n{self.request.lstrip()}"


@dataclass(frozen=True)
class Dataset:
    """One of the data sets.

    Attributes:
        prompt: The published prompt, with `{context}` and `{input}`.
        max_new_tokens: Room for an answer.
        metric: A key of this module's metrics, or `classification`.
        heads: What ends the instruction; the one that is found first counts.
        tails: What begins the request; the one that is found last counts.
        language: `en`, `zh` or `code`.
        first_line: Only the answer's first line counts: few-shot tasks, where models go on.
    """

    prompt: str
    max_new_tokens: int
    metric: str
    heads: tuple[str, ...]
    tails: tuple[str, ...]
    language: str = "en"
    first_line: bool = False

    def pieces(self, prompt: str) -> Pieces | None:
        """Take a prompt apart; None if it has no head, or no tail and document."""
        found = [(prompt.find(head), head) for head in self.heads if head in prompt]
        if not found:
            return None
        at, head = min(found)
        start = at + len(head)
        end = max(prompt.rfind(tail, start) for tail in self.tails)
        return Pieces(prompt[:start], prompt[start:end], prompt[end:]) if end > start else None

    def score(self, answer: str, references: Sequence[str], classes: Sequence[str]) -> float:
        """Return the metric's value for the reference that fits best, from 0 to 1.

        Raises:
            ConfigError: A library that the metric needs is not installed.
        """
        if self.first_line:
            answer = answer.lstrip("\n").split("\n")[0]
        if self.metric == "classification":
            return best_of(
                lambda given, right: classification_score(given, right, classes), answer, references
            )
        return best_of(_METRICS[self.metric], answer, references)


def length_bucket(document: str, length: int | None = None, *, characters: bool = False) -> str:
    """Return LongBench-E's bucket: 0-4k, 4-8k or 8k+ words (Chinese: characters).

    Args:
        document: Counted if the data set does not say how long it is.
        length: What the data set says.
        characters: Count these.
    """
    count = length if length is not None else len(document if characters else document.split())
    return "0-4k" if count < 4000 else "4-8k" if count < 8000 else "8k+"
