"""The baselines that need no extra compute: asking the base model, and knowing nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ttt_core.evaluation.arms.base import ArmResult, Reply, questions, reply
from ttt_core.evaluation.arms.options import NoOptions, settings_of, spec_of

if TYPE_CHECKING:
    from pydantic import JsonValue

    from ttt_core.evaluation.bench import Bench
    from ttt_core.examples import Example


class InContext:
    """The base model reads the document and answers the task's own question, greedily."""

    description = "the base model reads the document and answers"
    options_kind = NoOptions

    def __init__(self, options: NoOptions) -> None:
        self.name = spec_of("in-context", options)
        self.settings: dict[str, JsonValue] = settings_of(options)

    def run(self, bench: Bench, example: Example) -> ArmResult:
        """See `Arm`."""
        document = bench.read(example)
        started = time.perf_counter()
        answers = bench.ask(document, questions(example), bench.rooms(example))
        return ArmResult(
            n_tokens=document.n_tokens,
            replies=tuple(reply(bench, document, answer) for answer in answers),
            document_flops={"read": bench.read_flops(example)},
            document_seconds={"read": bench.read_seconds(example)},
            seconds=time.perf_counter() - started,
        )


class Chance:
    """Nobody reads anything: the expected score of who only knows the form of the answers."""

    description = "no model: the expected score of a guess"
    options_kind = NoOptions

    def __init__(self, options: NoOptions) -> None:
        self.name = spec_of("chance", options)
        self.settings: dict[str, JsonValue] = settings_of(options)

    def run(self, bench: Bench, example: Example) -> ArmResult:
        """See `Arm`."""
        return ArmResult(
            n_tokens=bench.engine.count_tokens(example.document),
            replies=tuple(Reply("", score=question.chance) for question in example.questions),
        )
