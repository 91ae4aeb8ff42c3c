"""Where in a prefix a needle stands: every place of a text, as tokens; or a guess what it is.

White space counts for nothing, so that line ends and indentation may differ; all else is verbatim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ttt_core.errors import ConfigError, DocumentError
from ttt_core.supervision import Passage, TokenizedDocument
from ttt_core.supervision.bare_text import BareText, bare
from ttt_core.supervision.retrieved import bm25_scores

_MOST_GUESSES = 4
_AS_GOOD = 0.9
"""Passages with this share of the best one's score are as good a guess."""

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class Needle:
    """A piece of the document that the answer rests on.

    Attributes:
        text: As it was given, or as it stands in the document if it was guessed.
        places: Tokens of the prefix, one passage for each time it stands there.
        guessed: Whether nobody said that the answer rests on it.
    """

    text: str = field(repr=False)
    places: tuple[Passage, ...]
    guessed: bool = False


class NeedleFinder:
    """Finds texts in a tokenised document.

    Args:
        document: Where to look.
        decode: Tokens to text.
    """

    def __init__(self, document: TokenizedDocument, decode: Decode) -> None:
        self._bare = BareText(document, decode)
        self._document = document
        self._decode = decode

    def find(self, text: str, *, guessed: bool = False) -> Needle:
        """Find every place of a text.

        Raises:
            ConfigError: The needle is empty.
            DocumentError: The document does not hold it.
        """
        wanted = bare(text)
        if not wanted:
            raise ConfigError("the needle is empty; expected a piece of the document")
        places = tuple(
            self._bare.tokens(start, start + len(wanted))
            for start in _occurrences(self._bare.text, wanted)
        )
        if not places:
            raise DocumentError(self._not_there(text))
        return Needle(text, places, guessed)

    def guess(self, question: str) -> tuple[Needle, ...]:
        """Take the passages that share most words with the question (BM25), the best first.

        At most four, whose scores come near the best one's: what scores less is rather a distractor
        than a needle. A guess: it knows no synonyms and no other wording.

        Raises:
            DocumentError: No passage shares a word with the question.
        """
        texts = self._texts(self._passages)
        best = _best(bm25_scores(question, texts))
        if not best:
            raise DocumentError(
                "no passage of the document shares a word with the question, so there is nothing "
                "to look at; name the needle: --needle 'TEXT' (in Python: needles=['TEXT'])"
            )
        return tuple(self.find(texts[index], guessed=True) for index in best)

    def _texts(self, passages: Sequence[Passage]) -> list[str]:
        spans = map(self._bare.whole, passages)
        return [self._decode(self._document.input_ids[start:end]) for start, end in spans]

    @property
    def _passages(self) -> Sequence[Passage]:
        whole = Passage(self._document.start, self._document.end)
        return self._document.passages or (whole,)

    def _not_there(self, text: str) -> str:
        """Say what to do; names passages by number: documents do not belong into messages."""
        hint = "Copy it from the document to the letter; only white space may differ"
        if bare(text).casefold() in self._bare.text.casefold():
            hint = f"It is there in other upper and lower case. {hint}"
        else:
            texts = self._texts(self._passages)
            for index in _best(bm25_scores(text, texts))[:1]:
                hint = f"Most like it is sentence or line {index + 1:,} of {len(texts):,}. {hint}"
        return f"the needle is not in the document that was read. {hint}."


def needle_tokens(needles: Sequence[Needle]) -> list[int]:
    """Return all tokens of some needles, each once, ascending."""
    places = (place for needle in needles for place in needle.places)
    return sorted({token for start, end in places for token in range(start, end)})


def _occurrences(text: str, wanted: str) -> Iterator[int]:
    start = text.find(wanted)
    while start >= 0:
        yield start
        start = text.find(wanted, start + len(wanted))


def _best(scores: Sequence[float]) -> list[int]:
    """Indices of the best scores above zero, the best first."""
    best = max(scores, default=0.0)
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    return [i for i in order[:_MOST_GUESSES] if scores[i] >= _AS_GOOD * best and scores[i] > 0]
