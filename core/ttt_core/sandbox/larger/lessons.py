"""What the model is taught on a document: questions, and answers that restate what they rest on.

Documents are those of the tasks, with other draws: the streams that training draws from carry
another name than the task's, which no evaluation ever asks for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from ttt_core.examples import Example, Task
from ttt_core.sandbox.larger.config import DataConfig
from ttt_core.sandbox.larger.quotes import QuoteLine
from ttt_core.sandbox.larger.short_logs import draw_log_example
from ttt_core.sandbox.tasks.retrieval import MultiKey, MultiQuery, MultiValue
from ttt_core.sandbox.tasks.retrieval_haystack import Haystack
from ttt_core.sandbox.tasks.tracking import VariableTracking
from ttt_core.sandbox.tasks.transactions import Transactions

_NEEDLE_WORDS = 10
"""Words of `One of the special magic numbers for amber-falcon is: 4170392.`"""

_LEAST_WORDS = 8 * _NEEDLE_WORDS
"""Two keys of four values, the longest of the shortest documents."""

_NEEDLE_KEY = re.compile(r"for (\S+) is: ")


@dataclass(frozen=True)
class Lesson:
    """A document, and conversations of one turn about it.

    Attributes:
        example: The document and the questions.
        answers: To each question, the answer that is taught.
        task: Scores answers.
        weight: How much the loss counts at a token of the document.
    """

    example: Example
    answers: tuple[str, ...] = field(repr=False)
    task: Task
    weight: float


def _in_training(task: Task) -> Task:
    """Let a task draw from streams of training's own."""
    task.name = f"{task.name}, training"
    return task


class Lessons:
    """A source of lessons.

    Args:
        config: How long documents get.
        rng: What is drawn next depends on it alone.
    """

    def __init__(self, config: DataConfig, rng: Random) -> None:
        self._config = config
        self._rng = rng
        self._kinds: dict[Callable[[float], Lesson], float] = {
            self.log: 0.25,
            self.retrieval: 0.3,
            self.tracking: 0.15,
            self.text: 0.3,
        }

    def draw(self, growth: float) -> Lesson:
        """Draw a lesson of any kind, its document of up to `growth` of the full length."""
        return self._rng.choices(list(self._kinds), list(self._kinds.values()))[0](growth)

    def log(self, growth: float) -> Lesson:
        """A transaction log of four entries or more; the answer is the task's own JSON."""
        most = max(4, int(growth * self._config.max_operations))
        task = _in_training(Transactions())
        example = draw_log_example(task, self._rng.randint(4, most), self._rng)
        return self._lesson(example, (example.questions[0].references[0],), task)

    def retrieval(self, growth: float) -> Lesson:
        """Magic numbers: many keys, many values of a key, or many keys in a question."""
        rng, most = self._rng, max(_LEAST_WORDS, int(growth * self._config.max_words))
        keys = rng.randint(4, max(4, most // _NEEDLE_WORDS))
        haystack: Haystack = rng.choice(("noise", "text"))
        drawn = rng.randrange(3)
        task: Task
        if drawn == 0:
            task = MultiKey(haystack, keys=keys, questions=4)
        elif drawn == 1:
            task = MultiValue(haystack, values=rng.randint(2, min(4, keys // 2)), questions=2)
        else:
            task = MultiQuery(haystack, queries=rng.randint(2, 4), questions=1)
        # Half of the documents are needles only, or nearly so.
        least = max(_LEAST_WORDS, keys * _NEEDLE_WORDS if drawn == 0 else 0)
        return self._restating(_in_training(task), rng.choice((least, rng.randint(least, most))))

    def tracking(self, growth: float) -> Lesson:
        """Chains of variables; the answer names them in the order of assignment."""
        rng = self._rng
        most = max(40, int(growth * self._config.max_words))
        hops = rng.randint(1, max(1, int(4 * growth)))
        words = 4 + 5 * hops
        chains = rng.randint(1, max(1, min(5, most // words)))
        task = _in_training(VariableTracking(chains=chains, hops=hops, questions=chains))
        example = self._draw(task, rng.randint(chains * words, max(chains * words, most)))
        answers = tuple(", ".join(question.references) for question in example.questions)
        return self._lesson(example, answers, task)

    def text(self, growth: float) -> Lesson:
        """A passage of source code, and lines to be quoted from it."""
        lines = max(6, int(growth * self._config.max_text_lines))
        task = QuoteLine(self._config.source_chars)
        example = self._draw(task, self._rng.randint(5, lines))
        answers = tuple(question.references[0] for question in example.questions)
        return Lesson(example, answers, task, self._config.text_weight)

    def _draw(self, task: Task, length: int) -> Example:
        seed = self._rng.getrandbits(63)
        return next(iter(task.examples(length, split="tune", seed=seed, count=1)))

    def _restating(self, task: Task, length: int) -> Lesson:
        """Answer with the keys and their numbers, `amber-falcon is: 4170392.`, one a line."""
        example = self._draw(task, length)
        answers = tuple("\n".join(map(_restated, each.needles)) for each in example.questions)
        return self._lesson(example, answers, task)

    def _lesson(self, example: Example, answers: tuple[str, ...], task: Task) -> Lesson:
        return Lesson(example, answers, task, self._config.document_weight)


def _restated(needle: str) -> str:
    """Cut a needle down to its key and what follows."""
    found = _NEEDLE_KEY.search(needle)
    assert found is not None
    return needle[found.start(1) :]
