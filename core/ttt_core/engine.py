"""TTTEngine: the main path, and the only file that knows all the others.

documents ─▶ prefix tokens ─▶ FrozenPrefix ─▶ QueryAdapter ─▶ store
                                    └──────── generate ◀── question
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from ttt_core.adapted import AdaptedDocument, Source, no_adapter
from ttt_core.chat import NO_PREFIX, Message, as_messages
from ttt_core.config import AdaptationConfig, GenerationConfig, RuntimeConfig
from ttt_core.document import Document, DocumentLike, Documents, as_document
from ttt_core.errors import (
    ConfigError,
    PromptTooLongError,
    ReleasedError,
)
from ttt_core.flights import SingleFlight
from ttt_core.generate import Answer, AnswerStream, Request, Row
from ttt_core.learning import Learned, Learner
from ttt_core.loaded import LoadedModel
from ttt_core.loading import default_model, load
from ttt_core.memory import PrefixSource
from ttt_core.prefix import EMPTY_PREFIX, FrozenPrefix
from ttt_core.progress import Progress, ProgressCallback, ignore_progress, numbered
from ttt_core.reading import Encoded, Reader
from ttt_core.scheduler import Scheduler
from ttt_core.store import AdapterStore

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ttt_core.adapter import QueryAdapter

_DEFAULT_ANSWER = 256


class _Parts(NamedTuple):
    """A loaded model with those who read and learn with it."""

    model: LoadedModel
    reader: Reader
    learner: Learner


class _Origin(NamedTuple):
    """Where a document's adapter and its keys and values came from, and what that took."""

    source: Source
    prefix_source: PrefixSource | None
    seconds: dict[str, float]


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
        encoded = self._load(on_progress).reader.encode(as_document(documents), system)
        return self._adapt(encoded, config or self._adaptation, on_progress)

    def adapt_many(
        self,
        documents: Iterable[DocumentLike],
        *,
        system: str | None = None,
        config: AdaptationConfig | None = None,
        on_progress: ProgressCallback = ignore_progress,
    ) -> list[AdaptedDocument]:
        """Adapt to many documents, each by itself, ahead of the first questions about them.

        What fails for a document's own sake (empty, too long) fails before any work is done. What
        stops the work later loses nothing: adapters are stored one by one, so that the same call
        goes on where it stopped. Memory stays within `RuntimeConfig`'s limits: keys and values
        that do not fit are made again when they are asked for, and those of documents that are
        adapted already are not even made now.

        Args:
            documents: Texts or `Document`s; the same one twice is adapted once.
            system: See `adapt`; likewise `config`.
            config: The recipe.
            on_progress: Called along the way, also with the stage `documents`.

        Returns:
            One for each document, in their order.
        """
        if isinstance(documents, str | Document):
            raise ConfigError("adapt_many takes a list of documents; adapt takes a single one")
        parts = [as_document(document) for document in documents]
        reader = self._load(on_progress).reader
        for part in parts:
            reader.encode(part, system)
        adapted = []
        for number, part in enumerate(parts, 1):
            on_progress(Progress("documents", number - 1, len(parts)))
            encoded = reader.encode(part, system)
            adapted.append(
                self._adapt(
                    encoded,
                    config or self._adaptation,
                    numbered(on_progress, number, len(parts)),
                    eager=reader.has_room(encoded),
                )
            )
        on_progress(Progress("documents", len(parts), len(parts)))
        return adapted

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
        reader = self._load(on_progress).reader
        encoded = reader.encode(as_document(documents), system)
        started = time.perf_counter()
        _, prefix_source = reader.read(encoded, on_progress)
        return AdaptedDocument(
            key="",
            document_hash=encoded.hash,
            prompt=encoded.prompt,
            prefix=partial(self._prefix, encoded),
            adapter=no_adapter,
            report=None,
            source="read",
            prefix_source=prefix_source,
            seconds={"prefill": time.perf_counter() - started},
            dropped_tokens=encoded.dropped_tokens,
            on_release=partial(self._forget, "", encoded),
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
        """Answer many questions on one document; see `generate`.

        They are decoded together, and with those that other callers ask about it meanwhile.
        """
        if isinstance(prompts, str):
            raise ConfigError("generate_batch takes a list of questions; generate takes one")
        if not prompts:
            return []
        rows = self._rows(adapted, prompts, config, options)
        self._scheduler.run(rows)
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
        [row] = self._rows(adapted, [prompt], config, options)
        return AnswerStream(self._scheduler.stream([row]), row)

    def count_tokens(self, text: str) -> int:
        """Number of tokens of `text` under the model's own tokenizer."""
        encoded = self._loaded().model.tokenizer(text, add_special_tokens=False)
        return len(encoded["input_ids"])

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer; loads the model."""
        return self._loaded().model.tokenizer

    @property
    def window(self) -> int:
        """The model's window in tokens; loads the model."""
        return self._loaded().model.runtime.architecture.window

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closed

    def reset(self) -> None:
        """Forget all documents held in memory; the store keeps their adapters.

        Documents that are in use can be used further: what is missing is made again.
        """
        if (parts := self._parts) is not None:
            parts.reader.clear()
            parts.learner.clear()

    def close(self) -> None:
        """Forget documents and model. The engine cannot be used afterwards."""
        self.reset()
        with self._loading:
            self._closed, self._parts = True, None
            self._loader = _closed_loader

    def __enter__(self) -> TTTEngine:
        """Return the engine itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()

    _loader: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]
    _store: AdapterStore
    _parts: _Parts | None
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
        self._parts = None
        self._closed = False
        self._loading = threading.Lock()
        self._single_flight = SingleFlight()
        self._scheduler = Scheduler(self._runtime_config.max_batch_size)

    def _loaded(self) -> _Parts:
        with self._loading:
            if self._parts is None:
                config, store = self._runtime_config, self._store
                model = LoadedModel(*self._loader(), self._template_kwargs, config.attention)
                self._parts = _Parts(
                    model, Reader(model, config, store.path), Learner(model, config, store)
                )
            return self._parts

    def _load(self, on_progress: ProgressCallback) -> _Parts:
        if self._parts is not None:
            return self._loaded()
        on_progress(Progress("load", 0, 1))
        parts = self._loaded()
        on_progress(Progress("load", 1, 1))
        return parts

    def _prefix(self, encoded: Encoded) -> tuple[FrozenPrefix, PrefixSource]:
        return self._loaded().reader.read(encoded)

    def _adapt(
        self,
        encoded: Encoded,
        config: AdaptationConfig,
        on_progress: ProgressCallback,
        *,
        eager: bool = True,
    ) -> AdaptedDocument:
        """Read, and fetch or train; `eager`: read even if nothing needs to be trained."""
        key = self._loaded().model.key(encoded.prompt, config)
        learned, origin = self._learn(key, encoded, config, on_progress, eager=eager)
        return AdaptedDocument(
            key=key,
            document_hash=encoded.hash,
            prompt=encoded.prompt,
            prefix=partial(self._prefix, encoded),
            adapter=partial(self._adapter, key, encoded, config),
            report=learned.report,
            source=origin.source,
            prefix_source=origin.prefix_source,
            seconds=origin.seconds,
            dropped_tokens=encoded.dropped_tokens,
            on_release=partial(self._forget, key, encoded),
        )

    def _learn(
        self,
        key: str,
        encoded: Encoded,
        config: AdaptationConfig,
        on_progress: ProgressCallback,
        *,
        eager: bool,
    ) -> tuple[Learned, _Origin]:
        _, reader, learner = self._loaded()
        seconds: dict[str, float] = {}
        prefix_source: PrefixSource | None = None
        with self._single_flight(key):
            started = time.perf_counter()
            known = learner.find(key, config)
            found = time.perf_counter()
            if known is None or eager:
                prefix, prefix_source = reader.read(encoded, on_progress)
                seconds["prefill"] = time.perf_counter() - found
            learned, source = known or (
                learner.learn(key, encoded.prompt, prefix, config, on_progress),
                "trained",
            )
            seconds["adaptation"] = time.perf_counter() - started - seconds.get("prefill", 0.0)
        nothing_done = (source, prefix_source) == ("memory", "device")
        return learned, _Origin(source, prefix_source, {} if nothing_done else seconds)

    def _adapter(self, key: str, encoded: Encoded, config: AdaptationConfig) -> QueryAdapter | None:
        """Fetch a document's adapter; should memory and store have lost it, learn it again."""
        held = self._loaded().learner.recall(key)
        if held is None:
            held, _ = self._learn(key, encoded, config, ignore_progress, eager=False)
        return held.adapter

    def _rows(
        self,
        adapted: AdaptedDocument | None,
        prompts: Sequence[str | Sequence[Message]],
        config: GenerationConfig | None,
        options: dict[str, Any],
    ) -> list[Row]:
        own = config.model_dump() if config else {}
        settings = GenerationConfig(**{**own, **options})
        loaded = self._loaded().model
        started = time.perf_counter()
        prefix, source = adapted.fetch() if adapted else (EMPTY_PREFIX, None)
        waited = time.perf_counter() - started
        request = Request(
            runtime=loaded.runtime,
            prefix=prefix,
            adapter=adapted.adapter if adapted else None,
            decode=loaded.chat.decode,
            eos_token_ids=loaded.eos_token_ids,
        )
        prompt = adapted.prompt if adapted else NO_PREFIX
        suffixes = [loaded.chat.suffix(prompt, as_messages(one)) for one in prompts]
        rows = [
            Row(request, suffix, settings, self._room(request, suffix, settings), waited=waited)
            for suffix in suffixes
        ]
        if source == "computed":  # Memory had let go of the document; the first row says so.
            rows[0].read_tokens = len(prefix)
        return rows

    def _room(self, request: Request, suffix: Sequence[int], settings: GenerationConfig) -> int:
        """How many answer tokens to allow."""
        window = self._loaded().model.runtime.architecture.window
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

    def _forget(self, key: str, encoded: Encoded) -> None:
        if (parts := self._parts) is not None:
            parts.learner.forget(key)
            parts.reader.release(encoded)


def _closed_loader() -> NoReturn:
    raise ReleasedError("this engine was closed; make a new one")
