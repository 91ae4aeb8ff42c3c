"""How a report begins: the verdict, and what was run."""

from __future__ import annotations

from collections.abc import Iterable

from ttt_core.evaluation.analysis import pairing
from ttt_core.evaluation.report.advice import advise
from ttt_core.evaluation.report.gathering import Findings
from ttt_core.evaluation.report.sheet import Sheet

_MOST_COMMANDS = 10


def add_verdict(sheet: Sheet, findings: Findings) -> None:
    """The sentence that a hurried reader takes home, what it means and asks for, then why."""
    for model in findings.summary.models:
        sheet.add_text(model.verdict.sentence, strong=True)
        for sentence in advise(model):
            sheet.add_text(sentence)
        sheet.add_list(model.verdict.reasons)


def add_what_was_run(sheet: Sheet, findings: Findings) -> None:
    """Models, tasks, arms, seeds, numbers, versions, dates and commands."""
    sheet.add_heading("What was run")
    cells = findings.cells
    questions = len({(*c.key.pair, q.id) for c in cells for q in c.questions})
    rows = [
        ("models", _models(findings)),
        ("tasks", "; ".join(_tasks(findings))),
        ("arms", ", ".join(dict.fromkeys(r.arm for m in findings.summary.models for r in m.rows))),
        ("seeds", _join(str(seed) for seed in sorted({c.key.seed for c in cells}))),
        ("documents", f"{pairing.count_documents(cells):,}"),
        ("questions asked of each arm", f"at most {questions:,}, all lengths together"),
        ("cells (document, length, arm)", f"{len(cells):,}"),
        ("measured", _dates(findings)),
        ("devices", _join(sorted({run.device for run in findings.runs}))),
        ("versions", _versions(findings)),
    ]
    sheet.add_table(["", "what"], [row for row in rows if row[1]], align="ll")
    commands = list(dict.fromkeys(run.command for run in findings.runs))
    if commands:
        more = len(commands) - _MOST_COMMANDS
        shown = commands[:_MOST_COMMANDS] + ([f"# and {more} more"] if more > 0 else [])
        sheet.add_code("\n".join(shown))


def _models(findings: Findings) -> str:
    weights = {(c.key.model, c.key.weights[:12]) for c in findings.cells if c.key.weights}
    named = [f"{model} (weights {mark})" for model, mark in sorted(weights)]
    return _join(named or sorted({cell.key.model for cell in findings.cells}))


def _tasks(findings: Findings) -> Iterable[str]:
    lengths: dict[str, set[int]] = {}
    for cell in findings.cells:
        found = lengths.setdefault(cell.key.task, set())
        if cell.key.length is not None:
            found.add(cell.key.length)
    for task, found in sorted(lengths.items()):
        numbers = ", ".join(f"{length}" for length in sorted(found))
        yield f"{task} (lengths {numbers})" if found else task


def _dates(findings: Findings) -> str:
    days = sorted({timing.when[:10] for timing in findings.timings.values() if timing.when})
    if not days:
        return ""
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _versions(findings: Findings) -> str:
    found = {(name, v) for run in findings.runs for name, v in run.versions.items()}
    return _join(f"{name} {version}" for name, version in sorted(found))


def _join(parts: Iterable[str]) -> str:
    return ", ".join(part for part in parts if part)
