"""Ask one question before and after adaptation, and look at everything on the way.

document ─ NeedleFinder ─▶ needle ┐
question ─ engine ─▶ answers ─────┴─▶ measure (base, adapter) ─▶ dilution, strip ─▶ Diagnosis
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ttt_core.diagnostics.dilution import DilutionPoint, cuts
from ttt_core.diagnostics.measure import Measurement, Tail, make_tail, measure
from ttt_core.diagnostics.needle import Needle, NeedleFinder, needle_tokens
from ttt_core.diagnostics.strips import Section, make_strip
from ttt_core.errors import ConfigError
from ttt_core.objectives import check_observable
from ttt_core.progress import ProgressCallback, ignore_progress
from ttt_core.supervision import TokenizedDocument
from ttt_core.supervision.bare_text import bare
from ttt_core.supervision.recurrence import retrievable_positions

if TYPE_CHECKING:
    from ttt_core.adapted import AdaptedDocument
    from ttt_core.config import GenerationConfig
    from ttt_core.engine import TTTEngine
    from ttt_core.generate import Answer
    from ttt_core.loaded import LoadedModel


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was found about one question on one document.

    Attributes:
        question: What was asked.
        needles: What the answer rests on, or is guessed to.
        n_needle_tokens: Tokens of all their places.
        adapted: The document, with the report of its adaptation.
        answer_before: The base model's answer.
        answer_after: The adapted model's; None where the base was kept.
        true_answer: The answer whose tokens were predicted; empty: none is known, and only the last
            token before the answer was looked at.
        answer_given: Whether somebody gave it; else it is the model's own that the needle holds.
        answer_tokens: Its tokens as texts.
        before: Attention of the base model.
        after: Attention with the adapter; None where the base was kept.
        dilution: The same on pieces of the document, shortest first, and the whole; may be empty.
        strip: The document in sections.
    """

    question: str = field(repr=False)
    needles: tuple[Needle, ...]
    n_needle_tokens: int
    adapted: AdaptedDocument
    answer_before: Answer
    answer_after: Answer | None
    true_answer: str = field(repr=False)
    answer_given: bool
    answer_tokens: tuple[str, ...] = field(repr=False)
    before: Measurement
    after: Measurement | None
    dilution: tuple[DilutionPoint, ...]
    strip: tuple[Section, ...]

    @property
    def guessed(self) -> bool:
        """Whether the needle is a guess."""
        return any(needle.guessed for needle in self.needles)

    @property
    def peak(self) -> int:
        """The query at which the needle has most mass, before or after: where it is needed."""
        sides = [self.before, *([self.after] if self.after else [])]
        masses = [side.by_query().tolist() for side in sides]
        most = [max(values) for values in zip(*masses, strict=True)]
        return most.index(max(most))


def diagnose(
    engine: TTTEngine,
    adapted: AdaptedDocument,
    question: str,
    *,
    needles: Sequence[str] = (),
    answer: str | None = None,
    dilution: bool = True,
    config: GenerationConfig | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Diagnosis:
    """Look at what adaptation did to one question.

    Args:
        engine: That read the document.
        adapted: What it read and learned.
        question: What to ask.
        needles: Pieces of the document, white space aside to the letter, that the answer rests on;
            without any, the passages that BM25 finds for the question are taken as a guess.
        answer: The true answer; its tokens are predicted one after another, each behind the true
            ones. None: the model's own answer, if a needle holds it.
        dilution: Also measure on ever larger pieces of the document, which reads it once more.
        config: How to decode the answers.
        on_progress: Hears of the reading.

    Raises:
        ConfigError: The question, a needle or the answer is empty.
        DocumentError: A needle is not in the document, or there is none to guess.
        PromptTooLongError: Document, question and answer do not fit the window.
        UnsupportedModelError: The model's attention cannot be looked into.
    """
    if answer is not None and not answer.strip():
        raise ConfigError("the answer is empty; expected the true answer, or none at all")
    examiner = _Examiner(engine, adapted, question)
    found = examiner.find(needles)
    adapter = adapted.adapter
    answer_before = engine.generate(adapted.without_adapter(), question, config=config)
    answer_after = None if adapter is None else engine.generate(adapted, question, config=config)
    own = [a for a in (answer_after, answer_before) if a is not None]
    text, ids = examiner.true_answer(answer, found, own)
    before, after = examiner.measure_both(adapted, needle_tokens(found), ids)
    points = list(examiner.dilution(found, ids, on_progress)) if dilution else []
    return Diagnosis(
        question=question,
        needles=found,
        n_needle_tokens=len(needle_tokens(found)),
        adapted=adapted,
        answer_before=answer_before,
        answer_after=answer_after,
        true_answer=text,
        answer_given=answer is not None,
        answer_tokens=tuple(examiner.decode([token]) for token in ids),
        before=before,
        after=after,
        dilution=(*points, DilutionPoint(adapted.n_tokens, before, after)) if points else (),
        strip=examiner.strip(before, after, needle_tokens(found)),
    )


def check(
    engine: TTTEngine, read: AdaptedDocument, question: str, needles: Sequence[str] = ()
) -> None:
    """See that there is something to look at, before adapting takes its time.

    Args and errors as for `diagnose`.
    """
    _Examiner(engine, read, question).find(needles)


class _Examiner:
    """One question on one document of one engine."""

    def __init__(self, engine: TTTEngine, adapted: AdaptedDocument, question: str) -> None:
        self._engine = engine
        self._adapted = adapted
        self._question = question
        self._loaded: LoadedModel = engine.loaded
        self.document = self._tokenized(adapted)
        self.decode = self._loaded.chat.decode
        # What is bound to fail fails right here, before anybody adapts.
        make_tail(self._loaded, adapted.prompt, question, ())
        check_observable(self._loaded.runtime)

    def find(self, texts: Sequence[str]) -> tuple[Needle, ...]:
        """Locate the needles, or guess."""
        finder = NeedleFinder(self.document, self.decode)
        if not texts:
            return finder.guess(self._question)
        return tuple(finder.find(text) for text in dict.fromkeys(texts))

    def true_answer(
        self, given: str | None, needles: Sequence[Needle], own: Sequence[Answer]
    ) -> tuple[str, tuple[int, ...]]:
        """Return the answer to predict and its tokens: as given, or one that a needle holds."""
        if given is not None:
            return given, tuple(self._loaded.chat.encode_literal(given))
        held = [bare(needle.text) for needle in needles if not needle.guessed]
        for answer in own:
            text = bare(answer.text)
            if text and any(text in needle for needle in held):
                return answer.text, answer.token_ids
        return "", ()

    def measure_both(
        self, read: AdaptedDocument, needle: Sequence[int], answer: Sequence[int]
    ) -> tuple[Measurement, Measurement | None]:
        """Measure behind the document or a piece of it, without and with the adapter."""
        tail: Tail = make_tail(self._loaded, read.prompt, self._question, answer)
        prefix, adapter = read.prefix, self._adapted.adapter
        before = measure(self._loaded, prefix, tail, needle, None)
        if adapter is None:
            return before, None
        return before, measure(self._loaded, prefix, tail, needle, adapter)

    def dilution(
        self, needles: Sequence[Needle], answer: Sequence[int], on_progress: ProgressCallback
    ) -> Iterator[DilutionPoint]:
        """Measure on pieces of the document, the shortest first, all but the whole."""
        ids = self._adapted.prompt.input_ids
        system = self._adapted.prompt.system
        for start, end in cuts(self.document, [needle.places[0] for needle in needles]):
            text = self.decode(ids[start:end])
            with self._engine.read(text, system=system, on_progress=on_progress) as piece:
                finder = NeedleFinder(self._tokenized(piece), self.decode)
                tokens = needle_tokens([finder.find(needle.text) for needle in needles])
                yield DilutionPoint(piece.n_tokens, *self.measure_both(piece, tokens, answer))

    def strip(
        self, before: Measurement, after: Measurement | None, needle: Sequence[int]
    ) -> tuple[Section, ...]:
        """Lay the document out."""
        document = self.document
        repeated = retrievable_positions(document.input_ids[document.start : document.end])
        return make_strip(
            document,
            before.by_token().tolist(),
            None if after is None else after.by_token().tolist(),
            [position + document.start for position in repeated],
            needle,
        )

    def _tokenized(self, read: AdaptedDocument) -> TokenizedDocument:
        loaded = self._loaded
        return TokenizedDocument.of(read.prompt, loaded.chat, loaded.tokenizer)
