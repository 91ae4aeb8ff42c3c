"""Which part of a prompt is what its question is about.

Synthesizers and chat engines hand it over by name, before it becomes a part of the prompt. Where it
stands in the messages is noted with them; the messages themselves stay what they are elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llama_index.core.llms import ChatMessage, MessageRole, TextBlock

PASSAGES = "ttt_passages"
"""Key of `additional_kwargs`: places of passages, each as [block, start, end] in characters."""

FROM_TEMPLATE = "ttt_template"
"""Key of `additional_kwargs`: this system message is part of a prompt's template."""

_SYSTEM = (MessageRole.SYSTEM, MessageRole.DEVELOPER)

_FILE_KEYS = ("file_path", "file_name", "file_type", "file_size", "page_label", "creation_date",
              "last_modified_date", "last_accessed_date")  # fmt: skip
_HEADER = re.compile(rf"(?m)^(?:(?:{'|'.join(_FILE_KEYS)}): .*(?:\n|\Z))+(?:\n|\Z)")


def without_lists(arguments: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Join passages that come as lists: prompts would show Python's notation of them."""
    return {
        name: _joined(value) if name in names and isinstance(value, list | tuple) else value
        for name, value in arguments.items()
    }


def _joined(values: Sequence[object]) -> str:
    return "\n\n".join(str(value) for value in values)


def note(
    messages: Sequence[ChatMessage], arguments: Mapping[str, Any], names: Sequence[str]
) -> list[ChatMessage]:
    """Note in a template's formatted messages where passages stand, and which are the template's.

    Args:
        messages: What became of the template; they are copied.
        arguments: What it was formatted with.
        names: Which of them are passages.
    """
    passages = [value for name in names if isinstance(value := arguments.get(name), str)]
    wanted = [passage for passage in passages if passage.strip()]
    return [_noted(message, list(_places(message, wanted))) for message in messages]


def _noted(message: ChatMessage, places: list[list[int]]) -> ChatMessage:
    notes: dict[str, Any] = {PASSAGES: places} if places else {}
    if message.role in _SYSTEM:
        notes[FROM_TEMPLATE] = True
    kept = {**message.additional_kwargs, **notes}
    return message.model_copy(update={"additional_kwargs": kept}) if notes else message


def _places(message: ChatMessage, passages: Sequence[str]) -> Iterator[list[int]]:
    for number, block in enumerate(message.blocks):
        for passage in passages:
            start = block.text.find(passage) if isinstance(block, TextBlock) else -1
            if start >= 0:
                yield [number, start, start + len(passage)]


def without_headers(passage: str) -> str:
    """Leave out what file readers note of a file above its pieces: paths and dates.

    They are the same words for other text, or other words for the same.
    """
    return _HEADER.sub("", passage)
