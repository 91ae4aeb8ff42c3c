"""What answers cost, for those who ask engines, which do not pass it on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent, LLMCompletionEndEvent
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.base import BaseEvent
from pydantic import PrivateAttr


@contextmanager
def collect_raw() -> Iterator[list[dict[str, Any]]]:
    """Collect the `raw` of all answers, while the block runs.

    Of all LLMs in the process, whoever asks them: query engines, chat engines and agents drop it,
    and LlamaIndex's dispatcher has one tree for all.

    Example:
        >>> with collect_raw() as answers:
        ...     query_engine.query("What did the auditor object to?")
        >>> answers[-1]["ttt"]["computed_tokens"], answers[-1]["usage"]
    """
    dispatcher, handler = get_dispatcher(), _Collector()
    dispatcher.add_event_handler(handler)
    try:
        yield handler.answers
    finally:
        dispatcher.event_handlers.remove(handler)


class _Collector(BaseEventHandler):
    _answers: list[dict[str, Any]] = PrivateAttr(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "TTTCollector"

    @property
    def answers(self) -> list[dict[str, Any]]:
        return self._answers

    def __eq__(self, other: object) -> bool:
        return self is other  # Pydantic's would find two that are empty the same.

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        if not isinstance(event, LLMChatEndEvent | LLMCompletionEndEvent):
            return
        raw = event.response.raw if event.response is not None else None
        if isinstance(raw, dict):
            self._answers.append(raw)
