"""Training at learning rate zero: everything as for `qttt`, and nothing may change.

AdamW at rate 0 moves no weight and decays none (its decay is the rate times the weight), so an
adapter that was trained so is the one that training begins with. That one is bound here, in the
way of every other adapter. Answers that differ from `in-context` would show that binding, and not
learning, makes a difference.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ttt_core.adapter import QueryAdapter
from ttt_core.evaluation.arms.base import ArmResult, questions, reply
from ttt_core.evaluation.arms.options import RecipeOptions, settings_of, spec_of

if TYPE_CHECKING:
    from pydantic import JsonValue

    from ttt_core.evaluation.bench import Bench
    from ttt_core.examples import Example


class LearningRateZero:
    """An untrained adapter is bound; must answer exactly as `in-context`."""

    description = "an adapter trained at learning rate 0: must equal in-context exactly"
    options_kind = RecipeOptions

    def __init__(self, options: RecipeOptions) -> None:
        self._options = options
        self.name = spec_of("lr-zero", options)
        self.settings: dict[str, JsonValue] = settings_of(options)

    def run(self, bench: Bench, example: Example) -> ArmResult:
        """See `Arm`."""
        projections = bench.architecture.projections
        adapter = QueryAdapter.create(projections, self._options.recipe)
        document = bench.read(example).replace(adapter=lambda: adapter)
        started = time.perf_counter()
        answers = bench.ask(document, questions(example), bench.rooms(example))
        assert all(answer.adapted for answer in answers), "the adapter was not bound"
        return ArmResult(
            n_tokens=document.n_tokens,
            replies=tuple(reply(bench, document, answer) for answer in answers),
            document_flops={"read": bench.read_flops(example)},
            document_seconds={"read": bench.read_seconds(example)},
            seconds=time.perf_counter() - started,
        )
