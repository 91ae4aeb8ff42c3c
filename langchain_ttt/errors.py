"""The window's two errors, as LangChain's: whoever catches either family catches these.

Agents and middleware know `ContextOverflowError` and answer it by shortening the conversation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core.exceptions import ContextOverflowError

from ttt_core.errors import DocumentTooLongError, PromptTooLongError


class DocumentOverflowError(ContextOverflowError, DocumentTooLongError):
    """The documents do not fit the model's window."""


class PromptOverflowError(ContextOverflowError, PromptTooLongError):
    """Documents, conversation and answer together do not fit the model's window."""


@contextmanager
def as_langchain_errors() -> Iterator[None]:
    """Raise the core's window errors as LangChain's."""
    try:
        yield
    except DocumentTooLongError as error:
        raise DocumentOverflowError(**vars(error)) from error
    except PromptTooLongError as error:
        raise PromptOverflowError(**vars(error)) from error
