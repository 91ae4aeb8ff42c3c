"""Structured prediction: the schema of a class is enforced token by token, in all four methods.

LlamaIndex's own programs ask for a tool call, or for JSON in words, and read what comes. Here
nothing else can come, streams show what was said so far, and `system_prompt` is never dropped.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any, cast

from llama_index.core.base.llms.generic_utils import (
    chat_response_to_completion_response,
    prompt_to_messages,
)
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
from llama_index.core.llms.llm import LLM, dispatcher
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.program.utils import FlexibleModel
from llama_index.core.prompts import BasePromptTemplate, ChatPromptTemplate, PromptTemplate
from llama_index.core.prompts.base import SelectorPromptTemplate
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel, SerializeAsAny, model_validator
from typing_extensions import Self

from llamaindex_ttt.copies import SharesCallbacks
from llamaindex_ttt.errors import ShowsErrors, shown, shown_stream
from llamaindex_ttt.objects import Model, ObjectReader, Said


class StructuredPrediction(LLM):
    """An LLM whose `chat` methods take `response_format`; to inherit before LlamaIndex's class.

    Whoever sets `pydantic_program_mode` gets the program they chose, as LlamaIndex runs it.
    """

    @dispatcher.span
    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Answer a prompt with an object.

        A class whose fields all have defaults is asked for all of them: `{}` would be an answer,
        and says nothing. What a grammar cannot hold (a set's items differ) is checked at the end.

        Args:
            output_cls: A Pydantic class.
            prompt: Its output parser is left out: it would ask for another form.
            llm_kwargs: Options of `chat`; those for tools are ignored.
            prompt_args: What the prompt is formatted with.

        Raises:
            PredictionError: No Pydantic class; a schema that cannot be enforced or does not fit
                into `max_tokens`; options that contradict it; an answer that was cut off; or one
                that a validator of the class refused: then `__cause__` is the ValidationError,
                whose message leaves out the values.
        """
        if not self._enforces:
            with shown():
                chosen = super().structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            return cast("Model", chosen)
        with shown():
            reader = ObjectReader(output_cls, prompt, prompt_args)
            return self._read(reader, self._without_parsers(prompt, prompt_args), llm_kwargs).value

    @dispatcher.span
    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Answer beside the event loop; see `structured_predict`. Cancelling stops the work."""
        if not self._enforces:
            chosen = super().astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            with shown():
                return cast("Model", await chosen)
        with shown():
            reader = ObjectReader(output_cls, prompt, prompt_args)
            messages = self._without_parsers(prompt, prompt_args)
            return (await self._aread(reader, messages, llm_kwargs)).value

    @dispatcher.span
    def stream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Model | FlexibleModel, None, None]:
        """Answer with an object as it grows; see `structured_predict`. Closing stops the work.

        Yields:
            Objects with the class's fields, not validated, where those that were not said yet are
            None and text may be cut; each says more than the one before. The last one alone is an
            `output_cls`, and is the whole answer.
        """
        if not self._enforces:
            with shown():
                yield from super().stream_structured_predict(
                    output_cls, prompt, llm_kwargs, **prompt_args
                )
            return
        with shown():
            reader = ObjectReader(output_cls, prompt, prompt_args)
            messages = self._without_parsers(prompt, prompt_args)
            with closing(self._read_stream(reader, messages, llm_kwargs)) as stream:
                for said in stream:
                    if said.is_new:
                        yield said.value

    @dispatcher.span
    async def astream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Model | FlexibleModel, None]:
        """Answer beside the event loop; see `stream_structured_predict`."""
        if not self._enforces:
            with shown():
                chosen = await super().astream_structured_predict(
                    output_cls, prompt, llm_kwargs, **prompt_args
                )
            return shown_stream(chosen)

        async def objects() -> AsyncGenerator[Model | FlexibleModel, None]:
            reader = ObjectReader(output_cls, prompt, prompt_args)
            messages = self._without_parsers(prompt, prompt_args)
            async with aclosing(self._aread_stream(reader, messages, llm_kwargs)) as stream:
                async for said in stream:
                    if said.is_new:
                        yield said.value

        return shown_stream(objects())

    def as_structured_llm(self, output_cls: type[BaseModel], **kwargs: Any) -> StructuredLLM:
        """Return an LLM all of whose answers are objects of a class, written as JSON."""
        if not self._enforces:
            return super().as_structured_llm(output_cls, **kwargs)
        return TTTStructuredLLM(llm=self, output_cls=output_cls, **kwargs)

    @property
    def _enforces(self) -> bool:
        return self.pydantic_program_mode == PydanticProgramMode.DEFAULT

    def _without_parsers(
        self, prompt: BasePromptTemplate, prompt_args: Mapping[str, Any]
    ) -> list[ChatMessage]:
        """Format a prompt, without what output parsers would write into it."""
        llm = self
        if self.output_parser is not None:
            llm = copy.copy(self)
            llm.output_parser = None
        while isinstance(prompt, SelectorPromptTemplate):
            prompt = prompt.select(self)
        if prompt.output_parser is not None:
            prompt = prompt.model_copy(update={"output_parser": None})
        return llm._get_messages(prompt, **prompt_args)

    def _read(
        self,
        reader: ObjectReader[Model],
        messages: Sequence[ChatMessage],
        llm_kwargs: Mapping[str, Any] | None,
    ) -> Said[Model]:
        return reader.whole(self.chat(messages, **reader.options(llm_kwargs)))

    async def _aread(
        self,
        reader: ObjectReader[Model],
        messages: Sequence[ChatMessage],
        llm_kwargs: Mapping[str, Any] | None,
    ) -> Said[Model]:
        return reader.whole(await self.achat(messages, **reader.options(llm_kwargs)))

    def _read_stream(
        self,
        reader: ObjectReader[Model],
        messages: Sequence[ChatMessage],
        llm_kwargs: Mapping[str, Any] | None,
    ) -> Generator[Said[Model] | Said[FlexibleModel], None, None]:
        last = ChatResponse(message=ChatMessage(role="assistant"))
        with closing(self.stream_chat(messages, **reader.options(llm_kwargs))) as responses:
            for last in responses:
                yield reader.part(last)
        yield reader.whole(last, streamed=True)

    async def _aread_stream(
        self,
        reader: ObjectReader[Model],
        messages: Sequence[ChatMessage],
        llm_kwargs: Mapping[str, Any] | None,
    ) -> AsyncGenerator[Said[Model] | Said[FlexibleModel], None]:
        last = ChatResponse(message=ChatMessage(role="assistant"))
        stream = await self.astream_chat(messages, **reader.options(llm_kwargs))
        async with aclosing(stream) as responses:
            async for last in responses:
                yield reader.part(last)
        yield reader.whole(last, streamed=True)


class TTTStructuredLLM(ShowsErrors, SharesCallbacks, StructuredLLM):
    """An LLM all of whose answers are objects of one class, written as JSON.

    Beyond LlamaIndex's own: the passages of a prompt stay known to the LLM inside, every method
    streams, text comes with deltas, and a call is one event, the inner one's, with its usage.
    `raw` is the object; in streams, what is known of it so far.
    """

    llm: SerializeAsAny[StructuredPrediction]

    @model_validator(mode="after")
    def _share_callbacks(self) -> Self:
        if "callback_manager" not in self.model_fields_set:
            self.callback_manager = self.llm.callback_manager
        return self

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex plans with: an answer is an object, and never a call of a tool."""
        return self.llm.metadata.model_copy(update={"is_function_calling_model": False})

    def to_payload(self) -> dict[str, Any]:
        """What callbacks learn about this object: what they learn about the LLM, and the class."""
        own = {"class_name": self.class_name(), "output_cls": self.output_cls.__name__}
        return {**self.llm.to_payload(), **own}

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer with an object; options are those of the inner LLM's `chat`."""
        return self._inner()._read(*self._asked(messages), kwargs).as_chat()

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer beside the event loop; see `chat`. Cancelling the task stops the work."""
        return (await self._inner()._aread(*self._asked(messages), kwargs)).as_chat()

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer piece by piece; see `chat`. Closing the generator stops the work."""
        with closing(self._inner()._read_stream(*self._asked(messages), kwargs)) as stream:
            for said in stream:
                yield said.as_chat()

    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """Answer piece by piece beside the event loop; see `chat`."""

        async def responses() -> ChatResponseAsyncGen:
            stream = self._inner()._aread_stream(*self._asked(messages), kwargs)
            async with aclosing(stream):
                async for said in stream:
                    yield said.as_chat()

        return responses()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt as a user's message; see `chat`."""
        return _as_completion(self.chat(prompt_to_messages(prompt), **kwargs))

    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """Answer beside the event loop; see `complete`. Cancelling the task stops the work."""
        return _as_completion(await self.achat(prompt_to_messages(prompt), **kwargs))

    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """Answer piece by piece; see `complete`. Closing the generator stops the work."""
        with closing(self.stream_chat(prompt_to_messages(prompt), **kwargs)) as responses:
            for response in responses:
                yield _as_completion(response)

    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Answer piece by piece beside the event loop; see `complete`."""

        async def responses() -> CompletionResponseAsyncGen:
            stream = await self.astream_chat(prompt_to_messages(prompt), **kwargs)
            async with aclosing(stream):
                async for response in stream:
                    yield _as_completion(response)

        return responses()

    def _get_messages(self, prompt: BasePromptTemplate, **prompt_args: Any) -> list[ChatMessage]:
        messages = self.llm._without_parsers(prompt, prompt_args)
        # `_asked` puts the inner LLM's system prompt there, as LlamaIndex's programs do.
        return self._extend_messages(messages[len(self.llm._extend_messages([])) :])

    def _asked(
        self, messages: Sequence[ChatMessage]
    ) -> tuple[ObjectReader[BaseModel], list[ChatMessage]]:
        """What reads the answer, and the conversation as it is: it is formatted already."""
        template = ChatPromptTemplate(message_templates=messages)
        reader = ObjectReader(self.output_cls, template, {})
        return reader, self.llm._extend_messages(list(messages))

    def _inner(self) -> StructuredPrediction:
        """The LLM, but telling who listens here: LlamaIndex's settings change that at any time."""
        inner = copy.copy(self.llm)
        inner.callback_manager = self.callback_manager
        if limiter := getattr(self, "rate_limiter", None):  # LlamaIndex has had them since 0.14.15.
            inner.rate_limiter = limiter
        return inner


def _as_completion(response: ChatResponse) -> CompletionResponse:
    completion = chat_response_to_completion_response(response)
    completion.delta = response.delta
    return completion
