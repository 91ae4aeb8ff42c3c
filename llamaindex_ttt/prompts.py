"""Which part of a prompt is what its question is about.

Synthesizers and chat engines hand it over by name, before it becomes a part of the prompt. Where it
stands in the messages is noted with them; the messages themselves stay what they are elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llama_index.core.llms import ChatMessage, MessageRole, TextBlock
from llama_index.core.prompts import BasePromptTemplate, RichPromptTemplate

PASSAGES = "ttt_passages"
"""Key of `additional_kwargs`: places of passages, each as [block, start, end] in characters."""

FROM_TEMPLATE = "ttt_template"
"""Key of `additional_kwargs`: this system message is part of a prompt's template."""

_SYSTEM = (MessageRole.SYSTEM, MessageRole.DEVELOPER)

_QUESTION = "query_str"
"""Prompts without a question are about the passage itself: summaries, keywords, titles."""

_SHORTEST = 40
"""Characters; a few words may stand anywhere in a prompt."""

_PATH = "file_path: "
_HEADER = ("file_path: ", "file_name: ", "file_type: ", "file_size: ", "page_label: ",
           "creation_date: ", "last_modified_date: ", "last_accessed_date: ")  # fmt: skip
"""Lines that LlamaIndex's readers put above pieces of files, of which the first is always there."""


def without_lists(
    prompt: BasePromptTemplate, arguments: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    """Join passages that come as lists: prompts would show Python's notation of them.

    But not for templates that can go through lists themselves.
    """
    if isinstance(prompt, RichPromptTemplate):
        return dict(arguments)
    return {
        name: _joined(value) if name in names and isinstance(value, list | tuple) else value
        for name, value in arguments.items()
    }


def _joined(values: Sequence[object]) -> str:
    return "\n\n".join(str(value) for value in values)


def passages(
    prompt: BasePromptTemplate, arguments: Mapping[str, Any], names: Sequence[str]
) -> list[str]:
    """Return what a prompt's question is about; nothing, if it asks none.

    Args:
        prompt: The template.
        arguments: What it is formatted with.
        names: Which of them are passages.
    """
    asks = _QUESTION in {*prompt.template_vars, *prompt.kwargs, *arguments}
    given = {**prompt.kwargs, **arguments}
    found = [given.get(name) for name in names] if asks else []
    return [one for one in found if isinstance(one, str) and len(one) >= _SHORTEST]


def note(messages: Sequence[ChatMessage], passages: Sequence[str] = ()) -> list[ChatMessage]:
    """Note in a template's formatted messages where passages stand, and which are the template's.

    Args:
        messages: What became of the template; they are copied.
        passages: See `passages`.
    """
    return [_noted(message, list(_places(message, passages))) for message in messages]


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
    if _PATH not in passage:
        return passage
    lines, kept, start = passage.splitlines(keepends=True), [], 0
    while start < len(lines):
        end = _end_of_paragraph(lines, start)
        if not _is_header(lines[start:end]):
            kept += lines[start : end + 1]
        start = end + 1
    return "".join(kept)


def _end_of_paragraph(lines: Sequence[str], start: int) -> int:
    return next((n for n in range(start, len(lines)) if not lines[n].strip()), len(lines))


def _is_header(lines: Sequence[str]) -> bool:
    return any(line.startswith(_PATH) for line in lines) and all(
        line.startswith(_HEADER) for line in lines
    )
