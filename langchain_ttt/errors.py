"""The core's errors, as LangChain's: whoever catches either family catches these.

Agents and middleware know `ContextOverflowError` and answer it by shortening the conversation;
retries ask `is_retryable`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelTimeoutError,
)

from ttt_core.errors import (
    AnswerTimeoutError,
    ConfigError,
    DocumentError,
    DocumentTooLongError,
    ModelLoadError,
    OutOfMemoryError,
    PromptTooLongError,
    StoreError,
    TTTError,
    UnsupportedModelError,
)


class DocumentOverflowError(ContextOverflowError, DocumentTooLongError):
    """The documents do not fit the model's window."""


class PromptOverflowError(ContextOverflowError, PromptTooLongError):
    """Documents, conversation and answer together do not fit the model's window."""


class InvalidRequestError(ModelInvalidRequestError, ConfigError):
    """An option, a message, a tool or a schema that cannot be."""


class InvalidDocumentError(ModelInvalidRequestError, DocumentError):
    """A document that is empty, binary or not to be decoded, or whose text is missing."""


class NoSuchModelError(ModelNotFoundError, ModelLoadError):
    """There is no model, or a damaged one."""


class WrongModelError(ModelInvalidRequestError, UnsupportedModelError):
    """A model that cannot be adapted."""


class TimeLimitError(ModelTimeoutError, AnswerTimeoutError):
    """The answer was not there after `timeout` seconds."""


class DeviceFullError(ModelAPIError, OutOfMemoryError):
    """The device ran out of memory; it may have some again later."""


class StoreFailedError(ModelAPIError, StoreError):
    """The store of adapters cannot be read or written."""


_TWINS: dict[type[TTTError], type[ModelError]] = {
    DocumentTooLongError: DocumentOverflowError,
    PromptTooLongError: PromptOverflowError,
    DocumentError: InvalidDocumentError,
    ConfigError: InvalidRequestError,
    ModelLoadError: NoSuchModelError,
    UnsupportedModelError: WrongModelError,
    AnswerTimeoutError: TimeLimitError,
    OutOfMemoryError: DeviceFullError,
    StoreError: StoreFailedError,
}
"""The most special ones first."""


@contextmanager
def as_langchain_errors() -> Iterator[None]:
    """Raise the core's errors as LangChain's; they stay the core's, too."""
    try:
        yield
    except ModelError:
        raise
    except TTTError as error:
        twin = next((twin for kind, twin in _TWINS.items() if isinstance(error, kind)), None)
        if twin is None:
            raise
        raise _translated(twin, error) from error


def _translated(twin: type[ModelError], error: TTTError) -> ModelError:
    """Make `error` again as a `twin`, whose constructor is that of the core's class."""
    # The core speaks transformers' names, the user LangChain's.
    words = [str(word).replace("max_new_tokens", "max_tokens") for word in error.args]
    made = twin.__new__(twin, *words)
    made.args = tuple(words)
    vars(made).update(vars(error))
    return made
