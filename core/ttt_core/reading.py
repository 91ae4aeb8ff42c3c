"""From a document's text to its frozen prefix: tokens that fit the window, read once.

Knows one loaded model and its document memory; nothing of adapters and questions.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ttt_core.chat import PromptPrefix
from ttt_core.clock import Clock
from ttt_core.errors import DocumentTooLongError
from ttt_core.lru import ByteLRU
from ttt_core.prefill import prefill
from ttt_core.progress import ProgressCallback, ignore_progress, waiting

if TYPE_CHECKING:
    from ttt_core.config import RuntimeConfig
    from ttt_core.document import Document
    from ttt_core.loaded import LoadedModel
    from ttt_core.memory import PrefixMemory, PrefixSource
    from ttt_core.namespace import Namespace
    from ttt_core.prefix import FrozenPrefix

_ENCODED_BYTES = 256 << 20
"""Texts and tokens that are remembered, so that asking again need not tokenise again."""


class Encoded(NamedTuple):
    """A document as it is read."""

    key: str
    """Identity of its keys and values."""
    hash: str
    """SHA-256 of the text."""
    prompt: PromptPrefix
    dropped_tokens: int

    @property
    def nbytes(self) -> int:
        """Roughly: Python's integers take 28 bytes and their place in a tuple 8."""
        return 2 * len(self.prompt.text) + 36 * len(self.prompt.input_ids)


class Reader:
    """Reads documents with one model, and holds what it read within the limits. Thread-safe.

    Args:
        model: The model.
        config: Window, limits, chunk size.
        memory: Where keys and values are held.
    """

    def __init__(self, model: LoadedModel, config: RuntimeConfig, memory: PrefixMemory) -> None:
        self._model = model
        self._config = config
        self._memory = memory
        self._lock = threading.Lock()
        self._encoded: ByteLRU[tuple[str | None, ...], Encoded] = ByteLRU(
            _ENCODED_BYTES, lambda encoded: encoded.nbytes
        )

    def encode(self, document: Document, system: str | None, namespace: Namespace) -> Encoded:
        """Tokenise a document, or remember how: asking again must not read it again.

        Args:
            document: The document.
            system: System prompt.
            namespace: Whose document it is; others who bring the same one share nothing with it.

        Raises:
            DocumentTooLongError: It does not fit the window.
        """
        question = (namespace.folder, document.hash, document.title, system)
        with self._lock:
            known = self._encoded.get(question)
        if known is None:
            prompt, kept, dropped = self._fit(document, system)
            durable = self._config.max_disk_kv_bytes > 0
            key = self._model.prefix_key(prompt, namespace, durable=durable)
            known = Encoded(key, kept.hash, prompt, dropped)
            with self._lock:
                self._encoded.put(question, known)
                self._encoded.trim()
        return known

    def read(
        self, encoded: Encoded, on_progress: ProgressCallback = ignore_progress
    ) -> tuple[FrozenPrefix, PrefixSource]:
        """Read a document with the base model, or find what was computed before."""
        compute = partial(
            prefill,
            self._model.runtime,
            encoded.prompt.input_ids,
            chunk=self._config.prefill_chunk,
            on_progress=on_progress,
        )
        return self._memory.get(encoded.key, compute, waiting(on_progress))

    def has_room(self, encoded: Encoded) -> bool:
        """Whether its keys and values could be kept without others having to go."""
        return self._memory.has_room(len(encoded.prompt.input_ids))

    def release(self, encoded: Encoded) -> None:
        """Hold its keys and values no longer."""
        self._memory.release(encoded.key)

    def clear(self) -> None:
        """Hold nothing; the disk keeps what it has."""
        with self._lock:
            self._encoded.clear()
        self._memory.clear()

    def _fit(self, document: Document, system: str | None) -> tuple[PromptPrefix, Document, int]:
        """Tokenise a document, and cut it to the window if the caller chose so."""
        model, settings = self._model, self._config
        window = model.runtime.architecture.window
        limit = window - min(settings.answer_reserve, max(window // 8, 1))
        prompt = model.chat.prefix(document.text, system=system)
        tokens = len(prompt.input_ids)
        if tokens <= limit:
            return prompt, document, 0
        if settings.on_overflow == "error":
            raise DocumentTooLongError(tokens=tokens, limit=limit, window=window)
        ids = model.tokenizer(document.text, add_special_tokens=False)["input_ids"]
        keep = len(ids)
        while len(prompt.input_ids) > limit:
            keep -= len(prompt.input_ids) - limit
            if keep < 1:
                raise DocumentTooLongError(tokens=tokens, limit=limit, window=window)
            kept = ids[:keep] if settings.on_overflow == "keep_start" else ids[-keep:]
            document = replace(document, text=model.chat.decode(kept).strip())
            prompt = model.chat.prefix(document.text, system=system)
        return prompt, document, len(ids) - keep


class Reading:
    """A document that one call reads: at most once, and not before it has to.

    Args:
        reader: Reads it.
        encoded: The document.
        on_progress: Hears of all the call's work.

    Attributes:
        clock: The call's seconds.
        source: Where keys and values came from; None as long as nobody needed them.
    """

    def __init__(self, reader: Reader, encoded: Encoded, on_progress: ProgressCallback) -> None:
        self.on_progress = on_progress
        self.clock = Clock()
        self.source: PrefixSource | None = None
        self._reader = reader
        self._encoded = encoded
        self._prefix: FrozenPrefix | None = None

    def prefix(self) -> FrozenPrefix:
        """Return keys and values."""
        if self._prefix is None:
            with self.clock("prefill"):
                self._prefix, self.source = self._reader.read(self._encoded, self.on_progress)
        return self._prefix
