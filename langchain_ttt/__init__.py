"""LangChain integration: swap the class in an existing chain.

>>> from langchain_ttt import ChatTTT
>>> llm = ChatTTT(model="Qwen/Qwen3-4B").with_documents(docs)
>>> llm.invoke("What did the auditor object to?").text
"""

from typing import TYPE_CHECKING, Any

try:
    import langchain_core  # noqa: F401
except ImportError:
    raise ImportError(
        "langchain_ttt needs langchain-core: pip install 'context-ttt[langchain]'"
    ) from None

from langchain_ttt.chat_models import ChatTTT
from langchain_ttt.errors import (
    DeviceFullError,
    DocumentOverflowError,
    InvalidDocumentError,
    InvalidRequestError,
    NoSuchModelError,
    PromptOverflowError,
    StoreFailedError,
    TimeLimitError,
    WrongModelError,
)
from langchain_ttt.progress import TTTProgressHandler
from langchain_ttt.stores import AdapterByteStore

if TYPE_CHECKING:
    from langchain_ttt.middleware import TTTDocumentsMiddleware as TTTDocumentsMiddleware

__all__ = [
    "AdapterByteStore",
    "ChatTTT",
    "DeviceFullError",
    "DocumentOverflowError",
    "InvalidDocumentError",
    "InvalidRequestError",
    "NoSuchModelError",
    "PromptOverflowError",
    "StoreFailedError",
    "TTTProgressHandler",
    "TimeLimitError",
    "WrongModelError",
]


def __getattr__(name: str) -> Any:
    """Import what needs `langchain` itself only where it is asked for: it is no dependency."""
    if name == "TTTDocumentsMiddleware":
        from langchain_ttt.middleware import TTTDocumentsMiddleware

        return TTTDocumentsMiddleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
