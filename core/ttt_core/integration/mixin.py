"""What an integration object does with its options: adapts, answers and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Generic, cast

from ttt_core.chat import Message, PromptPrefix
from ttt_core.document import Document
from ttt_core.errors import ConfigError, DocumentError
from ttt_core.integration.documents import identify
from ttt_core.integration.options import OWN_OPTIONS, D, EngineOptions
from ttt_core.integration.prompt import text_of
from ttt_core.integration.ready_engine import check_loadable
from ttt_core.integration.registry import DocumentRegistry, registry_for
from ttt_core.integration.reply import Reply, run_in_thread
from ttt_core.integration.resolver import as_text, resolve
from ttt_core.integration.tenant import check_seal, make_namespace
from ttt_core.loading import peek_window
from ttt_core.progress import ProgressCallback, ignore_progress

if TYPE_CHECKING:
    from ttt_core import AdaptedDocument, TTTEngine


class EngineMixin(EngineOptions[D], Generic[D]):
    """An integration object's behaviour, to inherit before the framework's base class.

    What a framework sees differently is a hook: beside those of `EngineOptions`, `_errors` and
    `_trims_history` can be overridden.
    """

    @staticmethod
    def _errors() -> AbstractContextManager[None]:
        """Raise the core's errors as the framework's."""
        return nullcontext()

    def _trims_history(self) -> bool:
        """Whether conversations that do not fit the window lose their oldest turns."""
        return False

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

    def _reply(
        self,
        messages: Sequence[Message],
        call: Mapping[str, Any],
        on_progress: ProgressCallback = ignore_progress,
    ) -> Reply:
        """Begin to answer.

        Args:
            messages: Core messages; contents may be lists of `prompt`'s parts.
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
        options = self._check_call(call)
        return engine.count_prompt_tokens(as_text(messages), **options)

    def _token_ids(self, text: str) -> list[int]:
        """Tokenise with the model's own tokenizer; loads the model."""
        tokenizer = self._engine().tokenizer
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _known_window(self) -> int | None:
        """Return the model's window if that can be known without loading or fetching anything."""
        if self.engine is None:
            return peek_window(self.model, self.revision)
        peek = getattr(self.engine, "peek_window", None)
        return peek() if peek is not None else None

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

    def _without_texts(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the documents and the handle of a call by their ids, for traces and keys."""
        shown = dict(call)
        if shown.get("documents") is not None:
            shown["documents"] = list(identify(self._to_documents(shown["documents"])))
        if shown.get("adapter") is not None:
            shown["adapter"] = getattr(shown["adapter"], "id", shown["adapter"])
        return shown

    def _engine(self, model: str | None = None) -> TTTEngine:
        """Return the engine that answers, for the instance's namespace.

        Raises:
            ConfigError: The namespace's secret is missing, or a ready engine; see `check_seal` and
                `check_loadable`.
        """
        namespace = make_namespace(self.namespace, self.namespace_secret)
        check_seal(namespace, self.namespace_seal)
        engine = self._model_engine(model)
        return engine if namespace is None else engine.in_namespace(namespace)

    def _model_engine(self, model: str | None) -> TTTEngine:
        own = model is None or model == self.model
        if own and self.engine is not None:
            return self.engine
        check_loadable(model or self.model)
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


def _at_least(least: int, name: str, value: Any, *, most: int = 1 << 16) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{name} is a whole number from {least} to {most:,}, not {value!r}")
    return value
