"""ChatTTT: LangChain's chat model interface on a TTTEngine. Translates, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.language_models.chat_models import (
    agenerate_from_stream,
    generate_from_stream,
)
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, model_validator
from typing_extensions import Self

from langchain_ttt.errors import as_langchain_errors
from langchain_ttt.messages import DocumentLike, last_chunk, to_documents, to_messages
from ttt_core import __version__
from ttt_core.integration import EngineOptions, in_thread
from ttt_core.progress import ProgressCallback, ignore_progress

_REMOTE_OPTIONS = {"api_key", "timeout", "max_retries"}


class ChatTTT(EngineOptions[DocumentLike], BaseChatModel):
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

    streaming: bool = False
    """Stream even where the caller only invokes, for the sake of its callbacks."""

    model_config = ConfigDict(extra="forbid")  # LangChain's says "ignore", and the last base wins.

    _to_documents = staticmethod(to_documents)
    _errors = staticmethod(as_langchain_errors)

    @classmethod
    def _drops(cls, name: str, value: Any) -> bool:
        return name in _REMOTE_OPTIONS

    @model_validator(mode="after")
    def _name_version(self) -> Self:
        self._add_version("context-ttt", __version__)
        return self

    def with_documents(self, documents: DocumentLike | Sequence[DocumentLike]) -> Self:
        """Return a chat model about `documents` (read as one) that shares everything else.

        Raises:
            DocumentError: There is no document, or one is empty.
        """
        return self._about(documents)

    def get_token_ids(self, text: str) -> list[int]:
        """Tokenise with the model's own tokenizer; loads the model."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        return list(self._engine().tokenizer(text, add_special_tokens=False)["input_ids"])

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Serialise all but engine, document texts and the namespace's secret."""
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        """What a serialised object does not hold, and where its loader may find it."""
        return {"namespace_secret": "TTT_NAMESPACE_SECRET"}

    @property
    def _llm_type(self) -> str:
        return "ttt"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        names = ("model", "revision", "dtype", "temperature", "max_tokens", "stop", "top_p",
                 "top_k", "min_p", "repetition_penalty", "seed", "namespace",
                 "namespace_seal")  # fmt: skip
        own = {name: getattr(self, name) for name in names}
        return {**own, "document_ids": list(self.document_ids)}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return super()._get_ls_params(stop=self.stop if stop is None else stop, **kwargs)

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
        reply = self._reply(
            to_messages(messages), self._decoding(options), on_progress, model=model
        )
        with self._errors(), closing(reply.deltas()) as deltas:
            for delta in deltas:
                yield ChatGenerationChunk(message=AIMessageChunk(content=delta))
        yield ChatGenerationChunk(message=last_chunk(reply, model or self.model))
