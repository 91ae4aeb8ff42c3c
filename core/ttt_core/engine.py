"""TTTEngine: the main path, and the only file that knows all the others.

documents ─▶ prefix tokens ─▶ FrozenPrefix ─▶ QueryAdapter ─▶ store
                                    └──────── generate ◀── question
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4
from weakref import WeakValueDictionary

from pydantic import ValidationError

from ttt_core.adapted import AdaptedDocument, Source, no_adapter
from ttt_core.asking import encode_prompts, make_rows
from ttt_core.chat import NO_PREFIX, Message
from ttt_core.config import AdaptationConfig, GenerationConfig, RuntimeConfig
from ttt_core.document import (
    Document,
    DocumentLike,
    Documents,
    as_document,
    without_surrogates,
)
from ttt_core.errors import ConfigError, ReleasedError
from ttt_core.generate import Answer, AnswerStream, Row
from ttt_core.host import ModelHost, Resident
from ttt_core.learning import Learned, Learner, check_question
from ttt_core.loading import default_model, settled
from ttt_core.memory import PrefixSource
from ttt_core.namespace import Namespace, NamespaceLike
from ttt_core.origin import Origin
from ttt_core.prefix import FrozenPrefix
from ttt_core.progress import (
    Progress,
    ProgressCallback,
    ignore_progress,
    numbered,
    waiting,
)
from ttt_core.reading import Encoded, Reading
from ttt_core.store import AdapterStore

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ttt_core.adapter import QueryAdapter
    from ttt_core.loaded import LoadedModel
    from ttt_core.report import AdaptationReport


_LOG = logging.getLogger(__name__)


class _Request(NamedTuple):
    """What is to be learned, and the key that it has."""

    key: str
    encoded: Encoded
    config: AdaptationConfig
    question: str | None


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
        namespace: Whose documents these are: a `Namespace`, or a name; None: the store's. The same
            document in another namespace has other keys, and is learned for itself.
        template_kwargs: Extra variables for the chat template.

    A forked child loads the model again, with one thread, if the engine was made by
    `from_pretrained`; so does the process that unpickles one. Copies are the engine itself.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        adaptation: AdaptationConfig | None = None,
        runtime: RuntimeConfig | None = None,
        store: AdapterStore | str | os.PathLike[str] | None = None,
        namespace: NamespaceLike = None,
        template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self._adaptation = adaptation or AdaptationConfig()
        self._store = _open_store(store, namespace)
        self._host = ModelHost(
            lambda: (model, tokenizer),
            runtime or RuntimeConfig(),
            template_kwargs,
            self._store.path,
            reloads=False,
        )
        self._host.resident()  # An unsupported model should fail here, not at the first question.

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
        namespace: NamespaceLike = None,
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
        name = settled(os.fspath(model) if model is not None else default_model())
        origin = Origin(name, revision, dtype, device, adaptation, runtime, template_kwargs)
        return cls._made(origin, _open_store(store, namespace), uuid4().hex)

    @classmethod
    def _made(cls, origin: Origin, store: AdapterStore, mark: str) -> TTTEngine:
        engine = cls.__new__(cls)
        engine._adaptation = origin.adaptation or AdaptationConfig()
        engine._store = store
        engine._host = ModelHost(
            origin.load,
            origin.runtime or RuntimeConfig(),
            origin.template_kwargs,
            store.path,
            reloads=True,
        )
        engine._origin, engine._mark = origin, mark
        _engines[mark] = engine
        return engine

    def in_namespace(self, namespace: NamespaceLike) -> TTTEngine:
        """Return an engine for another namespace: the same model, memory and recipe, other keys.

        It lives as long as this one; to close it ends only its own use.
        """
        engine = type(self).__new__(type(self))
        engine._adaptation, engine._host = self._adaptation, self._host
        engine._store = self._store.in_namespace(namespace)
        engine._owner = self._owner or self
        engine._origin, engine._mark = self._origin, self._mark
        return engine

    def adapt(
        self,
        documents: Documents,
        *,
        question: str | None = None,
        system: str | None = None,
        config: AdaptationConfig | None = None,
        on_progress: ProgressCallback = ignore_progress,
    ) -> AdaptedDocument:
        """Read documents and adapt to them, or fetch what was learned before. Idempotent.

        Args:
            documents: Text, a `Document`, or several, which are read as one.
            question: For recipes that train for one question (`supervision="retrieved"` or
                `"evidence"`): what will be asked. What is learned is stored under a key of its
                own, and begins with what the document alone taught (`warm_start`).
            system: System prompt; it is frozen together with the document.
            config: The recipe; None: the engine's.
            on_progress: Called along the way; an exception it raises cancels, leaving nothing.

        Raises:
            ConfigError: A question that the recipe has no use for, or none where it needs one.
            DocumentError: Nothing to read.
            DocumentTooLongError: It does not fit the window.
            PromptTooLongError: It does, but not with the question.
            AdaptationError, OutOfMemoryError, ModelLoadError, UnsupportedModelError, StoreError
        """
        config = config or self._adaptation
        check_question(config, question)
        self._load(on_progress)
        encoded = self._encode(as_document(documents), system)
        if question is not None:
            self._learner().check_askable(encoded.prompt, config, question)
        return self._adapt(encoded, config, on_progress, question=question)

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
        check_question(config or self._adaptation, None)
        parts = [as_document(document) for document in documents]
        reader = self._load(on_progress).reader
        for part in parts:
            self._encode(part, system)
        adapted = []
        for number, part in enumerate(parts, 1):
            on_progress(Progress("documents", number - 1, len(parts)))
            encoded = self._encode(part, system)
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
        self._load(on_progress)
        encoded = self._encode(as_document(documents), system)
        reading = self._reading(encoded, on_progress)
        reading.prefix()
        return self._handle(encoded, "read", reading.source, reading.clock.seconds)

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
            ConfigError: The question is empty, or the document is of another namespace.
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
        self._host.scheduler.run(rows)
        return [row.whole_answer() for row in rows]

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
        return AnswerStream(self._host.scheduler.stream([row]), row)

    def count_tokens(self, text: str) -> int:
        """Number of tokens of `text` under the model's own tokenizer."""
        encode = self._resident().model.tokenizer
        encoded = encode(without_surrogates(text), add_special_tokens=False, verbose=False)
        return len(encoded["input_ids"])

    def count_prompt_tokens(
        self,
        prompt: str | Sequence[Message],
        *,
        config: GenerationConfig | None = None,
        **options: Any,
    ) -> int:
        """Number of tokens of a conversation in the model's chat format, tools included.

        That is `Answer.usage.prompt_tokens` of the same question without a document. Arguments
        and errors as for `generate`.
        """
        loaded, settings = self._resident().model, _settings(config, options)
        return len(encode_prompts(loaded, NO_PREFIX, [prompt], settings)[0])

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer; loads the model."""
        return self._resident().model.tokenizer

    @property
    def window(self) -> int:
        """The model's window in tokens; loads the model."""
        return self._resident().model.runtime.architecture.window

    def peek_window(self) -> int | None:
        """Return the window if that takes no loading and no fetching; else, or if closed, None."""
        if self.closed:
            return None
        if self._origin is None or self._host.loaded is not None:
            return self.window
        return self._origin.peek_window()

    @property
    def loaded(self) -> LoadedModel:
        """The model with what is derived from it, for those who look inside; loads the model."""
        return self._resident().model

    @property
    def name(self) -> str | None:
        """What `from_pretrained` was given: a Hub id or a folder; None for a model object."""
        return self._origin.model if self._origin is not None else None

    @property
    def variant(self) -> str:
        """Tells engines of one `name` apart that may answer differently; empty for the defaults.

        12 hexadecimal digits of revision, dtype, recipe, runtime and template variables, the same
        in every process. The device is none of them.
        """
        return self._origin.variant if self._origin is not None else ""

    @property
    def runtime(self) -> RuntimeConfig:
        """Memory and overflow settings."""
        return self._host.config

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closed or self._host.closed

    @property
    def namespace(self) -> Namespace:
        """Whose documents this engine reads."""
        return self._store.namespace

    def reset(self) -> None:
        """Forget all documents held in memory, of all namespaces; the store keeps their adapters.

        Documents that are in use can be used further: what is missing is made again.
        """
        self._host.clear()

    def close(self) -> None:
        """Forget documents and model. The engine cannot be used afterwards.

        Who is being served gets what was asked for; who still waits gets a `ReleasedError`. What
        has to be uploaded to a remote store is waited for, but not for long, unless other
        namespaces use that store, too: then whoever made it closes it.
        """
        self._closed = True
        self._store.close()
        if self._owner is None:
            self._host.close()

    def __enter__(self) -> TTTEngine:
        """Return the engine itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()

    def __copy__(self) -> TTTEngine:
        """Return the engine itself: it stands for a model, of which there is one."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> TTTEngine:
        """Return the engine itself, as `__copy__` does."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle how the engine was made; who unpickles it loads the model when it is needed.

        A process that unpickles it again, while the first one is in use, gets the same engine.

        Raises:
            TypeError: It was made around a model object, its namespace has a secret, or its store
                may have credentials.
            ReleasedError: It was closed.
        """
        self._check_open()
        if self._origin is None:
            raise TypeError(
                "an engine made around a model object cannot be pickled; make it with "
                "TTTEngine.from_pretrained, or make one in the other process"
            )
        return _unpickled, (self._mark, self._origin, self._store, self._owner is not None)

    _owner: TTTEngine | None = None
    _origin: Origin | None = None
    _mark = ""
    """Tells which engine it is, in other processes, too."""
    _closed = False

    def _check_open(self) -> None:
        if self.closed:
            raise ReleasedError("this engine was closed; make a new one")

    def _resident(self) -> Resident:
        self._check_open()
        return self._host.resident()

    def _pass_on(self, on_progress: ProgressCallback, progress: Progress) -> None:
        """Report to a caller, who is not to wait for what a closed engine will not do for it."""
        if progress.stage == "wait":
            self._check_open()
        on_progress(progress)

    def _load(self, on_progress: ProgressCallback) -> Resident:
        if self._host.loaded is not None:
            return self._resident()
        on_progress(Progress("load", 0, 1))
        resident = self._resident()
        on_progress(Progress("load", 1, 1))
        return resident

    def _learner(self) -> Learner:
        model, _, memory = self._resident()
        return Learner(model, self._host.config, self._store, memory)

    def _encode(self, document: Document, system: str | None) -> Encoded:
        return self._resident().reader.encode(document, system, self.namespace)

    def _adapt(
        self,
        encoded: Encoded,
        config: AdaptationConfig,
        on_progress: ProgressCallback,
        *,
        question: str | None = None,
        eager: bool = True,
    ) -> AdaptedDocument:
        """Read, and fetch or train; `eager`: read even if nothing needs to be trained."""
        key = self._learner().identity(encoded.prompt, config, question).key(self.namespace)
        request = _Request(key, encoded, config, question)
        reading = self._reading(encoded, on_progress)
        learned, source = self._learn(request, reading, eager=eager)
        nothing_done = (source, reading.source) == ("memory", "device")
        seconds = {} if nothing_done else reading.clock.seconds
        adapted = self._handle(
            encoded,
            source,
            reading.source,
            seconds,
            key=key,
            adapter=partial(self._adapter, request),
            report=learned.report,
        )
        if source == "trained":
            decision = learned.report.decision
            _LOG.info("document %s: %s in %.1f s", adapted.id, decision, sum(seconds.values()))
        return adapted

    def _learn(self, request: _Request, reading: Reading, *, eager: bool) -> tuple[Learned, Source]:
        """Fetch what was learned, or learn it; who asks for the same meanwhile waits for it."""
        learner, timeout = self._learner(), self._host.config.adaptation_timeout
        on_wait = waiting(reading.on_progress, timeout)
        flight = self._host.single_flight(request.key, on_wait, timeout=timeout)
        with flight as patient, reading.clock("adaptation"):
            found = learner.find(request.key, request.config)
            found = found or self._train(request, reading, learner, patient=patient)
            if eager:
                reading.prefix()
        return found

    def _train(
        self, request: _Request, reading: Reading, learner: Learner, *, patient: bool
    ) -> tuple[Learned, Source]:
        key, encoded, config, question = request
        with learner.alone(key, reading.on_progress, patient=patient):
            # Again, since another process may just have learned it.
            if found := learner.find(key, config):
                return found
            _LOG.info("adapting to a document of %d tokens", len(encoded.prompt.input_ids))
            start = self._warm_start(request, reading.on_progress)
            learned = learner.learn(
                key,
                encoded.prompt,
                reading.prefix(),
                config,
                reading.on_progress,
                question=question,
                start=start,
            )
            return learned, "trained"

    def _warm_start(self, request: _Request, on_progress: ProgressCallback) -> QueryAdapter | None:
        """Learn what a question's adapter begins with: what the document alone teaches."""
        config = request.config
        if request.question is None or not config.warm_start:
            return None
        document = config.for_document()
        return self._adapt(request.encoded, document, on_progress, eager=False).adapter

    def _adapter(self, request: _Request) -> QueryAdapter | None:
        """Fetch a document's adapter; should memory and store have lost it, learn it again."""
        held = self._resident().learned.get(request.key)
        if held is None:
            reading = self._reading(request.encoded, ignore_progress)
            held, _ = self._learn(request, reading, eager=False)
        return held.adapter

    def _reading(self, encoded: Encoded, on_progress: ProgressCallback) -> Reading:
        return Reading(self._resident().reader, encoded, partial(self._pass_on, on_progress))

    def _fetch(self, encoded: Encoded) -> tuple[FrozenPrefix, PrefixSource]:
        return self._resident().reader.read(encoded, partial(self._pass_on, ignore_progress))

    def _handle(
        self,
        encoded: Encoded,
        source: Source,
        prefix_source: PrefixSource | None,
        seconds: dict[str, float],
        *,
        key: str = "",
        adapter: Callable[[], QueryAdapter | None] = no_adapter,
        report: AdaptationReport | None = None,
    ) -> AdaptedDocument:
        return AdaptedDocument(
            key=key,
            document_hash=encoded.hash,
            namespace=self.namespace,
            prompt=encoded.prompt,
            prefix=partial(self._fetch, encoded),
            adapter=adapter,
            report=report,
            source=source,
            prefix_source=prefix_source,
            seconds=seconds,
            dropped_tokens=encoded.dropped_tokens,
            on_release=partial(self._forget, key, encoded),
        )

    def _rows(
        self,
        adapted: AdaptedDocument | None,
        prompts: Sequence[str | Sequence[Message]],
        config: GenerationConfig | None,
        options: dict[str, Any],
    ) -> list[Row]:
        settings = _settings(config, options)
        loaded = self._resident().model
        self._check_document(adapted)
        started = time.perf_counter()
        prefix, source = adapted.fetch() if adapted else (None, None)
        waited = time.perf_counter() - started
        rows = make_rows(loaded, adapted, prefix, prompts, settings, waited=waited)
        if source == "computed" and prefix is not None:
            # Memory had let go of the document; the first row says so.
            rows[0].read_tokens = len(prefix)
        return rows

    def _check_document(self, adapted: object) -> None:
        """Refuse what is no document of this engine's namespace: requests may have been mixed up.

        Raises:
            ConfigError: It is not.
        """
        if adapted is None:
            return
        if not isinstance(adapted, AdaptedDocument):
            kind = type(adapted).__name__
            raise ConfigError(f"questions are about what adapt or read returned, not {kind}")
        if adapted.namespace != self.namespace:
            raise ConfigError(
                f"this document is of namespace {adapted.namespace.name!r}, and this engine is for "
                f"{self.namespace.name!r}"
                + (" with another secret" * (adapted.namespace.name == self.namespace.name))
            )

    def _forget(self, key: str, encoded: Encoded) -> None:
        if (resident := self._host.loaded) is not None:
            resident.learned.pop(key)
            resident.reader.release(encoded)


def _settings(config: GenerationConfig | None, options: dict[str, Any]) -> GenerationConfig:
    own = config.model_dump() if config else {}
    try:
        return GenerationConfig(**{**own, **options})
    except ValidationError as error:  # Its own message would show what was passed.
        found = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise ConfigError("; ".join(found).removeprefix(": ")) from None


def _open_store(
    store: AdapterStore | str | os.PathLike[str] | None, namespace: NamespaceLike
) -> AdapterStore:
    if not isinstance(store, AdapterStore):
        return AdapterStore(store, namespace=namespace)
    return store if namespace is None else store.in_namespace(namespace)


_engines: WeakValueDictionary[str, TTTEngine] = WeakValueDictionary()
"""By mark, those that were not made by `in_namespace`."""


def _unpickled(mark: str, origin: Origin, store: AdapterStore, is_view: bool) -> TTTEngine:
    """Return this process's engine for a pickled one; handles of documents each bring theirs."""
    engine = _engines.get(mark)
    if engine is None or engine.closed:
        engine = TTTEngine._made(origin, store, mark)
    if is_view or engine.namespace != store.namespace:
        return engine.in_namespace(store.namespace)
    return engine
