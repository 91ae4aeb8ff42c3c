"""Events of reading and adapting, on LlamaIndex's dispatcher: start, progress, end."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.base import BaseEvent
from pydantic import Field
from typing_extensions import Self

from ttt_core.integration.progress_line import ProgressLine
from ttt_core.progress import Progress, ProgressCallback, ignore_progress

if TYPE_CHECKING:
    from ttt_core import AdaptedDocument

dispatcher = get_dispatcher(__name__)


class AdaptationStartEvent(BaseEvent):
    """A document is about to be read, or waited for: it was not at hand.

    Attributes:
        model: As the user knows it.
    """

    model: str

    @classmethod
    def class_name(cls) -> str:
        """Class name."""
        return "AdaptationStartEvent"


class AdaptationProgressEvent(BaseEvent):
    """Some of the work is done; see `ttt_core.progress.Progress` for the fields."""

    stage: str
    done: int
    total: int
    tokens_per_second: float | None = None
    loss: float | None = None
    document: int | None = None
    documents: int | None = None

    @classmethod
    def class_name(cls) -> str:
        """Class name."""
        return "AdaptationProgressEvent"


class AdaptationEndEvent(BaseEvent):
    """The document is there, or the work failed.

    Attributes:
        model: As the user knows it.
        document_id: Nothing of its text; see `AdaptedDocument.id`.
        document_tokens: System prompt included.
        decision: `adapted`, `kept_base`, or `read`, where no adaptation was asked for; None: the
            work failed.
        source: `trained`, `store`, `memory` or `read`.
        seconds: Wall-clock seconds of `prefill` and `adaptation`.
        error: The error's class, if the work failed or was cancelled.
    """

    model: str
    document_id: str | None = None
    document_tokens: int = 0
    decision: str | None = None
    source: str | None = None
    seconds: dict[str, float] = Field(default_factory=dict)
    error: str | None = None

    @classmethod
    def class_name(cls) -> str:
        """Class name."""
        return "AdaptationEndEvent"


class AdaptationEvents:
    """Tells the dispatcher of one adaptation, if there is one: nothing of what was at hand.

    A context manager: leaving it by an error ends the adaptation with that error.

    Args:
        model: As the user knows it.
        on_progress: Told as well.
        line: Shows all reports, also of loading; cleared when there is something else to show.
    """

    def __init__(
        self,
        model: str,
        on_progress: ProgressCallback = ignore_progress,
        *,
        line: ProgressLine | None = None,
    ) -> None:
        self._model = model
        self._on_progress = on_progress
        self._line = line
        self._running = False

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Tell of an error."""
        self._clear()
        if kind is not None:
            self._end(AdaptationEndEvent(model=self._model, error=kind.__name__))

    def progress(self, progress: Progress) -> None:
        """Take a report of the work. Loading the model is no part of an adaptation."""
        if self._line is not None:
            self._line.show(progress)
        self._on_progress(progress)
        if progress.stage == "load":
            return
        if not self._running:
            self._running = True
            dispatcher.event(AdaptationStartEvent(model=self._model))
        dispatcher.event(AdaptationProgressEvent(**vars(progress)))

    def end(self, adapted: AdaptedDocument | None) -> None:
        """Tell what came of it, once."""
        self._clear()
        if adapted is None:
            return
        report = adapted.report
        self._end(
            AdaptationEndEvent(
                model=self._model,
                document_id=adapted.id,
                document_tokens=adapted.n_tokens,
                decision=report.decision if report else "read",
                source=adapted.source,
                seconds=dict(adapted.seconds),
            )
        )

    def _clear(self) -> None:
        if self._line is not None:
            self._line.clear()

    def _end(self, event: AdaptationEndEvent) -> None:
        if self._running:
            self._running = False
            dispatcher.event(event)
