"""A folder of results: what was found, how long it took, what was chosen, and who ran it.

results.jsonl   one `Cell` a line; the same for an interrupted run as for one in one go
timings.jsonl   one `CellTiming` a line
choices.jsonl   one `Choice` a line
runs.jsonl      one `RunRecord` a line
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ttt_core.evaluation.jsonlines import JsonLines
from ttt_core.evaluation.records import Cell, CellKey, CellTiming, Choice, RunRecord
from ttt_core.files import make_private, sweep
from ttt_core.locks import LOCK_SUFFIX, locked, sweep_locks


class Results:
    """What was evaluated so far. Safe for several processes at once.

    Args:
        folder: Where the files are; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._cells: JsonLines[Cell] = JsonLines(
            folder / "results.jsonl",
            Cell,
            lambda cell: cell.key.digest,
            # Who tried again, and was lucky, has the answers.
            wins=lambda first, second: first.failure is not None and second.failure is None,
        )
        self._timings: JsonLines[CellTiming] = JsonLines(
            folder / "timings.jsonl",
            CellTiming,
            lambda timing: timing.cell,
            wins=lambda first, second: True,  # The last one measured what is in the results.
        )
        self._choices: JsonLines[Choice] = JsonLines(
            folder / "choices.jsonl",
            Choice,
            lambda choice: json.dumps(_identity(choice)),
            wins=lambda first, second: True,
        )
        self._runs: JsonLines[RunRecord] = JsonLines(
            folder / "runs.jsonl", RunRecord, lambda run: run.model_dump_json()
        )

    def cells(self) -> list[Cell]:
        """All cells, each key once; in canonical order after `finish`.

        Raises:
            DocumentError: A file holds what is no record, or records of another version.
        """
        return list(self._cells.read().values())

    def by_digest(self) -> dict[str, Cell]:
        """All cells by `CellKey.digest`."""
        return self._cells.read()

    def timings(self) -> dict[str, CellTiming]:
        """Seconds by `CellKey.digest`; some may be missing."""
        return self._timings.read()

    def choices(self) -> list[Choice]:
        """What was chosen on examples that are not scored."""
        return list(self._choices.read().values())

    def runs(self) -> list[RunRecord]:
        """Who wrote here, in the order of their starts."""
        return sorted(self._runs.read().values(), key=lambda run: run.when)

    def add(self, cell: Cell, timing: CellTiming) -> None:
        """Write a cell down; it is on the disk when this returns.

        Raises:
            StoreError: It cannot be written.
        """
        self._timings.append(timing)  # First: a cell without seconds would stay without.
        self._cells.append(cell)

    def add_choice(self, choice: Choice) -> None:
        """Write down what was chosen, and why."""
        if choice not in self.choices():
            self._choices.append(choice)

    def add_run(self, run: RunRecord) -> None:
        """Write down who begins to work here."""
        self._runs.append(run)

    @contextmanager
    def claimed(self, key: CellKey) -> Iterator[bool]:
        """Hold a cell for the length of the block; yield False if another process has it.

        Raises:
            OSError: The lock cannot be made.
        """
        folder = self._locks
        make_private(folder)
        with locked(folder / f"{key.digest}{LOCK_SUFFIX}", timeout=0.0) as alone:
            yield alone

    def finish(self) -> None:
        """Sort the files: the same cells always make the same results.jsonl, byte for byte."""
        self._cells.rewrite(lambda cell: cell.key.order)
        self._timings.rewrite(lambda timing: timing.cell)
        self._choices.rewrite(_identity)
        if self._locks.is_dir():
            sweep_locks(self._locks)
        sweep(self.folder, pattern="*.tmp")

    @property
    def _locks(self) -> Path:
        return self.folder / "locks"


def _identity(choice: Choice) -> tuple[str, ...]:
    return (choice.model, choice.weights, choice.task, choice.arm, choice.option)
