"""Everything that context-ttt raises on purpose.

    TTTError
    ├── ConfigError            (ValueError)    an option or argument that cannot be
    │   └── MissingLibraryError                what was asked for needs an extra to be installed
    ├── DocumentError          (ValueError)    empty, binary or undecodable input
    │   └── DocumentTooLongError               more tokens than the model's window leaves room for
    ├── PromptTooLongError     (ValueError)    document + question + answer do not fit the window
    ├── AnswerTimeoutError     (TimeoutError)  an answer that took longer than it was allowed to
    ├── ModelLoadError         (OSError)       no model there, or a damaged one
    ├── UnsupportedModelError  (TypeError)     an architecture whose queries cannot be adapted
    ├── AdaptationError        (RuntimeError)  training that could not do its work
    ├── OutOfMemoryError       (MemoryError)   the device is full; the message names what to lower
    ├── ReleasedError          (RuntimeError)  a document or engine used after its end of life
    └── StoreError             (OSError)       the adapter store cannot be read or written

Every class is also the standard library's error of the same meaning, so that callers who have
never heard of this package still catch it. Messages say what was expected, what was found and
what to do; they never hold document text.
"""

from __future__ import annotations

from functools import partial
from typing import Any


class TTTError(Exception):
    """Base class of all errors of this package."""


class ConfigError(TTTError, ValueError):
    """An option or argument has a value that cannot be used."""


class MissingLibraryError(ConfigError):
    """What was asked for needs a library of an extra; the message has the pip command."""


class DocumentError(TTTError, ValueError):
    """The input cannot be read as a document."""


class DocumentTooLongError(DocumentError):
    """The document has more tokens than the model's window leaves for it."""

    def __init__(self, *, tokens: int, limit: int, window: int) -> None:
        super().__init__(
            f"the document has {tokens:,} tokens, but at most {limit:,} fit: the model's window of "
            f"{window:,} also holds the question and the answer. Use a shorter document or a model "
            f"with a longer window, or set on_overflow of RuntimeConfig to 'keep_start' or "
            f"'keep_end'."
        )
        self.tokens = tokens
        self.limit = limit
        self.window = window

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle, for worker processes."""
        return _remake(self, "tokens", "limit", "window")


class PromptTooLongError(TTTError, ValueError):
    """Document, question and answer together do not fit the model's window."""

    def __init__(self, *, prefix: int, suffix: int, max_new_tokens: int, window: int) -> None:
        super().__init__(
            f"document ({prefix:,}) + question ({suffix:,}) + answer ({max_new_tokens:,}) are "
            f"{prefix + suffix + max_new_tokens:,} tokens, but the model's window is {window:,}. "
            f"Ask a shorter question, drop earlier turns, or allow a shorter answer "
            f"(max_new_tokens; max_tokens in the integrations)."
        )
        self.prefix = prefix
        self.suffix = suffix
        self.max_new_tokens = max_new_tokens
        self.window = window

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle, for worker processes."""
        return _remake(self, "prefix", "suffix", "max_new_tokens", "window")


class AnswerTimeoutError(TTTError, TimeoutError):
    """The answer was not there after `timeout` seconds; it was given up."""


class ModelLoadError(TTTError, OSError):
    """The model or its tokenizer cannot be loaded."""


class UnsupportedModelError(TTTError, TypeError):
    """The architecture keeps no per-token keys and values, or its queries cannot be found."""


class AdaptationError(TTTError, RuntimeError):
    """Adaptation could not do its work, for example because no weight changed."""


class OutOfMemoryError(TTTError, MemoryError):
    """The device ran out of memory; the model and the store are as they were before."""


class ReleasedError(TTTError, RuntimeError):
    """A document or an engine was used after it was released or closed."""


class StoreError(TTTError, OSError):
    """The adapter store cannot be read or written."""


def _remake(error: TTTError, *names: str) -> tuple[Any, ...]:
    """Say how to make an error again; others put marks and notes of their own on it."""
    return partial(type(error), **{name: getattr(error, name) for name in names}), ()
