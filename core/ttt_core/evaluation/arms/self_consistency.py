"""Several sampled answers and what most of them say, for the FLOPs of adapting.

Self-consistency (Wang et al., arXiv 2203.11171); the paper's App. G runs it with fixed numbers of
samples. Answers are compared as texts, case, punctuation and white space aside, so it suits tasks
with short answers.
"""

from __future__ import annotations

import time
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from ttt_core.evaluation.arms.adapting import adapt_each
from ttt_core.evaluation.arms.base import ArmResult, Reply, questions, reply
from ttt_core.evaluation.arms.options import RecipeOptions, settings_of, spec_of

if TYPE_CHECKING:
    from pydantic import JsonValue

    from ttt_core.evaluation.bench import Bench
    from ttt_core.examples import Example


class SelfConsistencyOptions(RecipeOptions):
    """The recipe whose FLOPs are matched, and how answers are sampled."""

    n: int | None = Field(default=None, ge=1)
    """Samples a question; None: as many as the recipe's FLOPs buy, by the first one's length."""
    most: int = Field(default=64, ge=1)
    """Samples a question at most; where fewer are asked for than could be paid, `details` say."""
    temperature: float = Field(default=0.7, gt=0)
    """The paper's, for answers without thinking."""


class SelfConsistency:
    """The base model answers several times at a temperature, and the majority counts."""

    description = "the majority of several samples, for as many FLOPs as adapting takes"
    options_kind = SelfConsistencyOptions

    def __init__(self, options: SelfConsistencyOptions) -> None:
        self._options = options
        self.name = spec_of("self-consistency", options)
        self.settings: dict[str, JsonValue] = settings_of(options)

    def run(self, bench: Bench, example: Example) -> ArmResult:
        """See `Arm`."""
        document = bench.read(example)
        budgets = self._budgets(bench, example)
        started = time.perf_counter()
        everyone = range(len(example.questions))
        samples = [[one] for one in self._sample(bench, example, everyone, 0)]
        paid = [
            self._paid(drawn[0], budget) for drawn, budget in zip(samples, budgets, strict=True)
        ]
        wanted = [min(count, self._options.most) for count in paid]
        for number in range(1, max(wanted)):
            missing = [index for index, count in enumerate(wanted) if count > number]
            drawn = self._sample(bench, example, missing, number)
            for index, one in zip(missing, drawn, strict=True):
                samples[index].append(one)
        return ArmResult(
            n_tokens=document.n_tokens,
            replies=tuple(map(_majority, samples, paid)),
            document_flops={"read": bench.read_flops(example)},
            document_seconds={"read": bench.read_seconds(example)},
            seconds=time.perf_counter() - started,
        )

    def _budgets(self, bench: Bench, example: Example) -> list[float]:
        if self._options.n is not None:
            return [0.0] * len(example.questions)
        return [one.flops for one in adapt_each(bench, example, self._options.recipe)]

    def _paid(self, first: Reply, budget: float) -> int:
        """Samples for the price of one answer, which in-context takes too, and of adapting."""
        return self._options.n or 1 + int(budget / first.flops)

    def _sample(
        self, bench: Bench, example: Example, which: Sequence[int], number: int
    ) -> list[Reply]:
        """Answer some of the questions, once each."""
        document, options = bench.read(example), self._options
        asked, rooms = questions(example), bench.rooms(example)
        answers = bench.ask(
            document,
            [asked[index] for index in which],
            [rooms[index] for index in which],
            temperature=options.temperature,
            seed=options.seed + number,
        )
        return [reply(bench, document, answer) for answer in answers]


def _majority(samples: list[Reply], paid: int) -> Reply:
    """Return the answer that most samples give; of equally many, the one that came first."""
    # A line of code that only closes brackets has no letters; it is compared as it is.
    forms = [normalised(one.text) or one.text.strip() for one in samples]
    form, votes = Counter(forms).most_common(1)[0]  # Keeps the order of first appearance.
    details: dict[str, JsonValue] = {
        "samples": len(samples),
        "samples_paid": paid,
        "agreement": votes / len(samples),
    }
    return replace(
        samples[forms.index(form)],
        flops=sum(one.flops for one in samples),
        tokens=sum(one.tokens for one in samples),
        generated_tokens=sum(one.generated_tokens for one in samples),
        details=details,
    )


def normalised(text: str) -> str:
    """Return what answers are compared by: letters, digits and marks of any script, case-folded."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = (c if unicodedata.category(c)[0] in "LNM" else " " for c in folded)
    return " ".join("".join(kept).split())
