"""Progress of loading, reading and training as one line on a terminal."""

from __future__ import annotations

import sys
import threading
from typing import TextIO

from ttt_core.progress import Progress

_STAGES = {
    "load": "loading the model",
    "prefill": "reading",
    "tune": "trying rates",
    "train": "training",
    "probe": "judging",
    "documents": "documents",
    "wait": "waiting for another process",
}


class ProgressLine:
    """One line, updated in place: `reading 40%`, `training 12/48`. Thread-safe.

    Of several works at once it shows whichever reported last.

    Args:
        stream: Where to; None: to stderr, if that is a terminal.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._width = 0
        self._lock = threading.Lock()

    def show(self, progress: Progress) -> None:
        """Show a report in place of the one before."""
        self._write(in_words(progress))

    def clear(self) -> None:
        """Make room for what follows; writes nothing where nothing is shown."""
        self._write("")

    def _write(self, text: str) -> None:
        with self._lock:
            stream = self._stream or _terminal()
            if stream is None or not (text or self._width):
                return
            stream.write("\r" + text.ljust(self._width) + ("" if text else "\r"))
            stream.flush()
            self._width = len(text)


def in_words(progress: Progress) -> str:
    """Say a report in a few words."""
    said, done, total = _STAGES.get(progress.stage, progress.stage), progress.done, progress.total
    if progress.stage == "wait":
        said = f"{said}, {done} s"
    elif progress.stage == "prefill" and total:
        said = f"{said} {100 * done // total}%"
    elif progress.stage != "load":
        said = f"{said} {done}/{total}"
    if progress.documents:
        return f"document {progress.document} of {progress.documents}: {said}"
    return said


def _terminal() -> TextIO | None:
    """Return stderr if somebody watches it; some programs have none."""
    stream: TextIO | None = sys.stderr
    return stream if stream is not None and stream.isatty() else None
