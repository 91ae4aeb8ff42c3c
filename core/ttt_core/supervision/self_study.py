"""Self-study: the model asks itself about the document, answers, and learns its answers.

Cartridges (arXiv 2506.06266) trains on conversations that the model has with itself about a
document, since plain next-token loss on the document is not competitive there. Here: one question
about each of some passages, answered from the whole document, next-token loss on the answer behind
its question. Cartridges learns the answers' full distributions, of thousands of conversations.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ttt_core.packed import IGNORE, PackedBatch
from ttt_core.supervision.base import Given
from ttt_core.supervision.cloze import ClozeSupervision, in_turns
from ttt_core.supervision.retrieved import words_of

MOST_QUESTIONS = 32
"""Each costs two short generations before training begins."""

FEWEST_QUESTIONS = 4
"""With fewer that are any good, clozes are trained on."""

QUESTION_TOKENS = 64
ANSWER_TOKENS = 128

PROMPT = (
    "Write one question that this passage of the document answers. The question must be clear to "
    "somebody who does not see the passage. Write the question only.\n\nPassage: {passage}"
)


class Exchange(NamedTuple):
    """A question and its answer, both the model's own."""

    question: str
    answer: str


class SelfStudySupervision:
    """`clozes_per_step` answers a step, each once before any comes again.

    Attributes:
        found: How many of the model's questions and answers are trained on.
        fallback: Whether clozes are trained on instead, since there were too few.
    """

    def __init__(self, given: Given) -> None:
        """See `Supervision`."""
        questions = _questions(given)
        answers = given.base.answers(questions, max_new_tokens=ANSWER_TOKENS) if questions else []
        exchanges = [Exchange(*pair) for pair in zip(questions, answers, strict=True)]
        self._given = given
        self._tails = [_tail(given, each) for each in _useful(given, exchanges)]
        self.fallback = len(self._tails) < FEWEST_QUESTIONS
        self.found = 0 if self.fallback else len(self._tails)

    def batches(self) -> Iterator[PackedBatch]:
        """Yield packed tails without end; see `Supervision`."""
        if self.fallback:
            yield from ClozeSupervision(self._given).batches()
            return
        config, start = self._given.config, len(self._given.document.input_ids)
        for chosen in in_turns(self._tails, config.clozes_per_step, random.Random(config.seed)):
            tails, labels = zip(*chosen, strict=True)
            yield PackedBatch.of_tails(tails, labels, start=start)


def _questions(given: Given) -> list[str]:
    """Ask for a question about each of some passages, none of them held out."""
    document, held_out = given.document, set(given.held_out)
    usable = [passage for passage in document.passages if passage not in held_out]
    rng = random.Random(given.config.seed)
    chosen = rng.sample(usable, min(MOST_QUESTIONS, len(usable)))
    texts = [given.base.decode(document.input_ids[p.start : p.end]).strip() for p in chosen]
    prompts = [PROMPT.format(passage=text) for text in texts]
    if not prompts:
        return []
    written = given.base.answers(prompts, max_new_tokens=QUESTION_TOKENS)
    questions = (question.strip() for question in written)
    return list(dict.fromkeys(question for question in questions if question))


def _useful(given: Given, exchanges: Sequence[Exchange]) -> Iterator[Exchange]:
    """Leave out answers that are not the document's, that say nothing, or what is held out."""
    ids, decode = given.document.input_ids, given.base.decode
    document = set(words_of(decode(ids[given.document.start : given.document.end])))
    passages = (set(words_of(decode(ids[p.start : p.end]))) for p in given.held_out)
    held_out = [words for words in passages if words]
    for question, answer in exchanges:
        asked, told = set(words_of(question)), set(words_of(answer))
        # Who asks and answers with all words of a held-out passage has told it, more or less.
        leaks = any(secret <= asked | told for secret in held_out)
        if (told - asked) & document and not leaks:
            yield Exchange(question, answer.strip())


def _tail(given: Given, exchange: Exchange) -> tuple[list[int], list[int]]:
    """Return the tokens of question and answer behind the document, and their labels."""
    asked = given.base.chat_tail(exchange.question)
    answer = given.base.encode(exchange.answer)
    return [*asked, *answer[:-1]], [IGNORE] * (len(asked) - 1) + answer
