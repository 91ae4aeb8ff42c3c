"""Progress of loading, reading and training as one line on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TextIO
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from langchain_ttt.events import EVENT
from ttt_core.integration.progress_line import ProgressLine, in_words
from ttt_core.progress import Progress


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
        self._line = ProgressLine(stream)

    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Show a report; other events are none of ours."""
        if name == EVENT:
            self._line.show(Progress(**data))

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        """Make room for the answer."""
        self._line.clear()

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        """Make room for what follows; likewise `on_llm_error` and `on_chain_error`."""
        self._line.clear()

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        """See `on_llm_end`."""
        self._line.clear()

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        """See `on_llm_end`."""
        self._line.clear()


def describe(report: Mapping[str, Any]) -> str:
    """Say a report's data (see `events`) in a few words."""
    return in_words(Progress(**report))
