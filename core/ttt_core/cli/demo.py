"""`ttt demo`: the same questions on a long generated document, in-context and adapted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ttt_core.cli import console
from ttt_core.cli.ask import answer_all
from ttt_core.cli.report import document_json
from ttt_core.cli.work import learn, model_name, opened
from ttt_core.config import GenerationConfig
from ttt_core.document import Document
from ttt_core.errors import ConfigError
from ttt_core.sandbox import Question, is_correct, make_registry

if TYPE_CHECKING:
    from ttt_core import AdaptedDocument, TTTEngine
    from ttt_core.cli.options import Setup
    from ttt_core.generate import Answer

_BATCH = 8
"""Smaller than for `ttt ask`, so that the bar moves."""

_DECODING = GenerationConfig(max_new_tokens=16)
"""A record is some five tokens; an answer that is not done by then is wrong."""


@dataclass(frozen=True)
class Side:
    """All answers given in one of the two ways."""

    answers: tuple[Answer, ...]
    right: tuple[bool, ...]
    tokens_before: int
    """Tokens computed until the first question could be asked."""

    @property
    def correct(self) -> int:
        """How many answers restate the record."""
        return sum(self.right)

    @property
    def seconds(self) -> float:
        """Seconds per answer, all answers together."""
        batches = self.answers[::_BATCH]
        slowest = [
            max(answer.timing.total for answer in self.answers[i * _BATCH : (i + 1) * _BATCH])
            for i in range(len(batches))
        ]
        return sum(slowest) / len(self.answers)

    @property
    def tokens_later(self) -> float:
        """Tokens computed for a question once the document is read, on average."""
        return sum(answer.usage.computed_tokens for answer in self.answers) / len(self.answers)

    @property
    def tokens_first(self) -> int:
        """Tokens computed for the first question, reading and training included."""
        return self.tokens_before + self.answers[0].usage.computed_tokens


@dataclass(frozen=True)
class Comparison:
    """What the demo found."""

    questions: tuple[Question, ...]
    adapted_document: AdaptedDocument
    in_context: Side
    adapted: Side

    @property
    def kept_base(self) -> bool:
        """Whether both sides are the base model, because the gate said so."""
        report = self.adapted_document.report
        return report is None or report.decision == "kept_base"


def demo(setup: Setup, *, lines: int, questions: int, seed: int, as_json: bool) -> None:
    """Write a registry, ask about it both ways, and print what came out."""
    asked, document = _write_document(lines, questions, seed)
    console.status(f"wrote a registry of {lines:,} lines such as {document.text.splitlines()[0]!r}")
    with opened(setup) as engine:
        adapted = learn(engine, [document], setup)
        found = _compare(engine, adapted, asked)
    if as_json:
        console.write_json(_as_json(found, setup, lines=lines, seed=seed))
    else:
        _print(found, lines)


def _write_document(lines: int, questions: int, seed: int) -> tuple[tuple[Question, ...], Document]:
    if questions < 1:
        raise ConfigError("--questions must be at least 1")
    try:
        registry = make_registry(lines, seed=seed, questions=questions)
    except ValueError as error:
        raise ConfigError(f"--{error}") from None
    return registry.questions, Document.of(registry.text, title="registry.txt")


def _compare(
    engine: TTTEngine, adapted: AdaptedDocument, questions: tuple[Question, ...]
) -> Comparison:
    read = adapted.n_tokens
    report = adapted.report if adapted.source == "trained" else None
    trained = report.positions + report.probed_tokens if report else 0
    with console.Bars() as bars:
        ask = partial(_ask_all, engine, questions, bars)
        in_context = ask("asking in-context", adapted.without_adapter(), read)
        after = ask("asking adapted", adapted, read + trained)
    return Comparison(questions, adapted, in_context, after)


def _ask_all(
    engine: TTTEngine,
    questions: Sequence[Question],
    bars: console.Bars,
    title: str,
    document: AdaptedDocument,
    tokens_before: int,
) -> Side:
    def show(done: int) -> None:
        bars.advance(title, done, len(questions))

    show(0)
    texts = [question.text for question in questions]
    answers = answer_all(engine, document, texts, _DECODING, on_batch=show, batch=_BATCH)
    right = [is_correct(a.text, q) for a, q in zip(answers, questions, strict=True)]
    return Side(tuple(answers), tuple(right), tokens_before)


def _print(found: Comparison, lines: int) -> None:
    document = found.adapted_document
    console.show(_table(found, lines))
    if document.report and found.kept_base:
        console.show(f"The base model was kept: {'; '.join(document.report.reasons)}.")
    if document.source == "store":
        console.show("The result of an earlier run was found in the store: nothing was trained.")
    console.show("")
    console.show(_examples(found))
    console.show('Next: ttt ask yourfile.txt "..." --model Qwen/Qwen3-4B')


def _table(found: Comparison, lines: int) -> Table:
    tokens = found.adapted_document.n_tokens
    table = Table(
        title=f"{len(found.questions)} questions on {lines:,} lines ({tokens:,} tokens)",
        caption="tokens: all that went through the model",
        box=SIMPLE,
    )
    table.add_column("")
    table.add_column("in-context", justify="right")
    table.add_column("kept base" if found.kept_base else "adapted", justify="right")
    for name, *cells in _rows(found):
        table.add_row(name, *cells)
    return table


def _rows(found: Comparison) -> Iterator[tuple[str, ...]]:
    base, adapted = found.in_context, found.adapted
    document, asked = found.adapted_document, len(found.questions)
    prefill = f"{document.seconds['prefill']:.1f} s"
    verb = "fetching" if document.source == "store" else "adapting"
    yield "right answers", *(f"{s.correct} ({s.correct / asked:.0%})" for s in (base, adapted))
    yield "reading, once", prefill, prefill
    yield f"{verb}, once", "-", f"{document.seconds['adaptation']:.1f} s"
    yield "answering, each", *(f"{side.seconds * 1000:.0f} ms" for side in (base, adapted))
    yield "tokens, first question", f"{base.tokens_first:,}", f"{adapted.tokens_first:,}"
    yield "tokens, later question", f"{base.tokens_later:.0f}", f"{adapted.tokens_later:.0f}"


def _examples(found: Comparison) -> Group:
    """Two questions with both answers; those whose verdict adapting changed come first."""
    verdicts = list(zip(found.in_context.right, found.adapted.right, strict=True))
    changed = sorted(range(len(verdicts)), key=lambda i: verdicts[i][0] == verdicts[i][1])
    return Group(*(_example(found, index) for index in changed[:2]))


def _example(found: Comparison, index: int) -> Group:
    question = found.questions[index]
    sides = [("in-context", found.in_context), ("adapted", found.adapted)]
    table = Table.grid(padding=(0, 2))
    for name, side in sides[:1] if found.kept_base else sides:
        verdict = "[green]right[/]" if side.right[index] else "[red]wrong[/]"
        table.add_row(f"[dim]{name}[/]", verdict, _one_line(side.answers[index].text))
    title = Text(f"{question.text}  ({question.answer})", style="bold")
    return Group(title, Padding(table, (0, 0, 1, 2), expand=False))


def _one_line(text: str) -> Text:
    return Text(" ".join(text.split()), overflow="ellipsis", no_wrap=True)


def _as_json(found: Comparison, setup: Setup, *, lines: int, seed: int) -> dict[str, Any]:
    return {
        "model": model_name(setup),
        "lines": lines,
        "seed": seed,
        **document_json(["registry.txt"], found.adapted_document),
        "in_context": _side_json(found.in_context),
        "adapted": _side_json(found.adapted),
        "questions": [
            {
                "question": question.text,
                "expected": question.answer,
                "in_context": before.text,
                "adapted": after.text,
            }
            for question, before, after in zip(
                found.questions, found.in_context.answers, found.adapted.answers, strict=True
            )
        ],
    }


def _side_json(side: Side) -> dict[str, Any]:
    return {
        "correct": side.correct,
        "accuracy": side.correct / len(side.answers),
        "seconds_per_answer": side.seconds,
        "tokens_first_question": side.tokens_first,
        "tokens_later_question": side.tokens_later,
    }
