"""What was learned on documents: found in memory or in the store, or trained and kept.

Knows one loaded model and its store; nothing of prefill, where keys and values live, or questions.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from ttt_core.adapter import QueryAdapter
from ttt_core.chat import as_messages
from ttt_core.drift import GENERIC_QUESTIONS
from ttt_core.lru import ByteLRU
from ttt_core.store import AdapterStore, StoredAdapter
from ttt_core.supervision import TokenizedDocument
from ttt_core.train import Task, adapt_queries

if TYPE_CHECKING:
    from ttt_core.adapted import Source
    from ttt_core.chat import PromptPrefix
    from ttt_core.config import AdaptationConfig, RuntimeConfig
    from ttt_core.loaded import LoadedModel
    from ttt_core.prefix import FrozenPrefix
    from ttt_core.progress import ProgressCallback
    from ttt_core.report import AdaptationReport


class Learned(NamedTuple):
    """What training brought: an adapter, or the decision to do without, and the report."""

    adapter: QueryAdapter | None
    report: AdaptationReport

    @property
    def nbytes(self) -> int:
        """Roughly: a report takes some kilobytes."""
        weights = self.adapter.parameters() if self.adapter is not None else []
        return 4096 + sum(weight.nbytes for weight in weights)


class Learner:
    """Trains on documents with one model, and keeps what it learned. Thread-safe.

    Args:
        model: The model.
        config: Limits and chunk size.
        store: Where adapters outlive the process.
    """

    def __init__(self, model: LoadedModel, config: RuntimeConfig, store: AdapterStore) -> None:
        self._model = model
        self._chunk = config.train_chunk
        self._store = store
        self._lock = threading.Lock()
        self._learned: ByteLRU[str, Learned] = ByteLRU(
            config.max_adapter_bytes, lambda learned: learned.nbytes
        )

    def find(self, key: str, config: AdaptationConfig) -> tuple[Learned, Source] | None:
        """Look for what was learned before, in memory and in the store.

        Raises:
            StoreError: The file is there but cannot be read.
        """
        if held := self.recall(key):
            return held, "memory"
        if stored := self._store.get(key):
            try:
                return self._remember(key, self._revive(stored, config), stored.report), "store"
            except ValueError:  # Right key and checksum, wrong weights: cannot be ours.
                self._store.set_aside(key)
        return None

    def learn(
        self,
        key: str,
        prompt: PromptPrefix,
        prefix: FrozenPrefix,
        config: AdaptationConfig,
        on_progress: ProgressCallback,
    ) -> Learned:
        """Train on a document and store the result under `key`.

        Raises:
            AdaptationError, OutOfMemoryError, StoreError
        """
        model = self._model
        task = Task(
            runtime=model.runtime,
            prefix=prefix,
            document=TokenizedDocument.of(prompt, model.chat, model.tokenizer),
            generic=[model.chat.suffix(prompt, as_messages(q)) for q in GENERIC_QUESTIONS],
            config=config,
            chunk=self._chunk,
        )
        self._store.prepare(key)
        adapter, report = adapt_queries(task, on_progress=on_progress)
        weights = adapter.state_dict() if adapter is not None else {}
        self._store.put(key, StoredAdapter(weights, report))
        return self._remember(key, adapter, report)

    def recall(self, key: str) -> Learned | None:
        """What memory holds under `key`."""
        with self._lock:
            return self._learned.get(key)

    def forget(self, key: str) -> None:
        """Hold one document's adapter no longer; the store keeps it."""
        with self._lock:
            self._learned.pop(key)

    def clear(self) -> None:
        """Hold nothing; the store keeps what it has."""
        with self._lock:
            self._learned.clear()

    def _revive(self, stored: StoredAdapter, config: AdaptationConfig) -> QueryAdapter | None:
        if stored.report.decision == "kept_base":
            return None
        adapter = QueryAdapter.create(self._model.runtime.architecture.projections, config)
        adapter.load_state_dict(stored.weights)
        return adapter

    def _remember(
        self, key: str, adapter: QueryAdapter | None, report: AdaptationReport
    ) -> Learned:
        learned = Learned(adapter, report)
        with self._lock:
            self._learned.put(key, learned)
            self._learned.trim()
        return learned
