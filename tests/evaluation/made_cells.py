"""Cells as an evaluation would leave them, with scores that a test says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ttt_core.evaluation.records import (
    Cell,
    CellKey,
    CellTiming,
    Choice,
    Failure,
    QuestionResult,
    RunRecord,
)
from ttt_core.evaluation.results import Results

ARMS = ("in-context", "qttt", "bm25", "lr-zero", "chance")


def make_cell(
    arm: str,
    scores: Sequence[float],
    *,
    example: str = "0",
    seed: int = 0,
    task: str = "registry",
    length: int | None = 64,
    model: str = "tiny",
    content: str = "",
    groups: Sequence[str] = (),
    failed: str = "",
    split: str = "score",
    settings: int = 0,
    source: str | None = None,
) -> Cell:
    """One cell; `groups` says the value of `depth` for each question."""
    key = CellKey(
        model=model,
        weights="" if arm == "chance" else "ab" * 32,
        task=task,
        length=length,
        split="tune" if split == "tune" else "score",
        seed=seed,
        example=example,
        content=content or f"{task} {length} {seed} {example}",
        arm=arm,
        settings={"n": settings},
    )
    questions = tuple(
        QuestionResult(
            id=str(number),
            text=f"said {score}",
            score=score,
            chance=0.1,
            flops=1e6,
            groups={"depth": groups[number]} if groups else {},
        )
        for number, score in enumerate(scores)
    )
    adapts = arm.startswith("qttt")
    return Cell(
        key=key,
        source=source,
        n_tokens=5 * (length or 100) + 8,
        document_flops={"read": 4e6, **({"adapt": 6e6} if adapts else {})},
        details={"decision": "adapted"} if adapts else {},
        questions=() if failed else questions,
        failure=Failure(kind=failed, message="no room") if failed else None,
    )


def make_cells(
    score: Callable[[str, int, int], float],
    *,
    arms: Iterable[str] = ARMS,
    documents: int = 8,
    questions: int = 4,
    task: str = "registry",
    length: int | None = 64,
    model: str = "tiny",
) -> list[Cell]:
    """A cell for each arm and document; `score` says it of (arm, document, question)."""
    return [
        make_cell(
            arm,
            [score(arm, document, question) for question in range(questions)],
            example=str(document % 4),
            seed=document // 4,
            task=task,
            length=length,
            model=model,
        )
        for arm in arms
        for document in range(documents)
    ]


def make_timing(cell: Cell, seconds: float = 2.0) -> CellTiming:
    """Seconds of a cell, a tenth of them for each question."""
    return CellTiming(
        cell=cell.key.digest,
        document_seconds={"read": seconds / 2, "adapt": seconds / 2},
        question_seconds={question.id: seconds / 10 for question in cell.questions},
        when="2026-11-22T10:00:00+00:00",
        threads=1,
        device="cpu",
    )


def write(folder: Path, cells: Iterable[Cell], *, timings: bool = True, runs: bool = True) -> Path:
    """Write a folder of results, as `ttt eval` leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    results = Results(folder)
    for cell in cells:
        if timings:
            results.add(cell, make_timing(cell))
        else:
            results._cells.append(cell)
    if runs:
        results.add_run(
            RunRecord(
                command="ttt eval --task registry --output <here>",
                when="2026-11-22T09:59:00+00:00",
                versions={"context-ttt": "0.1.0"},
                device="cpu",
                platform="linux",
            )
        )
        results.add_choice(
            Choice(
                task="registry",
                arm="qttt:learning_rate=tuned",
                option="learning_rate",
                scores={"1e-3": 0.5, "1e-4": 0.25},
                examples=4,
                questions=16,
                chosen="1e-3",
            )
        )
    results.finish()
    return folder
