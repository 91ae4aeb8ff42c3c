"""ChatTTT: LangChain's chat model interface on a TTTEngine. Translates, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.language_models.chat_models import (
    agenerate_from_stream,
    generate_from_stream,
)
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, Field, field_validator, model_validator
from typing_extensions import Self

from langchain_ttt.errors import as_langchain_errors
from langchain_ttt.messages import DocumentLike, last_chunk, to_documents, to_messages
from ttt_core import Document, GenerationConfig, __version__
from ttt_core.document import as_document
from ttt_core.integration import (
    Reply,
    check_texts,
    decoding_options,
    document_ids,
    in_thread,
    settle_model,
)
from ttt_core.progress import ProgressCallback, ignore_progress

if TYPE_CHECKING:
    from ttt_core import AdaptedDocument, TTTEngine
else:
    TTTEngine = Any  # Pydantic asks for the name at run time; the class itself imports torch.

_REMOTE_OPTIONS = {"api_key", "timeout", "max_retries"}


class ChatTTT(BaseChatModel):
    """A local chat model that reads documents once and adapts to them.

    Constructing one is free: weights load at the first call and are shared by all objects of the
    process that name the same model. Documents are read (and adapted to) at the first question
    about them, unless `adapt` did so before.

    Example:
        >>> llm = ChatTTT(model="Qwen/Qwen3-4B")
        >>> doc_llm = llm.with_documents(docs)
        >>> doc_llm.invoke("What did the auditor object to?").text

    `api_key`, `timeout` and `max_retries` are accepted, so that the class can be swapped in, and
    dropped: nothing here is remote. Other unknown arguments are errors.
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
    streaming: bool = False
    """Stream even where the caller only invokes, for the sake of its callbacks."""
    documents: tuple[Document, ...] = Field(default=(), exclude=True, repr=False)
    """What every question is about. Never serialised, logged or traced."""
    document_ids: tuple[str, ...] = ()
    """Content hashes of `documents`: what is serialised, traced and part of LLM-cache keys."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _check_arguments(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in values.items() if name not in _REMOTE_OPTIONS}
        return settle_model(kept)

    @field_validator("documents", mode="before")
    @classmethod
    def _translate_documents(cls, documents: Any) -> tuple[Document, ...]:
        return to_documents(() if documents is None else documents)

    @model_validator(mode="after")
    def _check_and_identify(self) -> Self:
        GenerationConfig(**decoding_options(self, {}))
        if self.documents:
            self.document_ids = document_ids(self.documents)
        self._add_version("context-ttt", __version__)
        return self

    def with_documents(self, documents: DocumentLike | Sequence[DocumentLike]) -> Self:
        """Return a chat model about `documents` (read as one) that shares everything else.

        Raises:
            DocumentError: There is no document, or one is empty.
        """
        translated = to_documents(documents)
        as_document(translated)  # Checks: an empty list must not turn documents off.
        return self.model_copy(update={"documents": translated})

    def adapt(
        self,
        documents: DocumentLike | Sequence[DocumentLike] | None = None,
        *,
        system: str | None = None,
        on_progress: ProgressCallback = ignore_progress,
    ) -> AdaptedDocument:
        """Read documents and adapt to them now, so that the first question need not wait.

        Args:
            documents: None: the instance's own.
            system: The system message that questions will come with; it is read along.
            on_progress: Called along the way; an exception it raises cancels.
        """
        chosen = self.documents if documents is None else to_documents(documents)
        check_texts(chosen, self.document_ids)
        with as_langchain_errors():
            return self._engine().adapt(chosen, system=system, on_progress=on_progress)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy with changes, validated.

        Pydantic's own copy would keep the old `document_ids`, and LangChain's cached serialised
        form with them: the LLM cache would then answer with what it knows of the other document.
        All values are immutable or meant to be shared, so that `deep` makes no difference.
        """
        own = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**own, **(update or {})})

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Copy all but the engine."""
        return self.model_copy()

    def get_token_ids(self, text: str) -> list[int]:
        """Tokenise with the model's own tokenizer; loads the model."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        return list(self._engine().tokenizer(text, add_special_tokens=False)["input_ids"])

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Serialise all but engine and document texts."""
        return True

    @property
    def _llm_type(self) -> str:
        return "ttt"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        names = ("model", "revision", "dtype", "temperature", "max_tokens", "stop", "top_p",
                 "top_k", "min_p", "repetition_penalty", "seed")  # fmt: skip
        own = {name: getattr(self, name) for name in names}
        return {**own, "document_ids": list(self.document_ids)}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return super()._get_ls_params(stop=self.stop if stop is None else stop, **kwargs)

    def _engine(self, model: str | None = None) -> TTTEngine:
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

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._chunks(messages, stop, kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await agenerate_from_stream(self._astream(messages, stop, **kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        return self._chunks(messages, stop, kwargs)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        chunks = in_thread(lambda progress: self._chunks(messages, stop, kwargs, progress))
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    def _chunks(
        self,
        messages: Sequence[BaseMessage],
        stop: list[str] | None,
        call: Mapping[str, Any],
        on_progress: ProgressCallback = ignore_progress,
    ) -> Generator[ChatGenerationChunk, None, None]:
        options = {**call, "stop": stop}
        options.pop("stream", None)  # LangChain's own switch, which it leaves in.
        model = options.pop("model", None)
        check_texts(self.documents, self.document_ids)
        reply = Reply(
            self._engine(model),
            to_messages(messages),
            documents=self.documents,
            options=decoding_options(self, options),
            on_progress=on_progress,
        )
        with as_langchain_errors(), closing(reply.deltas()) as deltas:
            for delta in deltas:
                yield ChatGenerationChunk(message=AIMessageChunk(content=delta))
        yield ChatGenerationChunk(message=last_chunk(reply, model or self.model))
