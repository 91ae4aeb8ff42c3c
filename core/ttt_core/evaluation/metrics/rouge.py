"""Summaries: what an answer has in common with a reference, by two libraries that define it.

LongBench takes ROUGE-L from `rouge`, which compares each sentence with all of the other text's
and counts every word once; ZeroScrolls takes ROUGE-1, 2 and L from Google's `rouge_score`. The two
give different figures for the same texts.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ttt_core.evaluation.metrics.chinese import chinese_words
from ttt_core.extras import library

_ZERO_SCROLLS_TYPES = ("rouge1", "rouge2", "rougeL")
_limit = threading.Lock()


def rouge_l(answer: str, reference: str) -> float:
    """Return the F1 of ROUGE-L as the library `rouge` computes it; 0 for texts without a word.

    After `rouge_score` of THUDM/LongBench. The highest value is 1 - 5e-9: the library adds 1e-8 to
    a denominator. It calls itself once a word; LongBench scores 0 where that goes too deep for
    Python (about 1,000 words without a full stop), here there is always room.

    Raises:
        ConfigError: `rouge` is not installed.
    """
    scorer = library("rouge", "rouge", "scoring summaries").Rouge(["rouge-l"], ["f"])
    try:
        with _room(len(answer.split()) + len(reference.split())):
            scores = scorer.get_scores(answer, reference)
    except ValueError:  # Nothing but full stops, or nothing.
        return 0.0
    return float(scores[0]["rouge-l"]["f"])


def rouge_l_chinese(answer: str, reference: str) -> float:
    """Return ROUGE-L of the words that jieba finds (`rouge_zh_score` of THUDM/LongBench).

    Raises:
        ConfigError: `rouge` or jieba is not installed.
    """
    return rouge_l(" ".join(chinese_words(answer)), " ".join(chinese_words(reference)))


def rouge_geometric_mean(answer: str, references: Sequence[str]) -> float:
    """Return the geometric mean of ROUGE-1, ROUGE-2 and ROUGE-L, each of its best reference.

    Google's `rouge_score` without stemming, as tau/zero_scrolls calls it (`rouge.py`), combined for
    each answer as section 3.3 of arXiv 2305.14196 says. The code of its predecessor SCROLLS takes
    the geometric mean of the three averages over all answers, which is never lower; the code of
    ZeroScrolls could not be read in full. So averages of this are below published figures if
    those came the other way. Texts of one word have no pairs of words, so that they score 0.

    Raises:
        ConfigError: `rouge_score` is not installed.
    """
    scorer = _google()
    scores = [scorer.score(reference, answer) for reference in references]
    best = [
        max((score[one].fmeasure for score in scores), default=0.0) for one in _ZERO_SCROLLS_TYPES
    ]
    return float((best[0] * best[1] * best[2]) ** (1 / 3))


def _google() -> Any:
    module = library("rouge_score.rouge_scorer", "rouge-score", "scoring summaries")
    return module.RougeScorer(list(_ZERO_SCROLLS_TYPES), use_stemmer=False)


@contextmanager
def _room(words: int) -> Iterator[None]:
    """Let a function call itself `words` times more; one at a time, as the limit is Python's."""
    with _limit:
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(before + words)
        try:
            yield
        finally:
            sys.setrecursionlimit(before)
