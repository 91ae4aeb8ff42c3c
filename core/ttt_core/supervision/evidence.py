"""Evidence: in place, on the passages that the model itself quotes as answering the question.

S-TTT, "Self-Guided Test-Time Training" (arXiv 2607.09415): the base model copies at most eight
passages verbatim, and only those are trained on; random spans where it quotes none. A quote counts
if the document holds it, white space aside, or nearly; a paraphrase is no quote.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence

from ttt_core.extras import library
from ttt_core.packed import PackedBatch
from ttt_core.supervision.bare_text import BareText, bare
from ttt_core.supervision.base import Given, trainable_positions
from ttt_core.supervision.passages import SHORTEST, Passage, TokenizedDocument
from ttt_core.supervision.random_span import RandomSpanSupervision, in_place_batch
from ttt_core.supervision.retrieved import question_of

MOST_QUOTES = 8
"""As in S-TTT."""

MAX_NEW_TOKENS = 512
"""Room for the quotes."""

SIMILARITY = 90.0
"""Of 100: the least share of a quote's characters that the best place must have (Indel ratio)."""

SHORTEST_INEXACT = 20
"""Characters; shorter quotes are nearly somewhere in every long document."""

PROMPT = (
    "Copy from the document above, word for word, the passages that one needs to answer the "
    "question below: at most {most}, each on a line of its own between <quote> and </quote>. Copy "
    "only; do not answer.\n\nQuestion: {question}"
)
"""What is asked of the model; in our words, since the paper's were not to be had."""

_TAGGED = re.compile(r"<quote>(.*?)(?:</quote>|(?=<quote>)|\Z)", re.DOTALL | re.IGNORECASE)
_BULLET = re.compile(r"^\s*(?:[-*\u2022>]+|\(?\d{1,2}[.)])\s+")
_MARKS = " \t\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb\u201e"


class EvidenceSupervision:
    """The quoted spans, each once before any comes again, up to `config.positions` a step.

    Attributes:
        selected: The different spans that were quoted, in the order of the quotes.
        fallback: Whether random spans are trained on instead: nothing was quoted, or nothing that
            may be trained on (a held-out passage is none).
    """

    def __init__(self, given: Given) -> None:
        """See `Supervision`.

        Raises:
            ConfigError: There is no question, or no rapidfuzz (`MissingLibraryError`).
        """
        prompt = PROMPT.format(most=MOST_QUOTES, question=question_of(given))
        [answer] = given.base.answers([prompt], max_new_tokens=MAX_NEW_TOKENS)
        finder = QuoteFinder(given.document, given.base.decode)
        places = [finder.find(quote) for quote in quotes_of(answer)]
        self.selected = tuple(dict.fromkeys(place for place in places if place is not None))
        self._given = given
        self._allowed = trainable_positions(given.document, given.held_out)
        self._pieces = [piece for span in self.selected for piece in self._pieces_of(span)]
        self.fallback = not self._pieces

    @property
    def found(self) -> int:
        """How many different spans were quoted."""
        return len(self.selected)

    def batches(self) -> Iterator[PackedBatch]:
        """Yield batches of spans without end; see `Supervision`."""
        if self.fallback:
            yield from RandomSpanSupervision(self._given).batches()
        rng = random.Random(self._given.config.seed)
        while self._pieces:
            for positions in self._steps(rng.sample(self._pieces, len(self._pieces))):
                batch = in_place_batch(self._given.document, positions, self._allowed)
                assert batch is not None
                yield batch

    def _pieces_of(self, span: Passage) -> list[list[int]]:
        """Positions whose next token is the span's and may be learnt, a step's at most."""
        before = range(max(span.start - 1, 0), span.end - 1)
        usable = [position for position in before if self._allowed[position]]
        size = self._given.config.positions
        return [usable[start : start + size] for start in range(0, len(usable), size)]

    def _steps(self, pieces: Sequence[list[int]]) -> Iterator[set[int]]:
        """Join neighbours as long as they fit one step."""
        positions: set[int] = set()
        for piece in pieces:
            if positions and len(positions | set(piece)) > self._given.config.positions:
                yield positions
                positions = set()
            positions |= set(piece)
        yield positions


def quotes_of(answer: str) -> list[str]:
    """Return the quotes in an answer, at most MOST_QUOTES: what is tagged, else its lines."""
    tagged = [quote for quote in _TAGGED.findall(answer) if quote.strip()]
    lines = [_BULLET.sub("", line) for line in answer.splitlines()]
    quotes = [quote.strip().strip(_MARKS) for quote in tagged or lines]
    return [quote for quote in quotes if quote][:MOST_QUOTES]


class QuoteFinder:
    """Finds quotes in a tokenised document, whatever the white space.

    Args:
        document: Where to look.
        decode: Tokens to text.
    """

    def __init__(self, document: TokenizedDocument, decode: Callable[[Sequence[int]], str]) -> None:
        self._bare = BareText(document, decode)

    def find(self, quote: str) -> Passage | None:
        """Return the first tokens that say so, else those that nearly do; None: there are none.

        An inexact place is as long as the quote: where they differ, its ends may be off by that.

        Raises:
            MissingLibraryError: rapidfuzz is not installed.
        """
        wanted = bare(quote)
        start = self._bare.text.find(wanted) if wanted else -1
        place = (start, start + len(wanted)) if start >= 0 else self._nearly(wanted)
        if place is None:
            return None
        span = self._bare.tokens(*place)
        return span if span.end - span.start >= SHORTEST else None

    def _nearly(self, wanted: str) -> tuple[int, int] | None:
        if not SHORTEST_INEXACT <= len(wanted) <= len(self._bare.text):
            return None
        fuzz = library("rapidfuzz.fuzz", "rapidfuzz", "finding inexact quotes")
        found = fuzz.partial_ratio_alignment(wanted, self._bare.text, score_cutoff=SIMILARITY)
        if found is None or found.dest_end <= found.dest_start:
            return None
        return found.dest_start, found.dest_end
