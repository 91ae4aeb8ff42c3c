"""The options of an integration object: what can be set, and what is refused at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from typing_extensions import Self

from ttt_core.config import GenerationConfig
from ttt_core.document import Document, as_document
from ttt_core.errors import ConfigError
from ttt_core.integration.choice import tool_choice_of
from ttt_core.integration.documents import identify
from ttt_core.integration.ready_engine import check_engine, model_name
from ttt_core.integration.resolver import Mode
from ttt_core.integration.tenant import make_namespace, make_seal
from ttt_core.integration.unknown import say_unknown

if TYPE_CHECKING:
    from ttt_core import TTTEngine
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
    """The fields of an integration object: checked together, also in copies.

    `_to_documents` must be overridden; `_drops` and `_kept_by_copies` can be.
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
            raise ValueError(say_unknown(name, cls.model_fields))
        engine = kept.get("engine")
        check_engine(engine, kept)
        kept["engine_variant"] = getattr(engine, "variant", "")
        return {**kept, "model": model_name(kept.get("model"), engine)}

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

    def _about(self, documents: D | Sequence[D]) -> Self:
        """Copy, with `documents` in place of the instance's own."""
        translated = self._to_documents(documents)
        as_document(translated)  # Checks: an empty list must not turn documents off.
        return self.model_copy(update={"documents": translated})

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

    def _decoding(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """Merge the options of the instance with those of a call, in the engine's names.

        Raises:
            ConfigError: An option that does not exist.
        """
        given = {name: value for name, value in call.items() if value is not None}
        for name in sorted(given.keys() - set(CALL_OPTIONS)):
            raise ConfigError(say_unknown(name, (*CALL_OPTIONS, *OWN_OPTIONS)))
        merged = {**{name: getattr(self, name) for name in OPTIONS}, **given}
        merged["max_new_tokens"] = merged.pop("max_tokens")
        return {name: value for name, value in merged.items() if value is not None}

    def _check_call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """Return a call's decoding options merged with the instance's; see `_decoding`."""
        given = {name: value for name, value in call.items() if name not in OWN_OPTIONS}
        given["tool_choice"] = tool_choice_of(given.get("tool_choice"))
        options = self._decoding(given)
        if isinstance(options.get("stop"), str):
            options["stop"] = [options["stop"]]
        timeout = options.get("timeout")
        if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
            raise ConfigError(f"timeout is a number of seconds above zero, not {timeout!r}")
        return options
