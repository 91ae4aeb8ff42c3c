"""Everything that a report is made of, read from a folder of results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ttt_core.errors import DocumentError
from ttt_core.evaluation.analysis.summary import Summary, summarise
from ttt_core.evaluation.records import Cell, CellTiming, Choice, RunRecord
from ttt_core.evaluation.results import Results


@dataclass(frozen=True)
class Findings:
    """What a folder of results holds.

    Attributes:
        summary: The figures.
        cells: Those of the `score` split.
        timings: Of these, by `CellKey.digest`; some may be missing.
        choices: What was tuned.
        runs: Who wrote there.
    """

    summary: Summary
    cells: tuple[Cell, ...]
    timings: dict[str, CellTiming]
    choices: tuple[Choice, ...]
    runs: tuple[RunRecord, ...]


def gather(results: Path) -> Findings:
    """Read a folder that `ttt eval` wrote.

    Raises:
        DocumentError: Nothing is scored there, or a file holds what is no record.
    """
    folder = Results(results)
    cells = [cell for cell in folder.cells() if cell.key.split == "score"]
    if not cells:
        raise DocumentError(
            f"a report needs results, but nothing is scored in {results}; run 'ttt eval' with "
            f"this folder as --output first"
        )
    cells.sort(key=lambda cell: cell.key.order)
    digests = {cell.key.digest for cell in cells}
    timings = {k: timing for k, timing in folder.timings().items() if k in digests}
    return Findings(
        summary=summarise(cells, timings),
        cells=tuple(cells),
        timings=timings,
        choices=tuple(folder.choices()),
        runs=tuple(folder.runs()),
    )
