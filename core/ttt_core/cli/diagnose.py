"""`ttt diagnose`: attention on what the answer rests on, before and after adapting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from ttt_core.cli import console
from ttt_core.cli.failures import UsageProblem
from ttt_core.cli.inputs import Inputs, read_documents
from ttt_core.cli.report import answer_json, document_json, fact_table, report_facts
from ttt_core.cli.work import learn, model_name, opened, warn_of_toy
from ttt_core.errors import ConfigError

if TYPE_CHECKING:
    from ttt_core.cli.options import Setup
    from ttt_core.config import GenerationConfig
    from ttt_core.diagnostics import Diagnosis
    from ttt_core.document import Document

_MOST_HEADS = 6


@dataclass(frozen=True)
class Wanted:
    """What to look at, and where to write the page.

    Attributes:
        needles: Pieces of the document; none: guess.
        answer: The true answer, if it is known.
        dilution: Whether to measure on pieces of the document, too.
        html: The page's file; None: no page.
    """

    needles: tuple[str, ...] = ()
    answer: str | None = None
    dilution: bool = True
    html: Path | None = None


def diagnose(
    inputs: Inputs, setup: Setup, decoding: GenerationConfig, wanted: Wanted, *, as_json: bool
) -> None:
    """Measure, then print, and write the page if one is wanted."""
    if len(inputs.questions) != 1:
        raise UsageProblem(
            'one question, please: ttt diagnose FILE "QUESTION" --needle "WHERE THE ANSWER STANDS"'
        )
    if wanted.answer is not None and not wanted.answer.strip():
        raise ConfigError("the answer is empty; expected the true answer, or no --answer")
    _check_page(wanted.html)
    documents = read_documents(inputs.names)
    warn_of_toy(setup, documents)
    found = _examine(documents, inputs.questions[0], setup, decoding, wanted)
    if wanted.html is not None:
        _write_page(wanted.html, found, model_name(setup))
    if as_json:
        console.write_json(_as_json(found, inputs, setup))
    else:
        _print(found)
    if wanted.html is not None:
        console.status(f"wrote {wanted.html}")
    elif not as_json:
        console.status("--html PAGE.html writes a page with figures, --json all figures as numbers")


def _examine(
    documents: Sequence[Document],
    question: str,
    setup: Setup,
    decoding: GenerationConfig,
    wanted: Wanted,
) -> Diagnosis:
    """Read, see that the needle is there, and only then adapt."""
    from ttt_core import diagnostics

    with opened(setup) as engine:
        adapted = learn(engine, documents, replace(setup, adaptation=None))
        diagnostics.check(engine, adapted, question, wanted.needles)
        with console.Bars() as bars:
            if setup.adaptation is not None:
                asked = question if setup.adaptation.needs_question else None
                adapted = engine.adapt(
                    documents, question=asked, system=setup.system, on_progress=bars
                )
            return diagnostics.diagnose(
                engine,
                adapted,
                question,
                needles=wanted.needles,
                answer=wanted.answer,
                dilution=wanted.dilution,
                config=decoding,
                on_progress=bars,
            )


def _check_page(path: Path | None) -> None:
    """Refuse before minutes of work what could not be written after them."""
    if path is None:
        return
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ConfigError(f"--html is a file to write in a folder that exists, not {path}")


def _write_page(path: Path, found: Diagnosis, model: str) -> None:
    from ttt_core.diagnostics.page import diagnosis_page

    page = diagnosis_page(found, model=model)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--html: cannot write {path}: {error.strerror}") from None


def _print(found: Diagnosis) -> None:
    from ttt_core.diagnostics.findings import findings

    console.heading(found.question)
    console.show(fact_table(_facts(found)))
    console.show("")
    for sentence in findings(found):
        console.show(Text(f"- {sentence}"))
    console.show("")
    console.show(_heads_table(found))
    if found.dilution:
        console.show(_dilution_table(found))
    if found.adapted.report is not None:
        console.show(fact_table(report_facts(found.adapted.report)))


def _facts(found: Diagnosis) -> Iterator[tuple[str, str]]:
    yield "document", f"{found.adapted.n_tokens:,} tokens"
    for needle in found.needles:
        times = f"{len(needle.places):,} times" if len(needle.places) != 1 else "once"
        name = "needle, guessed" if needle.guessed else "needle"
        yield name, f"{_one_line(needle.text)} ({times})"
    yield "answer before", _one_line(found.answer_before.text) or "(empty)"
    if found.answer_after is not None:
        yield "answer after", _one_line(found.answer_after.text) or "(empty)"


def _heads_table(found: Diagnosis) -> Table:
    from ttt_core.diagnostics.heads import all_heads

    table = Table(
        "layer",
        "head",
        title="heads that look at the needle most",
        caption="mass: the needle's share of the attention; margin: its lead over all other tokens "
        "together, lead: over the best of them, in nats",
        box=SIMPLE,
    )
    sides = ("before", "after") if found.after is not None else ("before",)
    for quantity in ("mass", "margin", "lead"):
        for side in sides:
            table.add_column(f"{quantity} {side}", justify="right")
    for head in all_heads(found.before, found.after, found.peak)[:_MOST_HEADS]:
        values = [getattr(head, side) for side in sides]
        table.add_row(
            str(head.layer),
            str(head.head),
            *(f"{value.mass:.1%}" for value in values),
            *(f"{value.margin:+.2f}" for value in values),
            *(f"{value.lead:+.2f}" for value in values),
        )
    return table


def _dilution_table(found: Diagnosis) -> Table:
    from ttt_core.diagnostics.findings import EPSILONS
    from ttt_core.diagnostics.heads import all_heads
    from ttt_core.diagnostics.lemmas import demanded_lead

    top = all_heads(found.before, found.after, found.peak)[0]
    table = Table(
        title=f"dilution, head {top.head} of layer {top.layer}",
        caption="enough for 90%: the lead that gives the needle 90% of the attention however many "
        "others compete",
        box=SIMPLE,
    )
    sides = ("before", "after") if found.after is not None else ("before",)
    names = [f"{what} {side}" for what in ("mass", "lead") for side in sides]
    for name in ("tokens", *names, *(f"enough for {1 - e:.0%}" for e in EPSILONS)):
        table.add_column(name, justify="right")
    for point in found.dilution:
        measured = [getattr(point, side) for side in sides]
        cell = (top.layer, top.head)
        table.add_row(
            f"{point.n_tokens:,}",
            *(f"{float(m.grid('mass', found.peak)[cell]):.1%}" for m in measured),
            *(f"{float(m.grid('lead', found.peak)[cell]):+.2f}" for m in measured),
            *(f"{demanded_lead(point.before.rivals, e):.2f}" for e in EPSILONS),
        )
    return table


def _one_line(text: str) -> str:
    return console.plain(" ".join(text.split()))


def _as_json(found: Diagnosis, inputs: Inputs, setup: Setup) -> dict[str, object]:
    from ttt_core.diagnostics.as_json import diagnosis_json

    after = found.answer_after
    return {
        "model": model_name(setup),
        **document_json(inputs.names, found.adapted),
        **diagnosis_json(found),
        "answers": {
            "before": answer_json(found.question, found.answer_before),
            "after": None if after is None else answer_json(found.question, after),
        },
    }
