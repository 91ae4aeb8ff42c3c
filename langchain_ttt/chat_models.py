"""ChatTTT: LangChain's chat model interface on a TTTEngine. Translates, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import ConfigDict, Field, model_validator
from typing_extensions import Self

from langchain_ttt import structured
from langchain_ttt.answers import FIRST_CALL, as_chunk, as_message, last_chunk
from langchain_ttt.errors import as_langchain_errors
from langchain_ttt.events import AsyncProgressEvents, TellsRun, current_run, progress_events
from langchain_ttt.messages import DocumentLike, to_documents, to_messages
from ttt_core import __version__
from ttt_core.integration import EngineMixin, Reply, in_thread
from ttt_core.integration.choice import tool_choice_of
from ttt_core.progress import ProgressCallback
from ttt_core.tools import ToolCallDelta

Tools = Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool]


class ChatTTT(EngineMixin[DocumentLike], TellsRun):
    """A local chat model that reads documents once and adapts to them.

    Constructing one is free: weights load at the first call and are shared by all objects of the
    process that name the same model. Documents are read (and adapted to) at the first question
    about them, unless `adapt` did so before.

    Example:
        >>> llm = ChatTTT(model="Qwen/Qwen3-4B")
        >>> doc_llm = llm.with_documents(docs)
        >>> doc_llm.invoke("What did the auditor object to?").text

    What a question is about is found in this order: `documents=` or `adapter=` (what `adapt`
    returned, or its id) of the call; documents in the messages, that is content blocks of type
    `text-plain`, or text with `cache_control`; the documents of the instance; and, with
    `documents_from="auto"`, long texts in the prompt that were asked about before.
    `response_metadata["ttt"]` says which it was, what was done and what it cost.

    Tool calls, `tool_choice` and structured output are enforced token by token.

    `api_key` is accepted, so that the class can be swapped in, and dropped. Unknown arguments are
    errors.
    """

    streaming: bool = False
    """Stream even where the caller only invokes, for the sake of its callbacks."""
    n: int = Field(default=1, ge=1)
    """How many answers `generate` gives; a given seed is counted up from one to the next."""

    model_config = ConfigDict(extra="forbid")  # LangChain's says "ignore", and the last base wins.

    _to_documents = staticmethod(to_documents)
    _errors = staticmethod(as_langchain_errors)

    @classmethod
    def _drops(cls, name: str, value: Any) -> bool:
        return name == "api_key" or (name in ("max_retries", "n") and value is None)

    @model_validator(mode="after")
    def _name_version(self) -> Self:
        self._add_version("context-ttt", __version__)
        return self

    def with_documents(self, documents: DocumentLike | Sequence[DocumentLike]) -> Self:
        """Return a chat model about `documents` (read as one) that shares everything else.

        Raises:
            DocumentError: There is no document, or one is empty.
        """
        with self._errors():
            return self._about(documents)

    def bind(self, **kwargs: Any) -> Any:
        """Bind options of the call; `documents=` makes another `ChatTTT`, see `with_documents`.

        LangChain drops what was bound when `bind_tools` or `with_structured_output` follow, and
        shows it in traces and serialised forms.
        """
        documents = kwargs.get("documents")
        if not documents:
            return super().bind(**kwargs)
        del kwargs["documents"]
        return super(ChatTTT, self.with_documents(documents)).bind(**kwargs)

    def bind_tools(
        self,
        tools: Tools,
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the model call tools; what it writes as a call is valid, token by token.

        Args:
            tools: Anything that LangChain takes as a tool.
            tool_choice: `auto` (the model decides), `any`, `required` or True (some tool, in any
                case), `none`, or a tool's name.
            strict: Whether arguments that cannot be enforced are an error; else they are enforced
                as far as possible.
            parallel_tool_calls: Whether one answer may hold several calls; None: with `auto`.
            **kwargs: Options of the call.
        """
        options = {
            "tool_choice": tool_choice_of(tool_choice),
            "parallel_tool_calls": parallel_tool_calls,
            **kwargs,
        }
        bound: Runnable[LanguageModelInput, AIMessage] = self.bind(
            tools=[structured.as_tool(tool, strict=strict) for tool in tools],
            **{name: value for name, value in options.items() if value is not None},
        )
        return bound

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: structured.Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        tools: Tools | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a model whose answers are values of a schema, by construction.

        Args:
            schema: A Pydantic class, a TypedDict class, a JSON schema or an OpenAI function.
            method: `json_schema` (the answer's text), `function_calling` (a call of a tool that
                is the schema), or `json_mode` (the text; any object if there is no schema).
            include_raw: Return `{"raw": message, "parsed": value, "parsing_error": error}`.
            strict: False leaves out what of a schema cannot be enforced; else that is an error.
            tools: What the model may call instead of answering; with `include_raw`, calls are in
                the raw message.
            **kwargs: Options of the call.

        Raises:
            ConfigError: A method that does not exist, or no schema where one is needed.
        """
        with self._errors():
            structured.check_method(method, schema, tools)
        traced = {"ls_structured_output_format": {"kwargs": {"method": method}, "schema": schema}}
        if method == "function_calling":
            assert schema is not None
            with self._errors():
                structured.check_object(schema)
            name = structured.tool_name(schema)
            llm = self.bind_tools(
                [schema], tool_choice=name, strict=strict, parallel_tool_calls=False,
                **traced, **kwargs,
            )  # fmt: skip
            return structured.parsed(llm, structured.tools_parser(schema), include_raw=include_raw)
        with self._errors():
            format = structured.response_format(schema, strict=strict)
        options = {**(traced if schema else {}), **kwargs, "response_format": format}
        llm = self.bind_tools(tools, **options) if tools else self.bind(**options)
        parser = structured.text_parser(schema)
        reader = structured.unless_called(parser) if tools else parser
        return structured.parsed(llm, reader, include_raw=include_raw)

    def get_token_ids(self, text: str) -> list[int]:
        """Tokenise with the model's own tokenizer; loads the model."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        return self._token_ids(text)

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Tools | None = None
    ) -> int:
        """Number of tokens of a conversation in the model's chat format, tools included.

        That is `input_tokens` of an answer that reads no document apart; loads the model.
        """
        formatted = [structured.as_tool(tool) for tool in tools or ()]
        with self._errors():
            return self._count(to_messages(messages), {"tools": formatted})

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
        kept = set(type(self).model_fields) - set(BaseChatModel.model_fields) - _NOT_IDENTIFYING
        return self.model_dump(include=kept)

    def _resolve_model_profile(self) -> ModelProfile:
        window = self._known_window()
        return ModelProfile(
            open_weights=True,
            text_inputs=True,
            text_outputs=True,
            image_inputs=False,
            audio_inputs=False,
            video_inputs=False,
            tool_calling=True,
            tool_choice=True,
            tool_call_streaming=True,
            structured_output=True,
            temperature=True,
            **({"max_input_tokens": window} if window else {}),
        )

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return super()._get_ls_params(stop=self.stop if stop is None else stop, **kwargs)

    def _get_invocation_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        with self._errors():
            shown = self._without_texts(kwargs)
        return super()._get_invocation_params(stop=stop, **shown)

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        with self._errors():
            shown = self._without_texts(kwargs)
        return super()._get_llm_string(stop=stop, **shown)

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answer many prompts; those about the same document are decoded together.

        As many at once as the engine decodes together by default, unless `max_concurrency` says
        otherwise: LangChain's own default, a few more than there are processors, would leave the
        model waiting.
        """
        return super().batch(inputs, _all_at_once(config), **kwargs)

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answer many prompts beside the event loop; see `batch`."""
        return await super().abatch(inputs, _all_at_once(config), **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        *_, result = self._steps(messages, stop, kwargs, progress_events(run_manager))
        assert result is not None
        return result

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        events = AsyncProgressEvents(run_manager)
        steps = in_thread(
            lambda progress: self._steps(messages, stop, kwargs, progress), events.callback
        )
        result = None
        async with events, aclosing(steps):
            async for step in steps:  # Cancelled between any two of them.
                result = step
        assert result is not None
        return result

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        events = progress_events(run_manager or current_run())
        return self._chunks(messages, stop, kwargs, events)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        events = AsyncProgressEvents(run_manager or current_run())
        chunks = in_thread(
            lambda progress: self._chunks(messages, stop, kwargs, progress), events.callback
        )
        async with events, aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    def _steps(
        self,
        messages: Sequence[BaseMessage],
        stop: list[str] | None,
        call: Mapping[str, Any],
        on_progress: ProgressCallback,
    ) -> Generator[ChatResult | None, None, None]:
        """Answer; yield None at each step, and the result in the end."""
        with self._errors():
            reply = self._begin(messages, stop, {"n": self.n, **call}, on_progress)
            with closing(reply.pieces()) as pieces:
                for _ in pieces:
                    yield None
        name = call.get("model") or self.model
        made = [as_message(reply, answer, name) for answer in reply.answers]
        yield ChatResult(generations=[ChatGeneration(message=message) for message in made])

    def _chunks(
        self,
        messages: Sequence[BaseMessage],
        stop: list[str] | None,
        call: Mapping[str, Any],
        on_progress: ProgressCallback,
    ) -> Generator[ChatGenerationChunk, None, None]:
        with self._errors():
            reply = self._begin(messages, stop, {**call, "n": 1}, on_progress)
            calls: dict[str | None, int] = {}
            with closing(reply.pieces()) as pieces:
                for _, piece in pieces:
                    if isinstance(piece, ToolCallDelta) and piece.id:
                        calls[piece.id] = FIRST_CALL + piece.index
                    yield ChatGenerationChunk(message=as_chunk(piece))
        name = call.get("model") or self.model
        yield ChatGenerationChunk(message=last_chunk(reply, name, calls))

    def _begin(
        self,
        messages: Sequence[BaseMessage],
        stop: list[str] | None,
        call: Mapping[str, Any],
        on_progress: ProgressCallback,
    ) -> Reply:
        options = {**call, "stop": stop}
        options.pop("stream", None)  # LangChain's own switch, which it leaves in.
        return self._reply(to_messages(messages), options, on_progress)


_NOT_IDENTIFYING = {
    "engine", "documents", "namespace_secret", "streaming", "device", "timeout", "max_retries",
}  # fmt: skip
"""What changes neither answers nor what they are about, or must not be seen."""


_TOGETHER = 64
"""What `RuntimeConfig.max_batch_size` is by default."""


def _all_at_once(
    config: RunnableConfig | list[RunnableConfig] | None,
) -> RunnableConfig | list[RunnableConfig]:
    """Fill in how many of a batch are asked at once."""
    if isinstance(config, list):
        return [{"max_concurrency": _TOGETHER, **each} for each in config]
    return {"max_concurrency": _TOGETHER, **(config or {})}
