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
from typing_extensions import Self

from llamaindex_ttt.messages import DocumentLike, Piece, figures, to_documents, to_messages
from ttt_core import ConfigError
from ttt_core.integration import EngineOptions, in_thread
from ttt_core.progress import ProgressCallback, ignore_progress

if TYPE_CHECKING:
    from ttt_core.chat import Message

F = TypeVar("F", bound=Callable[..., Any])

# The decorators fire LlamaIndex's events. They belong on the eight public methods only: a public
# method that called another would report every call twice.
_chat_events = cast("Callable[[F], F]", llm_chat_callback())
_completion_events = cast("Callable[[F], F]", llm_completion_callback())


class TTTLLM(EngineOptions[DocumentLike], LLM):
    """A local LLM that reads documents once and adapts to them.

    Constructing one is free: weights load at the first call and are shared by all objects of the
    process that name the same model. Documents are read (and adapted to) at the first question
    about them, unless `adapt` did so before.

    Example:
        >>> llm = TTTLLM(model="Qwen/Qwen3-4B")
        >>> doc_llm = llm.for_documents(SimpleDirectoryReader("data").load_data())
        >>> doc_llm.complete("What did the auditor object to?").text
    """

    context_window: int | None = None
    """Tokens to plan with; None: the model's window. Documents are subtracted either way."""

    _to_documents = staticmethod(to_documents)

    @classmethod
    def _drops(cls, name: str, value: Any) -> bool:
        # LlamaIndex itself passes callback_manager=None in places, and pydantic refuses it.
        return name == "callback_manager" and value is None

    def _default_system(self) -> str | None:
        return self.system_prompt

    def _kept_by_copies(self) -> Iterable[str]:
        # Unset ones too: handlers are added to the default callback manager.
        return type(self).model_fields

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
        names = ("model", "temperature", "max_tokens", "stop", "document_ids", "namespace")
        return {"class_name": self.class_name(), **self.model_dump(include=set(names))}

    def for_documents(self, documents: DocumentLike | Sequence[DocumentLike]) -> Self:
        """Return an LLM about `documents` (read as one) that shares everything else.

        Raises:
            DocumentError: There is no document, or one is empty.
        """
        return self._about(documents)

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

    def _pieces(
        self, messages: Sequence[Message], call: Mapping[str, Any]
    ) -> Generator[Piece, None, None]:
        return self._work(messages, self._checked(call))

    async def _alast(self, messages: Sequence[Message], call: Mapping[str, Any]) -> Piece:
        async with aclosing(self._apieces(messages, call)) as pieces:
            async for piece in pieces:
                last = piece
        return last._replace(delta=None)

    def _apieces(
        self, messages: Sequence[Message], call: Mapping[str, Any]
    ) -> AsyncGenerator[Piece, None]:
        options = self._checked(call)
        return in_thread(lambda progress: self._work(messages, options, progress))

    def _checked(self, call: Mapping[str, Any]) -> Mapping[str, Any]:
        """Refuse unknown options at the call, and not only where its first piece is asked for."""
        if call.get("tools"):
            raise ConfigError("TTTLLM calls no tools yet: unknown option 'tools'")
        self._check_call(call)
        return call

    def _work(
        self,
        messages: Sequence[Message],
        call: Mapping[str, Any],
        on_progress: ProgressCallback = ignore_progress,
    ) -> Generator[Piece, None, None]:
        reply = self._reply(messages, call, on_progress)
        text = ""
        with closing(reply.deltas()) as deltas:
            for delta in deltas:
                text += delta
                yield Piece(text, delta)
        yield Piece(text, "", figures(reply, self.model))


def _last(pieces: Iterable[Piece]) -> Piece:
    return deque(pieces, maxlen=1).pop()._replace(delta=None)
