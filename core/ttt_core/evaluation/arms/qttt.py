"""Adapting the queries to the document first: what is evaluated, with any recipe."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ttt_core.evaluation.arms.adapting import Adapted, adapt_each, describe
from ttt_core.evaluation.arms.base import ArmResult, Reply, questions, reply
from ttt_core.evaluation.arms.options import RecipeOptions, settings_of, spec_of
from ttt_core.evaluation.arms.thinking import ThinkingOptions, budget, think, way

if TYPE_CHECKING:
    from pydantic import JsonValue

    from ttt_core.config import AdaptationConfig
    from ttt_core.evaluation.bench import Bench
    from ttt_core.examples import Example


class Qttt:
    """The document is adapted to, once; or for each question, where the supervision needs it."""

    description = "the model's queries are trained on the document; any field of AdaptationConfig"
    options_kind = RecipeOptions

    def __init__(self, options: RecipeOptions) -> None:
        self._options = options
        self.name = spec_of("qttt", options)
        self.settings: dict[str, JsonValue] = settings_of(options)

    def run(self, bench: Bench, example: Example) -> ArmResult:
        """See `Arm`."""
        adapted = adapt_each(bench, example, self._options.recipe)
        started = time.perf_counter()
        replies = _answers(bench, example, adapted)
        seconds = time.perf_counter() - started
        return _result(bench, example, self._options.recipe, adapted, replies, seconds=seconds)


class QtttAndThinking:
    """The document is adapted to, and the adapted model thinks before it answers."""

    description = "qttt, and thinking for as many FLOPs again"
    options_kind = ThinkingOptions

    def __init__(self, options: ThinkingOptions) -> None:
        self._options = options
        self.name = spec_of("qttt+thinking", options)
        self.settings: dict[str, JsonValue] = settings_of(options)

    def run(self, bench: Bench, example: Example) -> ArmResult:
        """See `Arm`."""
        options = self._options
        adapted = adapt_each(bench, example, options.recipe)
        share = len(adapted) if options.amortised else 1
        budgets = [
            options.budget or budget(bench, one.document, one, share=share) for one in adapted
        ]
        started = time.perf_counter()
        documents = [one.document for one in adapted]
        replies = think(bench, documents, example, budgets)
        seconds = time.perf_counter() - started
        return _result(
            bench, example, options.recipe, adapted, replies, seconds=seconds, way=way(bench)
        )


def _answers(bench: Bench, example: Example, adapted: list[Adapted]) -> tuple[Reply, ...]:
    """Ask about each document that there is; all questions together where it is one."""
    asked, rooms = questions(example), bench.rooms(example)
    if len({id(one) for one in adapted}) == 1:
        document = adapted[0].document
        return tuple(reply(bench, document, one) for one in bench.ask(document, asked, rooms))
    return tuple(
        reply(bench, one.document, bench.ask(one.document, [text], [room])[0])
        for one, text, room in zip(adapted, asked, rooms, strict=True)
    )


def _result(
    bench: Bench,
    example: Example,
    recipe: AdaptationConfig,
    adapted: list[Adapted],
    replies: tuple[Reply, ...],
    *,
    seconds: float,
    **details: JsonValue,
) -> ArmResult:
    first = adapted[0]
    if recipe.needs_question:
        replies = tuple(map(_charged, replies, adapted))
    else:
        details = {**describe(first.report), **details}
    return ArmResult(
        n_tokens=first.document.n_tokens,
        replies=replies,
        document_flops={"read": bench.read_flops(example), "adapt": first.shared_flops},
        document_seconds={"read": bench.read_seconds(example), "adapt": first.shared_seconds},
        seconds=seconds,
        details=details,
    )


def _charged(one: Reply, adapted: Adapted) -> Reply:
    """Put what was learned for a question only to that question's account."""
    from dataclasses import replace

    changes: dict[str, Any] = {
        "flops": one.flops + adapted.own_flops,
        "tokens": one.tokens + adapted.report.positions + adapted.report.probed_tokens,
        "seconds": one.seconds + adapted.own_seconds,
        "details": {**describe(adapted.report), **one.details},
    }
    return replace(one, **changes)
