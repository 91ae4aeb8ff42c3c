"""A framework's documents as the core's, and their identity."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ttt_core.document import Document
from ttt_core.errors import ConfigError, DocumentError


def to_documents(
    documents: Any, *, text_of: Callable[[Any], str | None], expected: str
) -> tuple[Document, ...]:
    """Translate one or several documents: text, the core's, or a framework's.

    Args:
        documents: One, or an iterable of them.
        text_of: The text of a framework's document; None for all other things.
        expected: What the error message asks for.

    Raises:
        DocumentError: A document is empty; of several, the message says which, counted from 1.
        ConfigError: Something else than a document; likewise.
    """
    single = _to_document(documents, text_of)
    return (single,) if single else tuple(_each(documents, text_of, expected))


def _each(
    documents: Iterable[Any], text_of: Callable[[Any], str | None], expected: str
) -> Iterator[Document]:
    if not isinstance(documents, Iterable) or isinstance(documents, bytes | os.PathLike):
        hint = "; read the file and pass its text" if isinstance(documents, os.PathLike) else ""
        kind = type(documents).__name__
        raise ConfigError(f"expected documents as {expected}, found {kind}{hint}")
    parts = list(documents)
    for number, part in enumerate(parts, 1):
        with _which(number, len(parts)):
            document = _to_document(part, text_of)
            if document is None:
                raise ConfigError(f"expected documents as {expected}, found {type(part).__name__}")
        yield document


@contextmanager
def _which(number: int, total: int) -> Iterator[None]:
    """Say in errors which of several documents it was."""
    try:
        yield
    except (ConfigError, DocumentError) as error:
        if total == 1:
            raise
        raise type(error)(f"document {number:,}: {error}") from None


def _to_document(document: Any, text_of: Callable[[Any], str | None]) -> Document | None:
    if isinstance(document, Document):
        return document
    text = document if isinstance(document, str) else text_of(document)
    return None if text is None else Document.of(text)


def identify(documents: Sequence[Document]) -> tuple[str, ...]:
    """Identify documents by what is read of them: several are read with their titles."""
    if len(documents) == 1:
        return (documents[0].hash,)
    return tuple(Document.of(f"{part.title or ''}\n\n{part.text}").hash for part in documents)
