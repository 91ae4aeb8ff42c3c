"""One text on two sheets: report.md and report.html."""

from __future__ import annotations

from pathlib import Path

from ttt_core.evaluation.report import closing, opening, scoring, spending
from ttt_core.evaluation.report.gathering import Findings, gather
from ttt_core.evaluation.report.sheet import Both, Sheet
from ttt_core.files import replacing
from ttt_core.pages import Markdown, Page

_TITLE = "Does adapting to the document help?"


def write_report(results: Path, output: Path | None = None) -> Path:
    """Write report.md and report.html; the same results always give the same bytes.

    Args:
        results: The folder of results.
        output: The folder to write to, made if it is not there; None: `results`.

    Returns:
        The path of report.html.

    Raises:
        DocumentError: Nothing is scored there, or a file holds what is no record.
        OSError: The report cannot be written.
    """
    return write_findings(gather(results), output or results)


def write_findings(findings: Findings, folder: Path) -> Path:
    """Write what `gather` found; see `write_report`."""
    folder.mkdir(parents=True, exist_ok=True)
    markdown, page = Markdown(_TITLE), Page(_TITLE)
    fill(Both(page, markdown), findings)  # At once, as drawing takes its time.
    for name, text in (("report.md", markdown.render()), ("report.html", page.render())):
        with replacing(folder / name) as path:
            path.write_bytes(text.encode("utf-8"))
    return folder / "report.html"


def fill(sheet: Sheet, findings: Findings) -> None:
    """Write everything, the verdict first."""
    opening.add_verdict(sheet, findings)
    opening.add_what_was_run(sheet, findings)
    for model in findings.summary.models:
        scoring.add_scores(sheet, model)
        spending.add_costs(sheet, model)
        scoring.add_breakdown(sheet, model)
    closing.add_failures(sheet, findings)
    closing.add_choices(sheet, findings)
    closing.add_settings(sheet, findings)
    closing.add_method(sheet)
