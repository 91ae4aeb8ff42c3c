"""Adapting to an example, for the arms that do and those that get as many FLOPs: what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import JsonValue

if TYPE_CHECKING:
    from ttt_core.adapted import AdaptedDocument
    from ttt_core.config import AdaptationConfig
    from ttt_core.evaluation.bench import Bench
    from ttt_core.examples import Example
    from ttt_core.report import AdaptationReport


@dataclass(frozen=True)
class Adapted:
    """A document adapted to, for all questions or for one of them.

    Attributes:
        document: To ask about.
        report: How it was adapted to.
        shared_flops: Spent once a document: adapting to it, also where a question's adapter only
            begins with what that taught.
        own_flops: Spent for the one question.
        shared_seconds: Wall clock of the former, when it was done; the store may have kept it.
        own_seconds: Wall clock of the latter.
    """

    document: AdaptedDocument
    report: AdaptationReport
    shared_flops: float
    own_flops: float
    shared_seconds: float
    own_seconds: float

    @property
    def flops(self) -> float:
        """What the first question had to wait for."""
        return self.shared_flops + self.own_flops


def adapt_each(bench: Bench, example: Example, recipe: AdaptationConfig) -> list[Adapted]:
    """Adapt for each question of an example; one and the same where the recipe needs no question.

    Raises:
        TTTError: See `TTTEngine.adapt`.
    """
    bench.read(example)  # So that reading is nobody's adaptation.
    if not recipe.needs_question:
        return [_for_all(bench, example, recipe)] * len(example.questions)
    start = _for_all(bench, example, recipe.for_document()) if recipe.warm_start else None
    return [_for_one(bench, example, recipe, one.text, start) for one in example.questions]


def describe(report: AdaptationReport) -> dict[str, JsonValue]:
    """What a report says that does not change from run to run: no seconds, no bytes."""
    probe = report.probe
    return {
        # Training for a question has three ends; a gate that refused it has not let it through.
        "decision": "kept_document" if report.kept_document else report.decision,
        "reasons": list(report.reasons),
        "learning_rate": report.learning_rate,
        "steps": report.steps,
        "steps_run": report.steps_run,
        "positions": report.positions,
        "probed_tokens": report.probed_tokens,
        "gain": probe.gain if probe else None,
        "p_value": probe.p_value if probe else None,
        "right_before": probe.right_before if probe else None,
        "right_after": probe.right_after if probe else None,
        "drift": report.drift,
        "ending_loss": report.ending_loss,
        "thinking_tokens": report.thinking_tokens,
    }


def _for_all(bench: Bench, example: Example, recipe: AdaptationConfig) -> Adapted:
    document = bench.engine.adapt(example.document, config=recipe)
    assert document.report is not None
    report = document.report
    return Adapted(document, report, report.flops, 0.0, sum(report.seconds.values()), 0.0)


def _for_one(
    bench: Bench, example: Example, recipe: AdaptationConfig, question: str, start: Adapted | None
) -> Adapted:
    document = bench.engine.adapt(example.document, question=question, config=recipe)
    assert document.report is not None
    report = document.report
    return Adapted(
        document,
        report,
        shared_flops=start.shared_flops if start else 0.0,
        own_flops=report.flops,
        shared_seconds=start.shared_seconds if start else 0.0,
        own_seconds=sum(report.seconds.values()),
    )
