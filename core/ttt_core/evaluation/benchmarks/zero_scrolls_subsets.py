"""The ten tasks of ZeroScrolls: room for an answer, metric, and what knowing nothing is worth.

Room for answers is that of tau-nlp/zero_scrolls (`experiments/api/api.py`), metrics and naive
baselines are those of section 3.3 and 4.1 of arXiv 2305.14196.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ttt_core.evaluation.metrics import (
    best_of,
    choice_accuracy,
    concordance,
    exponential_similarity,
    qa_f1_ascii,
    rouge_geometric_mean,
)

_METRICS = {
    "f1": qa_f1_ascii,
    "accuracy": choice_accuracy,
    "exp_similarity": exponential_similarity,
    "concordance": concordance,
}


@dataclass(frozen=True)
class Subset:
    """One of the tasks.

    Attributes:
        metric: A key of this module's metrics, or `rouge`.
        max_new_tokens: Room for an answer.
        naive: What the paper's naive baseline always answers.
        naive_score: What it scores on average, where it draws its answer.
    """

    metric: str
    max_new_tokens: int
    naive: str = ""
    naive_score: float = 0.0

    def score(self, answer: str, references: Sequence[str]) -> float:
        """Return the metric's value, the best over the references, from 0 to 1.

        Raises:
            ConfigError: A library that the metric needs is not installed.
            DocumentError: A reference is not of the metric's form.
        """
        if self.metric == "rouge":
            return rouge_geometric_mean(answer, references)
        return best_of(_METRICS[self.metric], answer, references)

    def chance(self, references: Sequence[str]) -> float:
        """Return what the naive answer scores.

        Raises:
            DocumentError: A reference is not of the metric's form.
        """
        if self.metric == "rouge":
            return 0.0
        return max(self.naive_score, self.score(self.naive, references))


SUBSETS = {
    "gov_report": Subset("rouge", 1024),
    "summ_screen_fd": Subset("rouge", 512),
    "qmsum": Subset("rouge", 512),
    "squality": Subset("rouge", 512),
    "qasper": Subset("f1", 128),
    "narrative_qa": Subset("f1", 64),
    "quality": Subset("accuracy", 10, naive_score=0.25),
    "musique": Subset("f1", 32, naive="unanswerable"),
    "space_digest": Subset("exp_similarity", 36, naive="50%"),
    "book_sum_sort": Subset("concordance", 256, naive_score=0.5),
}

_TAGS = "answer|summary|percentage_of_positive_reviews|summary_ids_in_correct_order"
_OPENED = re.compile(rf"<(?:{_TAGS})>")
_CLOSED = re.compile(rf"</(?:{_TAGS})>")


def clean(answer: str) -> str:
    """Return what stands between the tags that a model may put around its final answer.

    As the card of tau-nlp/zero_scrolls asks: of "It is <answer>Rome</answer>." only "Rome" counts,
    and without an opening tag all that is in front of the closing one. Metrics do the rest: the
    first letter, percentage or list of numbers.
    """
    inside = _CLOSED.split(answer)[0]
    return _OPENED.split(inside)[-1].strip()
