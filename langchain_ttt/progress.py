"""Progress of loading, reading and training as one line on a terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from typing import Any, TextIO
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from langchain_ttt.events import EVENT

_STAGES = {
    "load": "loading the model",
    "prefill": "reading",
    "tune": "trying rates",
    "train": "training",
    "probe": "judging",
    "documents": "documents",
    "wait": "waiting for another process",
}


class TTTProgressHandler(BaseCallbackHandler):
    """Shows what a `ChatTTT` does before it answers: `reading 40%`, `training 12/48`.

    One line, updated in place and gone when the answer comes. Of several runs at once it shows
    whichever reported last. Thread-safe.

    Example:
        >>> llm.invoke(question, config={"callbacks": [TTTProgressHandler()]})

    Args:
        stream: Where to; None: to stderr, if that is a terminal.
    """

    run_inline = True
    """Beside an event loop handlers run in threads otherwise, where reports overtake each other."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._width = 0
        self._lock = threading.Lock()

    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Show a report; other events are none of ours."""
        if name == EVENT:
            self._show(describe(data))

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        """Make room for the answer."""
        self._show("")

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        """Make room for what follows; likewise `on_llm_error` and `on_chain_error`."""
        self._show("")

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        """See `on_llm_end`."""
        self._show("")

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        """See `on_llm_end`."""
        self._show("")

    def _show(self, text: str) -> None:
        with self._lock:
            stream = self._stream or _terminal()
            if stream is None or not (text or self._width):
                return
            stream.write("\r" + text.ljust(self._width) + ("" if text else "\r"))
            stream.flush()
            self._width = len(text)


def describe(report: Mapping[str, Any]) -> str:
    """Say a report's data (see `events`) in a few words."""
    stage, done, total = str(report["stage"]), int(report["done"]), int(report["total"])
    said = _STAGES.get(stage, stage)
    if stage == "wait":
        said = f"{said}, {done} s"
    elif stage == "prefill" and total:
        said = f"{said} {100 * done // total}%"
    elif stage != "load":
        said = f"{said} {done}/{total}"
    if report.get("documents"):
        return f"document {report['document']} of {report['documents']}: {said}"
    return said


def _terminal() -> TextIO | None:
    """Return stderr if somebody watches it; some programs have none."""
    stream: TextIO | None = sys.stderr
    return stream if stream is not None and stream.isatty() else None
