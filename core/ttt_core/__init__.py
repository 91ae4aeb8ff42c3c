"""Read a document once, sharpen a model's queries on it, answer many questions.

    >>> from ttt_core import TTTEngine
    >>> engine = TTTEngine.from_pretrained("Qwen/Qwen3-4B")
    >>> adapted = engine.adapt(text)
    >>> engine.generate(adapted, "What did the auditor object to?").text

Importing this package is cheap: torch, transformers and peft load when first needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ttt_core.config import AdaptationConfig, GenerationConfig, RuntimeConfig
from ttt_core.document import Document
from ttt_core.errors import (
    AdaptationError,
    ConfigError,
    DocumentError,
    DocumentTooLongError,
    ModelLoadError,
    OutOfMemoryError,
    PromptTooLongError,
    ReleasedError,
    StoreError,
    TTTError,
    UnsupportedModelError,
)
from ttt_core.namespace import Namespace
from ttt_core.progress import Progress
from ttt_core.report import AdaptationReport
from ttt_core.store import AdapterStore

if TYPE_CHECKING:
    from ttt_core.adapted import AdaptedDocument
    from ttt_core.engine import TTTEngine
    from ttt_core.generate import Answer, AnswerStream
    from ttt_core.sharing import shared_engine

__version__ = "0.1.0"

_LAZY = {
    "AdaptedDocument": "ttt_core.adapted",
    "Answer": "ttt_core.generate",
    "AnswerStream": "ttt_core.generate",
    "TTTEngine": "ttt_core.engine",
    "shared_engine": "ttt_core.sharing",
}

__all__ = [
    "AdaptationConfig",
    "AdaptationError",
    "AdaptationReport",
    "AdaptedDocument",
    "AdapterStore",
    "Answer",
    "AnswerStream",
    "ConfigError",
    "Document",
    "DocumentError",
    "DocumentTooLongError",
    "GenerationConfig",
    "ModelLoadError",
    "Namespace",
    "OutOfMemoryError",
    "Progress",
    "PromptTooLongError",
    "ReleasedError",
    "RuntimeConfig",
    "StoreError",
    "TTTEngine",
    "TTTError",
    "UnsupportedModelError",
    "__version__",
    "shared_engine",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch on first use."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'ttt_core' has no attribute {name!r}")
