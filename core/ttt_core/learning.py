"""What was learned on documents: found in memory or in the store, or trained and kept.

Knows one loaded model and a store; nothing of prefill, where keys and values live, or questions.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from ttt_core.adapter import QueryAdapter, adapter_shapes
from ttt_core.chat import as_messages
from ttt_core.config import TAKE_QUESTION
from ttt_core.drift import GENERIC_QUESTIONS
from ttt_core.errors import ConfigError, PromptTooLongError, StoreError
from ttt_core.frozen_base import FrozenBase
from ttt_core.lesson import Task
from ttt_core.lru import ByteLRU
from ttt_core.objectives import check_observable
from ttt_core.progress import waiting
from ttt_core.store import AdapterStore, StoredAdapter
from ttt_core.store.format import QueryRows
from ttt_core.supervision import TokenizedDocument
from ttt_core.train import adapt_queries

if TYPE_CHECKING:
    from ttt_core.adapted import Source
    from ttt_core.chat import PromptPrefix
    from ttt_core.config import AdaptationConfig, RuntimeConfig
    from ttt_core.identity import AdapterIdentity
    from ttt_core.loaded import LoadedModel
    from ttt_core.locks import Pin
    from ttt_core.prefix import FrozenPrefix
    from ttt_core.progress import ProgressCallback
    from ttt_core.report import AdaptationReport

_LOG = logging.getLogger(__name__)


class Learned(NamedTuple):
    """What training brought: an adapter, or the decision to do without, and the report."""

    adapter: QueryAdapter | None
    report: AdaptationReport
    pin: Pin | None
    """Keeps its file from being evicted while it is held in memory."""

    @property
    def nbytes(self) -> int:
        """Roughly: a report takes some kilobytes."""
        weights = self.adapter.parameters() if self.adapter is not None else []
        return 4096 + sum(weight.nbytes for weight in weights)


class LearnedMemory:
    """What was learned, ready for use, within a number of bytes. Thread-safe.

    Args:
        max_bytes: Least recently used first out; what was used last stays whatever its size.
    """

    def __init__(self, max_bytes: int) -> None:
        self._lock = threading.Lock()
        self._held: ByteLRU[str, Learned] = ByteLRU(max_bytes, lambda learned: learned.nbytes)

    def get(self, key: str) -> Learned | None:
        """Return what is held under `key`, which counts as a use."""
        with self._lock:
            held = self._held.get(key)
        if held is not None and held.pin is not None:
            held.pin.touch()
        return held

    def put(self, key: str, learned: Learned) -> None:
        """Hold it, and let go of what is too much."""
        with self._lock:
            self._held.put(key, learned)
            self._held.trim()

    def pop(self, key: str) -> None:
        """Hold one no longer."""
        with self._lock:
            self._held.pop(key)

    def clear(self) -> None:
        """Hold nothing."""
        with self._lock:
            self._held.clear()


class Learner:
    """Trains on documents with one model, and keeps what it learned in one namespace.

    Args:
        model: The model.
        config: Chunk size, and how long to wait for others.
        store: Where adapters outlive the process.
        memory: Where they are held while it lives.
    """

    def __init__(
        self,
        model: LoadedModel,
        config: RuntimeConfig,
        store: AdapterStore,
        memory: LearnedMemory,
    ) -> None:
        self._model = model
        self._config = config
        self._store = store
        self._memory = memory

    def identity(
        self, prompt: PromptPrefix, config: AdaptationConfig, question: str | None = None
    ) -> AdapterIdentity:
        """Return what an adapter belongs to; its key is `identity.key(namespace)`."""
        return self._model.identity(prompt, config, self._store.namespace, question)

    def check_askable(self, prompt: PromptPrefix, config: AdaptationConfig, question: str) -> None:
        """See that a question can be asked and trained for, before work is spent on it.

        Raises:
            PromptTooLongError: Document, question and an answer do not fit the window.
            UnsupportedModelError: The objective looks into attention, which this model does not
                show.
        """
        runtime = self._model.runtime
        if config.objective == "attention":
            check_observable(runtime)
        n_prefix, window = len(prompt.input_ids), runtime.architecture.window
        n_suffix = len(self._model.chat.suffix(prompt, as_messages(question)))
        if n_prefix + n_suffix >= window:
            raise PromptTooLongError(
                prefix=n_prefix, suffix=n_suffix, max_new_tokens=1, window=window
            )

    def find(self, key: str, config: AdaptationConfig) -> tuple[Learned, Source] | None:
        """Look for what was learned before, in memory and in the store.

        Raises:
            StoreError: The file is there but cannot be read.
        """
        if held := self._memory.get(key):
            return held, "memory"
        projections = self._model.runtime.architecture.projections
        stored = self._store.get(key, shapes=adapter_shapes(projections, config))
        if stored is None:
            return None
        try:
            adapter = self._revive(stored, config)
        except ValueError:  # Right in itself, but no change of queries: nobody's training made it.
            self._store.set_aside(key)
            return None
        return self._remember(key, adapter, stored), "store"

    @contextmanager
    def alone(
        self, key: str, on_progress: ProgressCallback, *, patient: bool = True
    ) -> Iterator[None]:
        """Wait while another process of this machine learns the same; then be the only one.

        Args:
            key: What is learned.
            on_progress: Hears of the waiting; may raise.
            patient: False: somebody in this process has taken too long already.

        Raises:
            StoreError: The store cannot be written to.
        """
        self._store.prepare(key)
        timeout = self._config.adaptation_timeout if patient else 0.0
        on_wait = waiting(on_progress, timeout)
        with self._store.alone(key, timeout=timeout, on_wait=on_wait) as alone:
            if not alone:
                _LOG.warning(
                    "somebody else has been adapting to the same document for %.0f s; "
                    "not waiting any longer",
                    self._config.adaptation_timeout,
                )
            yield

    def learn(
        self,
        key: str,
        prompt: PromptPrefix,
        prefix: FrozenPrefix,
        config: AdaptationConfig,
        on_progress: ProgressCallback,
        *,
        question: str | None = None,
        start: QueryAdapter | None = None,
    ) -> Learned:
        """Train on a document, and maybe for a question, and store the result under `key`.

        Args:
            key: Under what to store it.
            prompt: System prompt and document.
            prefix: Their keys and values.
            config: The recipe.
            on_progress: Hears of the work.
            question: What will be asked.
            start: What to begin with.

        Raises:
            AdaptationError, OutOfMemoryError, StoreError
        """
        model, chunk = self._model, self._config.train_chunk
        task = Task(
            runtime=model.runtime,
            prefix=prefix,
            document=TokenizedDocument.of(prompt, model.chat, model.tokenizer),
            generic=[model.chat.suffix(prompt, as_messages(q)) for q in GENERIC_QUESTIONS],
            config=config,
            base=FrozenBase(model, prompt, prefix, chunk=chunk, on_progress=on_progress),
            chunk=chunk,
            question=question,
            start=None if start is None else start.state_dict(),
        )
        adapter, report = adapt_queries(task, on_progress=on_progress)
        entry = StoredAdapter(
            identity=self.identity(prompt, config, question),
            report=report,
            weights=adapter.state_dict() if adapter is not None else {},
            base_model=model.name,
            query_rows=_query_rows(adapter),
        )
        self._store.put(key, entry)
        return self._remember(key, adapter, entry)

    def _revive(self, stored: StoredAdapter, config: AdaptationConfig) -> QueryAdapter | None:
        if stored.report.decision == "kept_base":
            return None
        adapter = QueryAdapter.create(self._model.runtime.architecture.projections, config)
        adapter.load_state_dict(stored.weights)
        return adapter

    def _remember(self, key: str, adapter: QueryAdapter | None, entry: StoredAdapter) -> Learned:
        learned = Learned(adapter, entry.report, self._pinned(key, entry))
        self._memory.put(key, learned)
        return learned

    def _pinned(self, key: str, entry: StoredAdapter) -> Pin | None:
        """Pin the entry's file; should it have been evicted just now, write it once more."""
        pin = self._store.pin(key)
        if pin is None:
            with suppress(StoreError):  # It was read from a store that cannot be written to.
                self._store.put(key, entry)
                pin = self._store.pin(key)
        return pin


def check_question(config: AdaptationConfig, question: str | None) -> None:
    """See that a recipe has the question that it needs, and no other.

    Raises:
        ConfigError: It has not.
    """
    if question is not None and not isinstance(question, str):
        raise ConfigError(f"question is a text, not {type(question).__name__}")
    if config.needs_question and (question is None or not question.strip()):
        raise ConfigError(
            f"supervision={config.supervision!r} trains for one question: pass it, as in "
            f"engine.adapt(document, question=...)"
        )
    if question is not None and config.supervision not in TAKE_QUESTION:
        names = ", ".join(map(repr, TAKE_QUESTION))
        raise ConfigError(
            f"supervision={config.supervision!r} trains on the document for any question; to train "
            f"for this one, choose one of {names} in the AdaptationConfig"
        )


def _query_rows(adapter: QueryAdapter | None) -> dict[str, QueryRows]:
    found = adapter.query_rows() if adapter is not None else {}
    return {
        name: QueryRows(out_features=out_features, ranges=ranges)
        for name, (out_features, ranges) in found.items()
    }
