"""Retrieved chunks: in place, where the document speaks of what is asked.

EASE-TTT's selection (arXiv 2606.06906): the chunks that BM25 ranks highest for the question, top 4.
Its own objective supervises attention; next-token loss on the same chunks is its ablation. BM25 is
Robertson's, as Lucene computes it (k1 = 1.5, b = 0.75), by bm25s.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import TypeAlias

from ttt_core.errors import ConfigError
from ttt_core.extras import library
from ttt_core.packed import PackedBatch
from ttt_core.supervision.base import Given
from ttt_core.supervision.chunks import cut_chunks
from ttt_core.supervision.passages import Passage
from ttt_core.supervision.random_span import RandomSpanSupervision, sampled_batches

TOP = 4
"""Chunks; as in EASE-TTT."""

Ranking: TypeAlias = Callable[[str, Sequence[str]], Sequence[float]]
"""Scores texts for a question, higher is better; 0 or less: it has nothing to do with it."""

_UNSPACED = re.compile(  # Scripts that put no spaces between words.
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff]"
)


class RetrievedSupervision:
    """`config.positions` positions a step, within the chunks that fit the question best.

    Attributes:
        selected: Those chunks, the best first; empty if none has anything to do with the question.
        fallback: Whether random spans are trained on instead: there is nothing selected that may
            be trained on.
    """

    def __init__(self, given: Given, *, rank: Ranking | None = None) -> None:
        """See `Supervision`.

        Args:
            given: With a question.
            rank: Ranks chunks; None: BM25.

        Raises:
            ConfigError: There is no question, or no bm25s.
        """
        question, document = question_of(given), given.document
        chunks = cut_chunks(document)
        texts = [given.base.decode(document.input_ids[c.start : c.end]) for c in chunks]
        scores = list((rank or bm25_scores)(question, texts))
        best = sorted(range(len(chunks)), key=lambda index: -scores[index])[:TOP]
        self.selected: tuple[Passage, ...] = tuple(chunks[i] for i in best if scores[i] > 0)
        self._given = given
        self._positions = sorted({i for c in self.selected for i in range(c.start, c.end)})
        self.fallback = next(self._selected_batches(), None) is None

    def batches(self) -> Iterator[PackedBatch]:
        """Yield batches of positions without end; see `Supervision`."""
        if self.fallback:
            return RandomSpanSupervision(self._given).batches()
        return self._selected_batches()

    def _selected_batches(self) -> Iterator[PackedBatch]:
        return sampled_batches(self._given, self._positions)


def question_of(given: Given) -> str:
    """Return the question.

    Raises:
        ConfigError: There is none.
    """
    if given.question is None or not given.question.strip():
        raise ConfigError(
            f"{given.config.supervision} supervision trains for one question, and there is none; "
            f"pass it as adapt(..., question=...), or choose a supervision that needs none"
        )
    return given.question


def bm25_scores(question: str, texts: Sequence[str]) -> list[float]:
    """Return each text's BM25 score for the question; a `Ranking`.

    Raises:
        MissingLibraryError: bm25s is not installed.
    """
    bm25s = library("bm25s", "bm25s", "ranking by BM25")
    corpus, asked = [words_of(text) for text in texts], words_of(question)
    if not asked or not any(corpus):
        return [0.0] * len(texts)
    index = bm25s.BM25()
    index.index(corpus, show_progress=False)
    return [float(score) for score in index.get_scores(asked)]


def words_of(text: str) -> list[str]:
    """Return the words of a text of any script, case-folded.

    Where a script puts no spaces between words, each pair of neighbouring characters is one.
    """
    words: list[str] = []
    for kind, group in groupby(unicodedata.normalize("NFKC", text).casefold(), _kind):
        run = "".join(group)
        if kind == "unspaced" and len(run) > 1:
            words += [run[i : i + 2] for i in range(len(run) - 1)]
        elif kind:
            words.append(run)
    return words


@lru_cache(maxsize=1 << 16)
def _kind(character: str) -> str:
    """Letters, digits and marks make words: `\\w` of Python takes a vowel sign for a gap."""
    if _UNSPACED.match(character):
        return "unspaced"
    return "word" if unicodedata.category(character)[0] in "LNM" else ""
