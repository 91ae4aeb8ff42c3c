"""Reports: the same bytes for the same results, nothing bold by luck, and no result too odd."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from importlib import util
from pathlib import Path

import pytest

from tests.evaluation.made_cells import make_cell, make_cells, write
from ttt_core.errors import DocumentError
from ttt_core.evaluation.records import Cell
from ttt_core.evaluation.report import write_report

Score = Callable[[str, int, int], float]


def better(arm: str, document: int, question: int) -> float:
    """Scores with which qttt is a quarter better, and bm25 the same as in-context."""
    return 0.75 if arm == "qttt" else 0.5


def read(folder: Path) -> str:
    return (folder / "report.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two lengths of one task, on which qttt is better."""
    cells = make_cells(better) + make_cells(better, length=128)
    cells.append(make_cell("bm25", [], example="9", failed="DocumentTooLongError"))
    folder = write(tmp_path_factory.mktemp("results"), cells)
    write_report(folder)
    return folder


def test_same_results_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    written = write_report(folder, tmp_path / "new" / "folder")
    assert written == tmp_path / "new" / "folder" / "report.html"
    for name in ("report.md", "report.html"):
        assert (written.parent / name).read_bytes() == (folder / name).read_bytes()


def test_verdict_comes_first(folder: Path) -> None:
    lines = read(folder).splitlines()
    assert lines[0].startswith("# ")
    assert lines[2].startswith("**For tiny and these documents: adapt (qttt against in-context")
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert html.index('<p class="strong">') < html.index("<h2>")


def test_what_was_run_is_told(folder: Path) -> None:
    text = read(folder)
    for said in (
        "| models | tiny (weights abababababab) |",
        "| tasks | registry (lengths 64, 128) |",
        "| seeds | 0, 1 |",
        "| measured | 2026-11-22 |",
        "context-ttt 0.1.0",
        "ttt eval --task registry --output <here>",
        "| learning_rate=1e-3 | 1e-3: 50, 1e-4: 25 | 16 / 4 |",
    ):
        assert said in text


def test_only_what_is_significant_is_bold(folder: Path) -> None:
    rows = [line for line in read(folder).splitlines() if line.startswith("| ")]
    bold = [line for line in rows if "**" in line]
    assert bold
    assert all("| qttt |" in line for line in bold)
    assert len(bold) == 3  # All tasks together, and each of two lengths.


def test_nothing_is_bold_on_five_documents(tmp_path: Path) -> None:
    cells = make_cells(better, documents=5, questions=10)
    write_report(write(tmp_path, cells))
    text = read(tmp_path)
    assert not re.search(r"^\|.*\*\*", text, re.MULTILINE)
    assert "qttt †" in text
    assert "not enough evidence" in text


def test_failures_are_told(folder: Path) -> None:
    text = read(folder)
    assert "| bm25 | DocumentTooLongError | no room | 1 |" in text
    assert "bm25: 1 of 17 cells failed" in text


def test_costs_are_told(folder: Path) -> None:
    line = next(
        row for row in read(folder).splitlines() if row.startswith("| registry | 64 | qttt")
    )
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[3:] == ["4.0e6", "6.0e6", "1.0e6", "1.1e7", "2.0e7", "2.0", "0.20", "4.0", "8"]


def test_page_has_a_figure_for_each_kind_and_loads_nothing(folder: Path) -> None:
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert html.count("<svg ") == 5  # Differences twice, scores, FLOPs, seconds.
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|<script|<image|<link", html)


def test_answers_do_not_reach_the_report(folder: Path) -> None:
    assert "said 0.5" not in read(folder)
    assert "said 0.5" not in (folder / "report.html").read_text(encoding="utf-8")


def noise(arm: str, document: int, question: int) -> float:
    """Scores by chance, the same every time."""
    return float(random.Random(ascii(f"{arm} {document} {question}")).random() < 0.4)


ODD: dict[str, list[Cell]] = {
    "one arm": make_cells(noise, arms=["in-context"]),
    "no reference": make_cells(noise, arms=["qttt"]),
    "one example": make_cells(noise, documents=1, questions=1),
    "no length": make_cells(noise, length=None),
    "only failures": [make_cell("qttt", [], failed="OutOfMemoryError")],
    "two models": make_cells(noise, model="a") + make_cells(noise, model="b"),
    "unknown groups": [
        make_cell(arm, [0.0, 1.0], example=str(n), groups=["", "new|group"][:2] if n else ())
        for arm in ("in-context", "qttt")
        for n in range(3)
    ],
    "names": make_cells(
        noise,
        arms=["in-context", "qttt:r=<b>&\"'$x$|`日本\ud800"],
        task="a<i>|*b*",
        model="m\n\n# x",
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_results_make_reports_too(kind: str, tmp_path: Path) -> None:
    write_report(write(tmp_path, ODD[kind], timings=False, runs=False))
    text = read(tmp_path)
    assert "these documents: " in text
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.endswith("</html>\n")
    assert "<i>" not in html
    assert "\n# x" not in text


def test_thirty_arms_fit(tmp_path: Path) -> None:
    arms = ["in-context", *(f"qttt:r={r}" for r in range(1, 30))]
    cells = make_cells(noise, arms=arms, documents=1, questions=1)
    write_report(write(tmp_path, cells, timings=False))
    text = read(tmp_path)
    assert all(f"| {arm} † |" in text for arm in arms)


@pytest.mark.parametrize("made", [True, False])
def test_empty_results_are_a_clear_error(made: bool, tmp_path: Path) -> None:
    results = tmp_path / "results"
    if made:
        write(results, [make_cell("qttt", [1.0], split="tune")])
    with pytest.raises(DocumentError, match=r"nothing is scored in .*run 'ttt eval'"):
        write_report(results)
    assert results.exists() == made
    assert not (results / "report.md").exists()


def test_without_matplotlib_there_is_a_report_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = util.find_spec
    monkeypatch.setattr(
        "ttt_core.evaluation.report.drawings.find_spec",
        lambda name: None if name == "matplotlib" else found(name),
    )
    write_report(write(tmp_path, make_cells(better)))
    assert "brings matplotlib" in read(tmp_path)
    assert "<svg" not in (tmp_path / "report.html").read_text(encoding="utf-8")
