"""What was done to a document: for a person and for a script."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from ttt_core.cli.console import plain

if TYPE_CHECKING:
    from ttt_core import AdaptedDocument
    from ttt_core.generate import Answer
    from ttt_core.report import AdaptationReport

_DECISIONS = {"adapted": "adapted", "kept_base": "kept the base model"}


def summary(adapted: AdaptedDocument) -> str:
    """Say in one line what was read and learned."""
    disk = " from disk" if adapted.prefix_source == "disk" else ""
    read = f"read {adapted.n_tokens:,} tokens{disk} in {_seconds(adapted.seconds['prefill'])}"
    report = adapted.report
    if report is None:
        return f"{read}; answering in-context, without adapting"
    decision = _DECISIONS[report.decision]
    if adapted.source == "store":
        return f"{read}; {decision} earlier, found in the store"
    took = _seconds(adapted.seconds["adaptation"])
    return f"{read}; {decision} in {took}: {'; '.join(report.reasons)}"


def figures(answer: Answer) -> str:
    """Say in one line what an answer cost."""
    usage = answer.usage
    queries = "adapted" if answer.adapted else "base"
    return (
        f"{_seconds(answer.timing.total)}, {usage.computed_tokens:,} tokens computed, "
        f"{usage.cached_tokens:,} reused, {queries} queries"
    )


def report_table(adapted: AdaptedDocument) -> Table:
    """Lay out the report of an adaptation, one fact a line."""
    if adapted.report is None:
        return fact_table(())
    seconds, found = adapted.seconds["prefill"], adapted.source == "store"
    return fact_table(report_facts(adapted.report, prefill=seconds, found=found))


def fact_table(facts: Iterable[tuple[str, str | Text]]) -> Table:
    """Lay out names and values, one fact a line; what is no `Text` is taken as it is."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, value if isinstance(value, Text) else Text(value))
    return table


def report_facts(
    report: AdaptationReport, *, prefill: float | None = None, found: bool = False
) -> Iterator[tuple[str, str | Text]]:
    """Tell what an adaptation did and why.

    Args:
        report: Made just now, or long ago.
        prefill: Seconds that reading took just now.
        found: Whether to say that it was found in the store.
    """
    where = " (made earlier, found in the store)" if found else ""
    yield "decision", Text.assemble((_DECISIONS[report.decision], "bold"), where)
    yield "reasons", "\n".join(map(plain, report.reasons))
    if report.probe:
        probe = report.probe
        yield (
            "held-out loss",
            f"{probe.before:.3f} before, {probe.after:.3f} after ({probe.clozes} clozes, "
            f"p = {probe.p_value:.2g})",
        )
        yield (
            "continued exactly",
            f"{probe.right_before:.0%} before, {probe.right_after:.0%} after "
            f"(p = {probe.right_p_value:.2g})",
        )
    yield "learning rates", _rates(report)
    if report.steps_run:
        yield "steps", f"{report.steps} kept, {report.steps_run} computed, trials included"
    yield "seconds", _stages(report, prefill)
    if report.drift is not None:
        yield "drift", f"{report.drift:.3f} nats per token on generic questions"
    yield (
        "compute",
        f"{report.flops:.2g} FLOPs, as much as {report.thinking_tokens:,} thinking tokens",
    )
    yield "document", f"{report.document_tokens:,} tokens, {report.supervision} supervision"
    yield "weights", report.parametrization
    if report.steps_run:
        yield "attention", plain(report.attention)
        yield "activations", f"{report.activation_bytes / 2**20:,.1f} MiB kept by a training pass"


def corpus_table(documents: Sequence[tuple[str, AdaptedDocument]]) -> Table:
    """Lay out what was done to many documents, one a line."""
    table = Table("document", "tokens", "decision", "source", "seconds", box=SIMPLE)
    for column in (1, 4):
        table.columns[column].justify = "right"
    for name, adapted in documents:
        decision = _DECISIONS[adapted.report.decision] if adapted.report else ""
        seconds = f"{sum(adapted.seconds.values()):.1f}"
        table.add_row(Text(name), f"{adapted.n_tokens:,}", decision, adapted.source, seconds)
    return table


def document_json(names: Sequence[str], adapted: AdaptedDocument) -> dict[str, Any]:
    """What was read and learned, for a script."""
    report = adapted.report
    return {
        "documents": list(names),
        "sha256": adapted.document_hash,
        "document_tokens": adapted.n_tokens,
        "dropped_tokens": adapted.dropped_tokens,
        "source": adapted.source,
        "kv_source": adapted.prefix_source,
        "seconds": adapted.seconds,
        "key": adapted.key,
        # By way of pydantic's own JSON, which writes null for what is not finite.
        "report": json.loads(report.model_dump_json()) if report else None,
    }


def answer_json(question: str, answer: Answer) -> dict[str, Any]:
    """One answer, for a script."""
    usage = answer.usage
    return {
        "question": question,
        "answer": answer.text,
        "finish_reason": answer.finish_reason,
        "adapted": answer.adapted,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.cached_tokens,
            "computed_tokens": usage.computed_tokens,
        },
        "seconds": {"first_token": answer.timing.first_token, "total": answer.timing.total},
        "attention": answer.timing.attention,
    }


def _rates(report: AdaptationReport) -> str:
    """Every rate that was tried, with its gain, and which one won."""
    if not report.trials:
        return f"{report.learning_rate:g}" if report.learning_rate is not None else "none tried"
    lines = []
    for trial in report.trials:
        gain = "loss not finite" if trial.gain is None else f"{trial.gain:+.3f}"
        chosen = "  chosen" if trial.learning_rate == report.learning_rate else ""
        lines.append(f"{trial.learning_rate:<7g} {gain}{chosen}")
    return "\n".join(lines)


def _stages(report: AdaptationReport, prefill: float | None) -> str:
    stages = {**({} if prefill is None else {"prefill": prefill}), **report.seconds}
    return ", ".join(f"{plain(name)} {seconds:.1f}" for name, seconds in stages.items())


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
