"""The options and documents of an integration object, and the engine they lead to."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from typing_extensions import Self

from ttt_core.chat import Message
from ttt_core.config import GenerationConfig
from ttt_core.document import Document, as_document
from ttt_core.errors import ConfigError, DocumentError
from ttt_core.integration.documents import identify
from ttt_core.integration.reply import Reply
from ttt_core.integration.tenant import check_seal, make_namespace, make_seal
from ttt_core.loading import default_model
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
)
"""Decoding options of an instance and of a call, under the names that both frameworks use."""


class EngineOptions(BaseModel, Generic[D]):
    """Fields and behaviour of an integration object, to inherit before the framework's base class.

    What a framework sees differently is a hook: `_to_documents` must be overridden; `_drops`,
    `_errors`, `_default_system` and `_kept_by_copies` can be.
    """

    model: str = ""
    """A local folder or a Hub id; None: `$TTT_MODEL`, or the bundled model."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    dtype: str = "auto"
    device: str = "auto"
    engine: TTTEngine | None = Field(default=None, exclude=True, repr=False)
    """A ready engine to use instead of loading `model`."""
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

    def _default_system(self) -> str | None:
        """The system message that the framework puts before every question."""
        return None

    def _kept_by_copies(self) -> Iterable[str]:
        """The fields that copies take over: what was set, since LangChain asks what was."""
        return self.model_fields_set

    @model_validator(mode="before")
    @classmethod
    def _check_arguments(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in values.items() if not cls._drops(name, value)}
        return {**kept, "model": _model_name(kept.get("model"), kept.get("engine"))}

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
            system: The system message that questions will come with, if not the instance's own;
                it is read along.
            on_progress: Called along the way; an exception it raises cancels.
        """
        chosen = self.documents if documents is None else self._to_documents(documents)
        self._check_texts(chosen)
        system = self._default_system() if system is None else system
        with self._errors():
            return self._engine().adapt(chosen, system=system, on_progress=on_progress)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy with changes, validated.

        Pydantic's own copy would keep the old `document_ids`, and LangChain's cached serialised
        form with them: its LLM cache would then answer with what it knows of the other document.
        All values are immutable or meant to be shared, so that `deep` makes no difference.
        """
        own = {name: getattr(self, name) for name in self._kept_by_copies()}
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

    def _decoding(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """Merge the options of the instance with those of a call, in the engine's names.

        Raises:
            ConfigError: An option that does not exist.
        """
        given = {name: value for name, value in call.items() if value is not None}
        for name in sorted(given.keys() - set(OPTIONS)):
            raise ConfigError(f"unknown option {name!r}; a call takes: {', '.join(OPTIONS)}")
        merged = {**{name: getattr(self, name) for name in OPTIONS}, **given}
        merged["max_new_tokens"] = merged.pop("max_tokens")
        return {name: value for name, value in merged.items() if value is not None}

    def _reply(
        self,
        messages: Sequence[Message],
        options: Mapping[str, Any],
        on_progress: ProgressCallback,
        *,
        model: str | None = None,
    ) -> Reply:
        """Begin an answer about the instance's documents; `options` come from `_decoding`."""
        self._check_texts(self.documents)
        return Reply(
            self._engine(model),
            messages,
            documents=self.documents,
            options=options,
            on_progress=on_progress,
        )

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


def _model_name(model: str | os.PathLike[str] | None, engine: object | None) -> str:
    """Name the model: the one given, the engine's, or the default."""
    if model is None and engine is not None:
        # In-memory weights have no name; cached and traced answers must still be told apart.
        return f"{type(engine).__name__}-{id(engine):x}"
    return os.fspath(default_model() if model is None else model)
