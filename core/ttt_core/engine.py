"""TTTEngine: the main path, and the only file that knows all the others.

documents ─▶ prefix tokens ─▶ FrozenPrefix ─▶ QueryAdapter ─▶ store
                                    └──────── generate ◀── question
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ttt_core.adapted import AdaptedDocument, Source
from ttt_core.adapter import QueryAdapter
from ttt_core.chat import NO_PREFIX, Message, PromptPrefix, as_messages
from ttt_core.config import AdaptationConfig, GenerationConfig, RuntimeConfig
from ttt_core.document import Document, Documents, as_document
from ttt_core.drift import GENERIC_QUESTIONS
from ttt_core.errors import (
    DocumentTooLongError,
    PromptTooLongError,
    ReleasedError,
)
from ttt_core.flights import SingleFlight
from ttt_core.generate import Answer, AnswerStream, Request, Row, decode_rows
from ttt_core.loaded import LoadedModel
from ttt_core.loading import default_model, load
from ttt_core.prefill import EMPTY_PREFIX, FrozenPrefix, prefill
from ttt_core.progress import Progress, ProgressCallback, ignore_progress
from ttt_core.report import AdaptationReport
from ttt_core.store import AdapterStore, StoredAdapter
from ttt_core.supervision import TokenizedDocument
from ttt_core.train import Task, adapt_queries

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_DEFAULT_ANSWER = 256


class TTTEngine:
    """Reads documents once, adapts to them, answers many questions.

    Example:
        >>> engine = TTTEngine.from_pretrained()                 # the bundled model
        >>> adapted = engine.adapt("amber falcon: Oslo")
        >>> engine.generate(adapted, "Where is amber falcon?").text
        'amber falcon: Oslo'

    Thread-safe: one forward pass at a time touches the device, and an adapter is bound to the
    request that brought it, so that concurrent requests about different documents never mix.

    Args:
        model: A decoder-only transformers model. It is borrowed: never changed for good.
        tokenizer: Its tokenizer.
        adaptation: The default recipe.
        runtime: Memory and overflow settings.
        store: Where adapters are kept: a store, a folder, or None for the default folder.
        template_kwargs: Extra variables for the chat template.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        adaptation: AdaptationConfig | None = None,
        runtime: RuntimeConfig | None = None,
        store: AdapterStore | str | os.PathLike[str] | None = None,
        template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self._configure(lambda: (model, tokenizer), adaptation, runtime, store, template_kwargs)
        self._loaded()  # An unsupported model should fail here, not at the first question.

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        adaptation: AdaptationConfig | None = None,
        runtime: RuntimeConfig | None = None,
        store: AdapterStore | str | os.PathLike[str] | None = None,
        template_kwargs: dict[str, Any] | None = None,
    ) -> TTTEngine:
        """Make an engine that loads its model when it is first needed.

        Args:
            model: A local folder or a Hub id; None: `$TTT_MODEL`, or the bundled model.
            revision: Branch, tag or commit on the Hub.
            dtype: `auto` (as saved), `float32`, `bfloat16` or `float16`.
            device: `auto`, `cpu`, `cuda`, ...
            adaptation: See the class; likewise the arguments that follow.
        """
        name = os.fspath(model) if model is not None else default_model()
        loader = partial(load, name, revision=revision, dtype=dtype, device=device)
        engine = cls.__new__(cls)
        engine._configure(loader, adaptation, runtime, store, template_kwargs)
        return engine

    def adapt(
        self,
        documents: Documents,
        *,
        system: str | None = None,
        config: AdaptationConfig | None = None,
        on_progress: ProgressCallback = ignore_progress,
    ) -> AdaptedDocument:
        """Read documents and adapt to them, or fetch what was learned before. Idempotent.

        Args:
            documents: Text, a `Document`, or several, which are read as one.
            system: System prompt; it is frozen together with the document.
            config: The recipe; None: the engine's.
            on_progress: Called along the way; an exception it raises cancels, leaving nothing.

        Raises:
            DocumentError: Nothing to read.
            DocumentTooLongError: It does not fit the window.
            AdaptationError, OutOfMemoryError, ModelLoadError, UnsupportedModelError, StoreError
        """
        config = config or self._adaptation
        self._load(on_progress)
        prompt, document, dropped = self._encode(as_document(documents), system)
        key = self._loaded().key(prompt, config)
        with self._single_flight(key):
            if held := self._recall(key):
                return held.replace(source="memory", seconds={})
            prefix, seconds = self._read(prompt, on_progress)
            started = time.perf_counter()
            adapter, report, source = self._fetch_or_train(key, prompt, prefix, config, on_progress)
            seconds["adaptation"] = time.perf_counter() - started
            adapted = AdaptedDocument(
                key=key,
                document_hash=document.hash,
                prompt=prompt,
                prefix=prefix,
                adapter=adapter,
                report=report,
                source=source,
                seconds=seconds,
                dropped_tokens=dropped,
                on_release=partial(self._forget, key),
            )
            self._remember(adapted)
            return adapted.replace()

    def read(
        self,
        documents: Documents,
        *,
        system: str | None = None,
        on_progress: ProgressCallback = ignore_progress,
    ) -> AdaptedDocument:
        """Read documents without adapting: questions are answered in-context by the base model.

        Args and errors as for `adapt`.
        """
        self._load(on_progress)
        prompt, document, dropped = self._encode(as_document(documents), system)
        prefix, seconds = self._read(prompt, on_progress)
        return AdaptedDocument(
            key="",
            document_hash=document.hash,
            prompt=prompt,
            prefix=prefix,
            adapter=None,
            report=None,
            source="read",
            seconds=seconds,
            dropped_tokens=dropped,
        )

    def generate(
        self,
        adapted: AdaptedDocument | None,
        prompt: str | Sequence[Message],
        *,
        config: GenerationConfig | None = None,
        **options: Any,
    ) -> Answer:
        """Answer one question, or the last turn of a conversation.

        Args:
            adapted: What was read; None answers without a document.
            prompt: A question, or messages (`{"role": ..., "content": ...}`).
            config: How to decode.
            **options: Fields of `GenerationConfig`, over those of `config`.

        Raises:
            PromptTooLongError: Document, question and answer do not fit the window.
            ConfigError: The question is empty.
            ReleasedError: The document was released.
        """
        return self.generate_batch(adapted, [prompt], config=config, **options)[0]

    def generate_batch(
        self,
        adapted: AdaptedDocument | None,
        prompts: Sequence[str | Sequence[Message]],
        *,
        config: GenerationConfig | None = None,
        **options: Any,
    ) -> list[Answer]:
        """Answer many questions on one document together; see `generate`."""
        if not prompts:
            return []
        request, rows = self._rows(adapted, prompts, config, options)
        for _ in decode_rows(request, rows):
            pass
        return [row.answer() for row in rows]

    def stream(
        self,
        adapted: AdaptedDocument | None,
        prompt: str | Sequence[Message],
        *,
        config: GenerationConfig | None = None,
        **options: Any,
    ) -> AnswerStream:
        """Answer one question piece by piece; see `generate`. Closing the stream stops the work."""
        request, rows = self._rows(adapted, [prompt], config, options)
        return AnswerStream(decode_rows(request, rows), rows)

    def count_tokens(self, text: str) -> int:
        """Number of tokens of `text` under the model's own tokenizer."""
        encoded = self._loaded().tokenizer(text, add_special_tokens=False)
        return len(encoded["input_ids"])

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer; loads the model."""
        return self._loaded().tokenizer

    @property
    def window(self) -> int:
        """The model's window in tokens; loads the model."""
        return self._loaded().runtime.architecture.window

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closed

    def reset(self) -> None:
        """Forget all documents held in memory; the store keeps their adapters."""
        with self._lock:
            self._documents.clear()
            self._encoded.clear()

    def close(self) -> None:
        """Forget documents and model. The engine cannot be used afterwards."""
        self.reset()
        with self._loading:
            self._closed, self._model = True, None
            self._loader = _closed_loader

    def __enter__(self) -> TTTEngine:
        """Return the engine itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()

    _store: AdapterStore
    _model: LoadedModel | None
    _loading: threading.Lock

    def _configure(
        self,
        loader: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]],
        adaptation: AdaptationConfig | None,
        runtime: RuntimeConfig | None,
        store: AdapterStore | str | os.PathLike[str] | None,
        template_kwargs: dict[str, Any] | None,
    ) -> None:
        self._loader = loader
        self._adaptation = adaptation or AdaptationConfig()
        self._runtime_config = runtime or RuntimeConfig()
        self._store = store if isinstance(store, AdapterStore) else AdapterStore(store)
        self._template_kwargs = template_kwargs
        self._model = None
        self._closed = False
        self._loading = threading.Lock()
        self._lock = threading.Lock()
        self._single_flight = SingleFlight()
        self._documents: OrderedDict[str, AdaptedDocument] = OrderedDict()
        self._encoded: OrderedDict[
            tuple[str, str | None, str | None], tuple[PromptPrefix, Document, int]
        ] = OrderedDict()

    def _loaded(self) -> LoadedModel:
        with self._loading:
            if self._model is None:
                self._model = LoadedModel(*self._loader(), self._template_kwargs)
            return self._model

    def _load(self, on_progress: ProgressCallback) -> None:
        if self._model is None:
            on_progress(Progress("load", 0, 1))
            self._loaded()
            on_progress(Progress("load", 1, 1))

    def _encode(self, document: Document, system: str | None) -> tuple[PromptPrefix, Document, int]:
        """Tokenise a document, or remember how: asking again must not read it again."""
        question = (document.hash, document.title, system)
        with self._lock:
            known = self._encoded.get(question)
        if known is None:
            known = self._fit(document, system)
            with self._lock:
                self._encoded[question] = known
                while len(self._encoded) > self._runtime_config.max_documents:
                    self._encoded.popitem(last=False)
        return known

    def _fit(self, document: Document, system: str | None) -> tuple[PromptPrefix, Document, int]:
        """Tokenise a document, and cut it to the window if the caller chose so."""
        loaded, settings = self._loaded(), self._runtime_config
        window = loaded.runtime.architecture.window
        limit = window - min(settings.answer_reserve, max(window // 8, 1))
        prompt = loaded.chat.prefix(document.text, system=system)
        tokens = len(prompt.input_ids)
        if tokens <= limit:
            return prompt, document, 0
        if settings.on_overflow == "error":
            raise DocumentTooLongError(tokens=tokens, limit=limit, window=window)
        ids = loaded.tokenizer(document.text, add_special_tokens=False)["input_ids"]
        keep = len(ids)
        while len(prompt.input_ids) > limit:
            keep -= len(prompt.input_ids) - limit
            if keep < 1:
                raise DocumentTooLongError(tokens=tokens, limit=limit, window=window)
            kept = ids[:keep] if settings.on_overflow == "keep_start" else ids[-keep:]
            document = replace(document, text=loaded.chat.decode(kept).strip())
            prompt = loaded.chat.prefix(document.text, system=system)
        return prompt, document, len(ids) - keep

    def _read(
        self, prompt: PromptPrefix, on_progress: ProgressCallback
    ) -> tuple[FrozenPrefix, dict[str, float]]:
        started = time.perf_counter()
        chunk = self._runtime_config.prefill_chunk
        prefix = prefill(
            self._loaded().runtime, prompt.input_ids, chunk=chunk, on_progress=on_progress
        )
        return prefix, {"prefill": time.perf_counter() - started}

    def _fetch_or_train(
        self,
        key: str,
        prompt: PromptPrefix,
        prefix: FrozenPrefix,
        config: AdaptationConfig,
        on_progress: ProgressCallback,
    ) -> tuple[QueryAdapter | None, AdaptationReport, Source]:
        if stored := self._store.get(key):
            try:
                return self._revive(stored, config), stored.report, "store"
            except ValueError:  # Right key and checksum, wrong weights: cannot be ours.
                self._store.set_aside(key)
        loaded = self._loaded()
        task = Task(
            runtime=loaded.runtime,
            prefix=prefix,
            document=TokenizedDocument.of(prompt, loaded.chat, loaded.tokenizer),
            generic=[loaded.chat.suffix(prompt, as_messages(q)) for q in GENERIC_QUESTIONS],
            config=config,
        )
        self._store.prepare(key)
        adapter, report = adapt_queries(task, on_progress=on_progress)
        weights = adapter.state_dict() if adapter is not None else {}
        self._store.put(key, StoredAdapter(weights, report))
        return adapter, report, "trained"

    def _revive(self, stored: StoredAdapter, config: AdaptationConfig) -> QueryAdapter | None:
        if stored.report.decision == "kept_base":
            return None
        architecture = self._loaded().runtime.architecture
        adapter = QueryAdapter.create(architecture.projections, config)
        adapter.load_state_dict(stored.weights)
        return adapter

    def _rows(
        self,
        adapted: AdaptedDocument | None,
        prompts: Sequence[str | Sequence[Message]],
        config: GenerationConfig | None,
        options: dict[str, Any],
    ) -> tuple[Request, list[Row]]:
        own = config.model_dump() if config else {}
        settings = GenerationConfig(**{**own, **options})
        loaded = self._loaded()
        request = Request(
            runtime=loaded.runtime,
            prefix=adapted.prefix if adapted else EMPTY_PREFIX,
            adapter=adapted.adapter if adapted else None,
            decode=loaded.chat.decode,
            eos_token_ids=loaded.eos_token_ids,
        )
        prompt = adapted.prompt if adapted else NO_PREFIX
        suffixes = [loaded.chat.suffix(prompt, as_messages(one)) for one in prompts]
        rows = [Row(request, suffix, settings, self._room(request, suffix, settings))
                for suffix in suffixes]  # fmt: skip
        return request, rows

    def _room(self, request: Request, suffix: Sequence[int], settings: GenerationConfig) -> int:
        """How many answer tokens to allow."""
        window = self._loaded().runtime.architecture.window
        room = window - len(request.prefix) - len(suffix)
        wanted = settings.max_new_tokens
        if room < (wanted or 1):
            raise PromptTooLongError(
                prefix=len(request.prefix),
                suffix=len(suffix),
                max_new_tokens=wanted or 1,
                window=window,
            )
        return wanted or min(_DEFAULT_ANSWER, room)

    def _recall(self, key: str) -> AdaptedDocument | None:
        with self._lock:
            held = self._documents.get(key)
            if held is not None:
                self._documents.move_to_end(key)
            return held

    def _forget(self, key: str) -> None:
        with self._lock:
            self._documents.pop(key, None)

    def _remember(self, adapted: AdaptedDocument) -> None:
        with self._lock:
            self._documents[adapted.key] = adapted
            while len(self._documents) > self._runtime_config.max_documents:
                self._documents.popitem(last=False)


def _closed_loader() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    raise ReleasedError("this engine was closed; make a new one")
