"""TTTLLM: LlamaIndex's LLM interface on a TTTEngine. Translates, and nothing else."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, TypeVar, cast

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import LLM
from pydantic import ConfigDict, Field, field_validator, model_validator
from typing_extensions import Self

from llamaindex_ttt.messages import DocumentLike, Piece, figures, to_documents, to_messages
from ttt_core import Document, GenerationConfig
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
    from ttt_core.chat import Message
else:
    TTTEngine = Any  # Pydantic asks for the name at run time; the class itself imports torch.

F = TypeVar("F", bound=Callable[..., Any])

# The decorators fire LlamaIndex's events. They belong on the eight public methods only: a public
# method that called another would report every call twice.
_chat_events = cast("Callable[[F], F]", llm_chat_callback())
_completion_events = cast("Callable[[F], F]", llm_completion_callback())


class TTTLLM(LLM):
    """A local LLM that reads documents once and adapts to them.

    Constructing one is free: weights load at the first call and are shared by all objects of the
    process that name the same model. Documents are read (and adapted to) at the first question
    about them, unless `adapt` did so before.

    Example:
        >>> llm = TTTLLM(model="Qwen/Qwen3-4B")
        >>> doc_llm = llm.for_documents(SimpleDirectoryReader("data").load_data())
        >>> doc_llm.complete("What did the auditor object to?").text
    """

    model: str = ""
    """A local folder or a Hub id; None: `$TTT_MODEL`, or the bundled model."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    dtype: str = "auto"
    device: str = "auto"
    engine: TTTEngine | None = Field(default=None, exclude=True, repr=False)
    """A ready engine to use instead of loading `model`."""
    context_window: int | None = None
    """Tokens to plan with; None: the model's window. Documents are subtracted either way."""
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
    """What every question is about. Never serialised, logged or sent to callbacks."""
    document_ids: tuple[str, ...] = ()
    """Content hashes of `documents`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _check_arguments(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        # LlamaIndex itself passes callback_manager=None in places, and pydantic refuses it.
        return settle_model(
            {k: v for k, v in values.items() if (k, v) != ("callback_manager", None)}
        )

    @field_validator("documents", mode="before")
    @classmethod
    def _translate_documents(cls, documents: Any) -> tuple[Document, ...]:
        return to_documents(() if documents is None else documents)

    @model_validator(mode="after")
    def _check_and_identify(self) -> Self:
        GenerationConfig(**decoding_options(self, {}))
        if self.documents:
            self.document_ids = document_ids(self.documents)
        return self

    @classmethod
    def class_name(cls) -> str:
        """Name in payloads and serialised forms."""
        return "TTTLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex plans prompts with. Loads the model, unless `context_window` is given."""
        window = self.context_window or self._engine().window
        taken = sum(self._engine().count_tokens(document.text) for document in self.documents)
        return LLMMetadata(
            context_window=max(window - taken, 0),
            num_output=self.max_tokens or min(256, window // 4),
            is_chat_model=True,
            is_function_calling_model=False,
            model_name=self.model,
        )

    def to_payload(self) -> dict[str, Any]:
        """What callbacks learn about this object; unlike the default, it loads nothing."""
        names = ("model", "temperature", "max_tokens", "stop", "document_ids")
        return {"class_name": self.class_name(), **self.model_dump(include=set(names))}

    def for_documents(self, documents: DocumentLike | Sequence[DocumentLike]) -> Self:
        """Return an LLM about `documents` (read as one) that shares everything else.

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
            system: The system message that questions will come with, if not `system_prompt`;
                it is read along.
            on_progress: Called along the way; an exception it raises cancels.
        """
        chosen = self.documents if documents is None else to_documents(documents)
        check_texts(chosen, self.document_ids)
        system = self.system_prompt if system is None else system
        return self._engine().adapt(chosen, system=system, on_progress=on_progress)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy with changes, validated, so that `document_ids` stay those of the documents.

        All values are immutable or meant to be shared, so that `deep` makes no difference.
        """
        own = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**own, **(update or {})})

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Copy all but the engine."""
        return self.model_copy()

    def __getstate__(self) -> dict[Any, Any]:
        """Leave a ready engine behind: LlamaIndex pickles every attribute just to try."""
        light = self.model_copy(update={"engine": None}) if self.engine is not None else self
        return super(TTTLLM, light).__getstate__()

    @_chat_events
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer the last turn of a conversation; options of the call override the instance's."""
        return _last(self._pieces(to_messages(messages), kwargs)).as_chat()

    @_chat_events
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer piece by piece; see `chat`. Closing the generator stops the work."""
        pieces = self._pieces(to_messages(messages), kwargs)
        return (piece.as_chat() for piece in pieces)

    @_chat_events
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer beside the event loop; see `chat`. Cancelling the task stops the work."""
        return (await self._alast(to_messages(messages), kwargs)).as_chat()

    @_chat_events
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """Answer piece by piece beside the event loop; see `chat`."""
        pieces = self._apieces(to_messages(messages), kwargs)
        return (piece.as_chat() async for piece in pieces)

    @_completion_events
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt as a user's message; options of the call override the instance's."""
        return _last(self._pieces(self._turn(prompt, formatted), kwargs)).as_completion()

    @_completion_events
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """Answer piece by piece; see `complete`. Closing the generator stops the work."""
        pieces = self._pieces(self._turn(prompt, formatted), kwargs)
        return (piece.as_completion() for piece in pieces)

    @_completion_events
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """Answer beside the event loop; see `complete`. Cancelling the task stops the work."""
        return (await self._alast(self._turn(prompt, formatted), kwargs)).as_completion()

    @_completion_events
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Answer piece by piece beside the event loop; see `complete`."""
        pieces = self._apieces(self._turn(prompt, formatted), kwargs)
        return (piece.as_completion() async for piece in pieces)

    def _turn(self, prompt: str, formatted: bool) -> list[Message]:
        if self.completion_to_prompt is not None and not formatted:
            prompt = self.completion_to_prompt(prompt)
        return [{"role": "user", "content": prompt}]

    def _engine(self) -> TTTEngine:
        if self.engine is not None:
            return self.engine
        from ttt_core import shared_engine

        return shared_engine(
            self.model, revision=self.revision, dtype=self.dtype, device=self.device
        )

    def _pieces(
        self, messages: Sequence[Message], call: Mapping[str, Any]
    ) -> Generator[Piece, None, None]:
        return self._work(messages, decoding_options(self, call))

    async def _alast(self, messages: Sequence[Message], call: Mapping[str, Any]) -> Piece:
        async with aclosing(self._apieces(messages, call)) as pieces:
            async for piece in pieces:
                last = piece
        return last._replace(delta=None)

    def _apieces(
        self, messages: Sequence[Message], call: Mapping[str, Any]
    ) -> AsyncGenerator[Piece, None]:
        options = decoding_options(self, call)
        return in_thread(lambda progress: self._work(messages, options, progress))

    def _work(
        self,
        messages: Sequence[Message],
        options: Mapping[str, Any],
        on_progress: ProgressCallback = ignore_progress,
    ) -> Generator[Piece, None, None]:
        check_texts(self.documents, self.document_ids)
        reply = Reply(
            self._engine(),
            messages,
            documents=self.documents,
            options=options,
            on_progress=on_progress,
        )
        text = ""
        with closing(reply.deltas()) as deltas:
            for delta in deltas:
                text += delta
                yield Piece(text, delta)
        yield Piece(text, "", figures(reply, self.model))


def _last(pieces: Iterable[Piece]) -> Piece:
    return deque(pieces, maxlen=1).pop()._replace(delta=None)
