"""What a person sees: answers and tables on stdout; bars, notes and errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ttt_core.progress import Progress as Report

_STAGES = {
    "load": "loading",
    "prefill": "reading",
    "prepare": "choosing passages",
    "tune": "trying rates",
    "train": "training",
    "probe": "judging",
    "documents": "documents",
    "wait": "waiting for another process",
}
_WIDE = 10_000
"""Columns of what is no terminal: nothing may be wrapped or cut there."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would exit here, past our own handling.


def interactive() -> bool:
    """Whether somebody watches stderr."""
    return _stderr().is_terminal


def note(message: str) -> None:
    """Say something that matters even in a script's log."""
    _stderr().print(message, style="yellow", markup=False, highlight=False, soft_wrap=True)


def status(message: str) -> None:
    """Say something that only a person cares about."""
    if interactive():
        _stderr().print(message, style="dim", markup=False, highlight=False, soft_wrap=True)


def error(message: str) -> None:
    """Say why there is no result."""
    console = _stderr()
    console.print("[bold red]error:[/] ", end="")
    console.print(message, markup=False, highlight=False, soft_wrap=True)


def can_ask() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin.isatty() and interactive()


def ask(question: str) -> bool:
    """Ask whoever is there; only a yes is a yes."""
    _stderr().print(f"{question} [y/N] ", end="", markup=False, highlight=False, soft_wrap=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def plain(text: str) -> str:
    """Return what is left of a text from a file without what could command a terminal."""
    return "".join(c for c in text if c.isprintable())


def show(renderable: RenderableType) -> None:
    """Print a table or a line of text on stdout."""
    terminal = sys.stdout.isatty()
    _Console(width=None if terminal else _WIDE).print(renderable, soft_wrap=not terminal)


def heading(text: str) -> None:
    """Print a line on stdout, bold on a terminal."""
    _Console().print(text, style="bold", markup=False, highlight=False, soft_wrap=True)


def write(text: str) -> None:
    """Write a piece of an answer at once.

    A terminal gets no control characters: a document could hold escape sequences, and a model
    could be made to repeat them.
    """
    if sys.stdout.isatty():
        text = "".join(c for c in text if c in "\n\t" or c.isprintable() or c.isspace())
    sys.stdout.write(text)
    sys.stdout.flush()


def write_json(value: Mapping[str, Any]) -> None:
    """Write the one JSON object of a command; ASCII, so that no terminal encoding can break it."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    sys.stdout.flush()


@contextmanager
def waiting(message: str) -> Iterator[None]:
    """Show a spinner while the block works, if somebody watches."""
    if not interactive():
        yield
        return
    with _stderr().status(message):
        yield


class Bars:
    """Progress bars on stderr, gone when the block ends; nothing if nobody watches.

    An instance is a `ttt_core.progress.ProgressCallback`.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, TaskID] = {}
        self._document: int | None = None
        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(bar_width=14),  # So that a line fits 80 columns, the echo of ^C included.
            TextColumn("{task.fields[count]}", justify="right"),
            TextColumn("[dim]{task.fields[figures]}", justify="right"),
            TimeElapsedColumn(),
            console=_stderr(),
            transient=True,
            disable=not interactive(),
        )

    def __enter__(self) -> Bars:
        """Begin to show."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Clear the bars and give the cursor back."""
        self._progress.stop()

    def __call__(self, report: Report) -> None:
        """Show what the engine reports; of many documents, the bars of the one in work."""
        if report.document != self._document and report.stage != "documents":
            self._document = report.document
            self._remove_all_but(_STAGES["documents"])
        # How long is allowed to wait is no goal: there is nothing to fill a bar with.
        total = 0 if report.stage == "wait" else report.total
        self.advance(_STAGES[report.stage], report.done, total, _figures(report))

    def advance(self, title: str, done: int, total: int, figures: str = "") -> None:
        """Show that `done` of `total` is reached under `title`; 0: it is not known of how many."""
        if title not in self._tasks:
            self._finish_earlier()
            self._tasks[title] = self._progress.add_task(title, total=None, count="", figures="")
        self._progress.update(
            self._tasks[title],
            completed=done,
            total=total or None,
            count=f"{done:,}/{total:,}" if total else "",
            figures=figures,
        )

    def _finish_earlier(self) -> None:
        """Stop the clocks of the stages before: early stopping ends one at less than its total."""
        for title, task in self._tasks.items():
            if title != _STAGES["documents"]:  # Goes on all the while.
                self._progress.stop_task(task)

    def _remove_all_but(self, kept: str) -> None:
        for title in self._tasks.keys() - {kept}:
            self._progress.remove_task(self._tasks.pop(title))


def _figures(report: Report) -> str:
    speed = report.tokens_per_second
    parts = [f"{speed:,.0f} tok/s" if speed is not None else ""]
    parts.append(f"loss {report.loss:.3f}" if report.loss is not None else "")
    return "  ".join(filter(None, parts))


def _stderr() -> Console:
    return _Console(stderr=True)
