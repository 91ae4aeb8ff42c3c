"""The options and documents of an integration object, and the engine they lead to."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from uuid import uuid4
from weakref import WeakKeyDictionary

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from typing_extensions import Self

from ttt_core.chat import Message, PromptPrefix
from ttt_core.config import AdaptationConfig, GenerationConfig, RuntimeConfig, unknown_option
from ttt_core.document import Document, as_document
from ttt_core.errors import ConfigError, DocumentError
from ttt_core.integration.documents import identify
from ttt_core.integration.prompt import text_of
from ttt_core.integration.registry import DocumentRegistry, registry_for
from ttt_core.integration.reply import Reply, run_in_thread
from ttt_core.integration.resolver import Mode, resolve
from ttt_core.integration.tenant import check_seal, make_namespace, make_seal
from ttt_core.loading import default_model, peek_window
from ttt_core.progress import ProgressCallback, ignore_progress

if TYPE_CHECKING:
    from ttt_core import AdaptedDocument, TTTEngine
else:
    TTTEngine = Any  # Pydantic asks for the name at run time; the class itself imports torch.

D = TypeVar("D")
"""What a framework's users pass as one document."""

OPTIONS = (
    "temperature",
    "max_tokens",
    "stop",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "seed",
    "timeout",
    "logprobs",
    "top_logprobs",
    "enable_thinking",
    "thinking_budget",
)
"""Decoding options of an instance and of a call, under the names that both frameworks use."""

CALL_OPTIONS = (*OPTIONS, "tools", "tool_choice", "parallel_tool_calls", "response_format")
"""Those of a call."""

OWN_OPTIONS = ("model", "documents", "adapter", "documents_from", "n", "max_retries")
"""Options of a call that are no decoding options."""


class EngineOptions(BaseModel, Generic[D]):
    """Fields and behaviour of an integration object, to inherit before the framework's base class.

    What a framework sees differently is a hook: `_to_documents` must be overridden; `_drops`,
    `_errors`, `_trims_history` and `_kept_by_copies` can be.
    """

    model: str = ""
    """A local folder or a Hub id; None: `$TTT_MODEL`, or the bundled model. Beside `engine`, the
    name to show in answers and traces; None: the engine's own."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    dtype: str = "auto"
    device: str = "auto"
    engine: TTTEngine | None = Field(default=None, exclude=True, repr=False)
    """A ready engine to use instead of loading `model`."""
    engine_variant: str = ""
    """What stands for the settings of `engine` where it cannot be (`TTTEngine.variant`), to tell
    its answers apart. Found out, never to be set."""
    temperature: float = 0.0
    """0 decodes greedily."""
    max_tokens: int | None = None
    """Most answer tokens; None: 256, or what the window still holds if that is less."""
    stop: list[str] | None = None
    """Strings that end the answer; they are not part of it."""
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    timeout: float | None = None
    """Seconds for a whole answer, reading and adapting included; None: it may take its time."""
    max_retries: int = Field(default=0, ge=0)
    """How often to begin again when the device's memory is full or the store cannot be read.
    Nothing else fails by chance: nothing here is remote."""
    logprobs: bool | None = None
    top_logprobs: int | None = None
    enable_thinking: bool | None = None
    """Let a reasoning model think before it answers; off by default, since retrieval gains little
    by it."""
    thinking_budget: int | None = None
    """Most tokens of thinking."""
    documents_from: Mode = "marked"
    """Where documents may come from, beside call and instance: `marked` parts of messages, and
    passages, which are what query engines hand over (LlamaIndex only); `auto`, also long texts
    that were asked about before; or `off`."""
    min_document_tokens: int = Field(default=1024, ge=1)
    """What is shorter and only marked, or found, is answered in-context and never trained on. A
    shorter passage (LlamaIndex only) stays in the prompt, unless it holds known documents."""
    documents: tuple[Document, ...] = Field(default=(), exclude=True, repr=False)
    """What every question is about. Never serialised, logged, traced or sent to callbacks."""
    document_ids: tuple[str, ...] = ()
    """Content hashes of `documents`: what is serialised, traced and part of cache keys."""
    namespace: str | None = None
    """Whose documents these are; None: the engine's own. Nothing is shared with other ones."""
    namespace_secret: SecretStr | None = Field(default=None, exclude=True, repr=False)
    """Keeps whoever does not know it from telling which documents were read. Never serialised,
    logged, traced or sent to callbacks; objects that have one are not pickled."""
    namespace_seal: str = ""
    """What stands for the secret where that must not be: a digest, to tell secrets apart."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    @staticmethod
    @abstractmethod
    def _to_documents(documents: D | Sequence[D]) -> tuple[Document, ...]:
        """Translate the framework's documents."""

    @classmethod
    def _drops(cls, name: str, value: Any) -> bool:
        """Whether to do without a constructor argument that would be an error."""
        return False

    @staticmethod
    def _errors() -> AbstractContextManager[None]:
        """Raise the core's errors as the framework's."""
        return nullcontext()

    def _trims_history(self) -> bool:
        """Whether conversations that do not fit the window lose their oldest turns."""
        return False

    def _kept_by_copies(self) -> Iterable[str]:
        """The fields that copies take over: what was set, since LangChain asks what was."""
        return self.model_fields_set

    @model_validator(mode="before")
    @classmethod
    def _check_arguments(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in values.items() if not cls._drops(name, value)}
        for alias in ("model_name", "model_id"):
            if alias in kept and "model" not in kept:
                kept["model"] = kept.pop(alias)
        for name in sorted(kept.keys() - cls.model_fields.keys()):
            raise ValueError(_unknown(name, cls.model_fields))
        engine = kept.get("engine")
        _check_engine(engine, kept)
        kept["engine_variant"] = getattr(engine, "variant", "")
        return {**kept, "model": _model_name(kept.get("model"), engine)}

    @field_validator("stop", mode="before")
    @classmethod
    def _list_stop(cls, stop: Any) -> Any:
        return [stop] if isinstance(stop, str) else stop

    @field_validator("documents", mode="before")
    @classmethod
    def _translate_documents(cls, documents: Any) -> tuple[Document, ...]:
        return cls._to_documents(() if documents is None else documents)

    @model_validator(mode="after")
    def _check_and_identify(self) -> Self:
        GenerationConfig(**self._decoding({}))
        if self.documents:
            self.document_ids = identify(self.documents)
        namespace = make_namespace(self.namespace, self.namespace_secret)
        if seal := make_seal(namespace, self.namespace_seal):
            self.namespace_seal = seal
        return self

    def adapt(
        self,
        documents: D | Sequence[D] | None = None,
        *,
        system: str | None = None,
        on_progress: ProgressCallback = ignore_progress,
    ) -> AdaptedDocument:
        """Read documents and adapt to them now, so that the first question need not wait.

        Args:
            documents: None: the instance's own.
            system: The system message that questions will come with; it is read along.
            on_progress: Called along the way; an exception it raises cancels.

        Returns:
            A handle; it, or its `id`, can be given to calls as `adapter=`.
        """
        chosen = self.documents if documents is None else self._to_documents(documents)
        self._check_texts(chosen)
        engine = self._engine()
        with self._errors():
            adapted = engine.adapt(chosen, system=system, on_progress=on_progress)
        self._registry().register(chosen, adapted.id)
        return adapted

    async def aadapt(
        self,
        documents: D | Sequence[D] | None = None,
        *,
        system: str | None = None,
        on_progress: ProgressCallback = ignore_progress,
    ) -> AdaptedDocument:
        """Adapt beside the event loop; see `adapt`. Cancelling the task stops the work.

        `on_progress` is called in the event loop.
        """
        chosen = None if documents is None else self._to_documents(documents)

        def work(check: ProgressCallback) -> AdaptedDocument:
            return self.adapt(cast("D | None", chosen), system=system, on_progress=check)

        return await run_in_thread(work, on_progress)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy with changes, validated.

        Pydantic's own copy would keep the old `document_ids`, and LangChain's cached serialised
        form with them: its LLM cache would then answer with what it knows of the other document.
        All values are immutable or meant to be shared, so that `deep` makes no difference.
        """
        own = {name: getattr(self, name) for name in self._kept_by_copies()}
        if "documents" in (update or {}):
            own.pop("document_ids", None)  # Those of the old ones.
        return type(self)(**{**own, **(update or {})})

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Copy all but the engine."""
        return self.model_copy()

    def __getstate__(self) -> dict[Any, Any]:
        """Pickle, unless there is a secret: pickles end up in files and on wires.

        Raises:
            TypeError: There is one.
        """
        if self.namespace_secret is not None:
            raise TypeError(
                "an object with a namespace_secret is not pickled; pass the secret to the other "
                "process yourself and make the object there"
            )
        return super().__getstate__()

    def _about(self, documents: D | Sequence[D]) -> Self:
        """Copy, with `documents` in place of the instance's own."""
        translated = self._to_documents(documents)
        as_document(translated)  # Checks: an empty list must not turn documents off.
        return self.model_copy(update={"documents": translated})

    def _engine(self, model: str | None = None) -> TTTEngine:
        """Return the engine that answers, for the instance's namespace.

        Raises:
            ConfigError: The namespace's secret is missing; see `check_seal`.
        """
        namespace = make_namespace(self.namespace, self.namespace_secret)
        check_seal(namespace, self.namespace_seal)
        engine = self._model_engine(model)
        return engine if namespace is None else engine.in_namespace(namespace)

    def _model_engine(self, model: str | None) -> TTTEngine:
        own = model is None or model == self.model
        if own and self.engine is not None:
            return self.engine
        from ttt_core import shared_engine

        return shared_engine(
            model or self.model,
            revision=self.revision if own else None,
            dtype=self.dtype,
            device=self.device,
        )

    def _registry(self, model: str | None = None) -> DocumentRegistry:
        """Return what is known of the documents of the engine that answers; see `_engine`."""
        return registry_for(self._engine(model))

    def _token_ids(self, text: str) -> list[int]:
        """Tokenise with the model's own tokenizer; loads the model."""
        tokenizer = self._engine().tokenizer
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _decoding(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """Merge the options of the instance with those of a call, in the engine's names.

        Raises:
            ConfigError: An option that does not exist.
        """
        given = {name: value for name, value in call.items() if value is not None}
        for name in sorted(given.keys() - set(CALL_OPTIONS)):
            raise ConfigError(_unknown(name, (*CALL_OPTIONS, *OWN_OPTIONS)))
        merged = {**{name: getattr(self, name) for name in OPTIONS}, **given}
        merged["max_new_tokens"] = merged.pop("max_tokens")
        return {name: value for name, value in merged.items() if value is not None}

    def _check_call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """Return a call's decoding options merged with the instance's; see `_decoding`."""
        options = self._decoding({k: v for k, v in call.items() if k not in OWN_OPTIONS})
        if isinstance(options.get("stop"), str):
            options["stop"] = [options["stop"]]
        timeout = options.get("timeout")
        if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
            raise ConfigError(f"timeout is a number of seconds above zero, not {timeout!r}")
        return options

    def _reply(
        self,
        messages: Sequence[Message],
        call: Mapping[str, Any],
        on_progress: ProgressCallback = ignore_progress,
    ) -> Reply:
        """Begin to answer.

        Args:
            messages: Core messages; contents may be lists of the parts that `resolver` knows.
            call: Options of the call, `OWN_OPTIONS` among them.
            on_progress: Told of loading, reading and training.

        Raises:
            ConfigError: An option that does not exist.
            DocumentError: An adapter that is not known, or documents without their texts.
        """
        own = {name: call[name] for name in OWN_OPTIONS if call.get(name) is not None}
        options = self._check_call(call)
        engine = self._engine(own.get("model"))
        called = self._called(own)
        if called is None:
            self._check_texts(self.documents)
        resolved = resolve(
            messages,
            call=called,
            own=self.documents,
            mode=own.get("documents_from", self.documents_from),
            min_tokens=self.min_document_tokens,
            count_tokens=engine.count_tokens,
            registry=self._registry(own.get("model")),
        )
        return Reply(
            engine,
            resolved.messages,
            resolved=resolved,
            options=options,
            n=_at_least(1, "n", own.get("n", 1), most=128),
            max_retries=_at_least(0, "max_retries", own.get("max_retries", self.max_retries)),
            trim_history=self._trims_history(),
            on_progress=on_progress,
        )

    def _count(self, messages: Sequence[Message], call: Mapping[str, Any]) -> int:
        """Count the tokens of a conversation whose documents stand in it as text."""
        engine = self._engine(call.get("model"))
        if all(message["role"] == "system" for message in messages):
            # Nothing could answer it, but who shortens conversations asks for parts of them.
            return sum(engine.count_tokens(text_of(message)) for message in messages)
        plain = resolve(
            messages,
            call=None,
            own=(),
            mode="off",
            min_tokens=self.min_document_tokens,
            count_tokens=engine.count_tokens,
            registry=self._registry(call.get("model")),
        )
        options = self._check_call(call)
        return engine.count_prompt_tokens(plain.messages, **options)

    def _known_window(self) -> int | None:
        """Return the model's window if that can be known without loading or fetching anything."""
        return peek_window(self.model, self.revision) if self.engine is None else None

    def _without_texts(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the documents and the handle of a call by their ids, for traces and keys."""
        shown = dict(call)
        if shown.get("documents") is not None:
            shown["documents"] = list(identify(self._to_documents(shown["documents"])))
        if shown.get("adapter") is not None:
            shown["adapter"] = getattr(shown["adapter"], "id", shown["adapter"])
        return shown

    def _called(self, own: Mapping[str, Any]) -> tuple[Document, ...] | None:
        """Return the documents that a call brings, by themselves or by an adapter's id."""
        documents, adapter = own.get("documents"), own.get("adapter")
        if documents is not None and adapter is not None:
            raise ConfigError("a call takes documents= or adapter=, not both")
        if documents is not None:
            return self._to_documents(documents)
        if adapter is None:
            return None
        if isinstance(getattr(adapter, "prompt", None), PromptPrefix):
            return self._of_handle(adapter, own.get("model"))
        registry = self._registry(own.get("model"))
        found = registry.get(adapter) if isinstance(adapter, str) else None
        if found is None:
            raise DocumentError(
                "adapter= takes what adapt() returned, or its id, in the process, namespace and "
                "with the model where it was made; elsewhere pass documents=, which finds in the "
                "store what was learned"
            )
        return found

    def _of_handle(self, adapted: AdaptedDocument, model: str | None) -> tuple[Document, ...]:
        if adapted.namespace != self._engine(model).namespace:
            raise ConfigError("this adapter is of another namespace than this object")
        known = self._registry(model).get(adapted.id)
        return known or (Document.of(adapted.prompt.document),)

    def _check_texts(self, documents: Sequence[Document]) -> None:
        """Refuse to answer without documents that are known by their ids only.

        Raises:
            DocumentError: The texts are missing.
        """
        if self.document_ids and not documents:
            raise DocumentError(
                f"this object was loaded from a serialised one, which names its "
                f"{len(self.document_ids)} document(s) by content hash but never holds their "
                f"text; pass the documents again"
            )


def _at_least(least: int, name: str, value: Any, *, most: int = 1 << 16) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{name} is a whole number from {least} to {most:,}, not {value!r}")
    return value


_SYNONYMS = {
    "max_completion_tokens": "max_tokens",
    "max_new_tokens": "max_tokens",
    "num_predict": "max_tokens",
    "stop_sequences": "stop",
    "frequency_penalty": "repetition_penalty",
    "presence_penalty": "repetition_penalty",
    "reasoning": "enable_thinking",
    "reasoning_effort": "enable_thinking",
}
"""What other classes call it."""


_OF_ENGINES = ("adaptation", "runtime", "store", "template_kwargs")
"""Arguments of `TTTEngine.from_pretrained` that are no options here."""


def _unknown(name: str, known: Iterable[str]) -> str:
    """Say what is wrong with an option, and where it belongs if it is another object's."""
    if name == "local_files_only":
        return (
            f"unknown option {name!r}; set the environment variable HF_HUB_OFFLINE=1 before the "
            f"program starts: models then come from this machine only"
        )
    if argument := _argument_of_engines(name):
        made = f"engine=TTTEngine.from_pretrained(model, {argument})"
        return f"unknown option {name!r}; it is the engine's: make the object with {made}"
    return unknown_option(name, known, "the options are", _SYNONYMS)


def _argument_of_engines(name: str) -> str | None:
    """How an option is passed to an engine; None: not at all."""
    if name in AdaptationConfig.model_fields:
        return f"adaptation=AdaptationConfig({name}=...)"
    if name in RuntimeConfig.model_fields:
        return f"runtime=RuntimeConfig({name}=...)"
    return f"{name}=..." if name in _OF_ENGINES else None


_OF_LOADING = {"revision": None, "dtype": "auto", "device": "auto"}
"""Options that say how a model is loaded, with what they are by default."""


def _check_engine(engine: object | None, options: Mapping[str, Any]) -> None:
    """Refuse what is no engine, and what a ready one could only ignore.

    Raises:
        ValueError: It is none, or such an option is set.
    """
    if engine is None:
        return
    if isinstance(engine, type) or not (hasattr(engine, "adapt") and hasattr(engine, "stream")):
        found = "a class" if isinstance(engine, type) else type(engine).__name__
        raise ValueError(f"engine is a TTTEngine, not {found}")
    for name, default in _OF_LOADING.items():
        if options.get(name, default) != default:
            raise ValueError(
                f"{name} goes with a model to load, and engine= brings a loaded one; pass it to "
                f"TTTEngine.from_pretrained(model, {name}=...)"
            )


_names: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
"""Of engines. An address could be another one's tomorrow, a number another process's."""


def _model_name(model: str | os.PathLike[str] | None, engine: object | None) -> str:
    """Name the model: the one given, the engine's, or the default."""
    if model is None and engine is not None:
        if (name := getattr(engine, "name", None)) is not None:
            return str(name)
        # In-memory weights have no name; cached and traced answers must still be told apart.
        return _names.setdefault(engine, f"{type(engine).__name__}-{uuid4().hex[:12]}")
    return os.fspath(default_model() if model is None else model)
