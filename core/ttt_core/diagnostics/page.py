"""A diagnosis as one self-contained HTML page with figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ttt_core.diagnostics import drawings
from ttt_core.diagnostics.findings import findings, query_name
from ttt_core.diagnostics.heads import all_heads
from ttt_core.pages import Page, Section, Strong

if TYPE_CHECKING:
    from ttt_core.diagnostics.diagnosis import Diagnosis
    from ttt_core.diagnostics.heads import Head
    from ttt_core.diagnostics.measure import Measurement
    from ttt_core.report import AdaptationReport

_MOST_HEADS = 12

_HOW = (
    "Mass is the needle's share of the softmax over all keys that a query sees: the document, the "
    "question and the answer so far, and sinks where a model has them. Margin is the needle's "
    "log-sum-exp of scores minus that of all rivals: the log odds of the mass. Lead is the same "
    "minus the best rival's score.\n\n"
    "With n rivals, a lead of log(n (1 - e) / e) is enough for mass 1 - e even if all rivals score "
    "alike (Lemma 2.3 of arXiv 2512.13898); rivals that score lower need less. The margin over all "
    "rivals together has their number in it already, and needs log((1 - e) / e) at any length.\n\n"
    "The answer's tokens were predicted one after another, each behind the true ones before it."
)


def diagnosis_page(d: Diagnosis, *, model: str) -> str:
    """Return the page. It holds pieces of the document and both answers.

    Args:
        d: What was found.
        model: Name of the model.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    page = Page("Diagnosis of one question")
    page.add_text(d.question, strong=True)
    page.add_table(("", ""), _facts(d, model), align="ll")
    page.add_heading("What was found")
    page.add_list(findings(d))
    _add_answer(page, d)
    _add_heads(page, d)
    _add_dilution(page, d)
    _add_document(page, d)
    if d.adapted.report is not None:
        _add_adaptation(page, d.adapted.report)
    page.add_heading("How it was measured")
    page.add_text(_HOW)
    return page.render()


def _facts(d: Diagnosis, model: str) -> Iterator[tuple[str, str]]:
    yield "model", model
    yield "document", f"{d.adapted.n_tokens:,} tokens, system prompt included"
    for needle in d.needles:
        kind = "needle, guessed" if needle.guessed else "needle"
        places = len(needle.places)
        yield kind, needle.text.strip() + (f" (in {places:,} places)" if places > 1 else "")
    yield "answer before", d.answer_before.text.strip() or "(empty)"
    if d.answer_after is not None:
        yield "answer after", d.answer_after.text.strip() or "(empty)"
    yield "true answer", d.true_answer.strip() or "(not known)"


def _add_answer(page: Page, d: Diagnosis) -> None:
    if not d.true_answer:
        return
    page.add_heading("The answer, token by token")
    sides = [("before", d.before), *([("after", d.after)] if d.after else [])]
    header = ["token", *(f"{what} {name}" for name, _ in sides for what in ("loss", "mass"))]
    columns = [column for _, side in sides for column in _columns(side)]
    rows = [
        [repr(token)[1:-1], *cells] for token, *cells in zip(d.answer_tokens, *columns, strict=True)
    ]
    page.add_table(header, rows, caption="Loss in nats; mean mass of the needle over all heads.")


def _columns(side: Measurement) -> tuple[list[str], list[str]]:
    losses = [f"{loss:.3f}" for loss in side.losses]
    return losses, [f"{mass:.1%}" for mass in side.by_query().tolist()]


def _add_heads(page: Page, d: Diagnosis) -> None:
    page.add_heading("Layers and heads")
    _add_masses(page, d, d.peak, f"at {query_name(d)}")
    heads = all_heads(d.before, d.after, d.peak)[:_MOST_HEADS]
    header = ["layer", "head", "mass before", "mass after", "margin before", "margin after",
              "lead before", "lead after"]  # fmt: skip
    page.add_table(
        header,
        [_head_row(head) for head in heads],
        caption="The heads that look at the needle most, where it is needed most; nats.",
        align="r" * len(header),
    )
    if len(d.answer_tokens) > 1:
        more = page.add_details("On average over the answer's tokens, and right before it")
        _add_masses(more, d, None, "on average over the answer's tokens")
        if d.peak:
            _add_masses(more, d, 0, "at the last token before the answer")


def _add_masses(section: Section, d: Diagnosis, query: int | None, where: str) -> None:
    for figure, caption in drawings.masses(d, query, where):
        section.add_figure(figure, caption)


def _head_row(head: Head) -> list[str]:
    before, after = head.before, head.after
    cells = [str(head.layer), str(head.head), f"{before.mass:.1%}"]
    cells.append("" if after is None else f"{after.mass:.1%}")
    for name in ("margin", "lead"):
        cells.append(f"{getattr(before, name):+.2f}")
        cells.append("" if after is None else f"{getattr(after, name):+.2f}")
    return [Strong(cell) for cell in cells] if head.most >= 0.5 else cells


def _add_dilution(page: Page, d: Diagnosis) -> None:
    if not d.dilution:
        return
    page.add_heading("Dilution")
    page.add_text(
        "The same needle in pieces of the document, cut around it at sentences or lines. The "
        "adapter is always that of the whole document."
    )
    for figure, caption in drawings.dilution(d):
        page.add_figure(figure, caption)


def _add_document(page: Page, d: Diagnosis) -> None:
    page.add_heading("The document")
    for figure, caption in drawings.document(d):
        page.add_figure(figure, caption)


def _add_adaptation(page: Page, report: AdaptationReport) -> None:
    page.add_heading("The adaptation")
    page.add_table(("", ""), list(_report_facts(report)), align="ll")
    if report.trials:
        rows = [
            [f"{t.learning_rate:g}", f"{t.steps}", "loss not finite" if t.gain is None
             else f"{t.gain:+.3f}"]
            for t in report.trials
        ]  # fmt: skip
        page.add_table(
            ("learning rate", "steps", "held-out gain"),
            rows,
            caption="Rates tried; nats per token.",
        )
    for figure, caption in drawings.losses(report):
        page.add_figure(figure, caption)


def _report_facts(report: AdaptationReport) -> Iterator[tuple[str, str]]:
    yield "decision", report.decision.replace("_", " ")
    yield "reasons", "; ".join(report.reasons)
    if report.probe is not None:
        probe = report.probe
        yield (
            "held-out clozes",
            f"{probe.clozes}: loss {probe.before:.3f} before, {probe.after:.3f} after "
            f"(p = {probe.p_value:.2g}); continued exactly {probe.right_before:.0%} before, "
            f"{probe.right_after:.0%} after (p = {probe.right_p_value:.2g})",
        )
    found = ", which found nothing and fell back" if report.fallback else ""
    yield (
        "recipe",
        f"{report.supervision}{found}, {report.parametrization}, {report.steps} steps kept",
    )
    if report.drift is not None:
        yield "drift", f"{report.drift:.3f} nats per token on generic questions"
    if report.ending_loss is not None:
        yield "ending loss", f"{report.ending_loss:+.3f} nats: how much less surely answers end"
