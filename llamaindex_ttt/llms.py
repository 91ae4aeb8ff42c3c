"""TTTLLM: LlamaIndex's LLM interface on a TTTEngine. Translates, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.prompts import BasePromptTemplate
from pydantic import Field
from typing_extensions import Self

from llamaindex_ttt import prompts
from llamaindex_ttt.answers import GrowingAnswer, tool_selections
from llamaindex_ttt.calls import chat_events, completion_events
from llamaindex_ttt.copies import SharesCallbacks
from llamaindex_ttt.documents import DocumentLike, to_documents
from llamaindex_ttt.errors import ShowsErrors
from llamaindex_ttt.events import AdaptationEvents
from llamaindex_ttt.messages import to_messages
from llamaindex_ttt.structured import StructuredPrediction
from llamaindex_ttt.tokenizer import ModelTokenizer
from ttt_core import ConfigError
from ttt_core.config import DEFAULT_ANSWER_TOKENS
from ttt_core.integration import EngineMixin, in_thread
from ttt_core.integration.choice import tool_choice_of
from ttt_core.integration.progress_line import ProgressLine
from ttt_core.progress import ProgressCallback, ignore_progress

if TYPE_CHECKING:
    from llama_index.core.tools.types import BaseTool

    from ttt_core import AdaptedDocument
    from ttt_core.chat import Message

R = TypeVar("R")


class TTTLLM(
    EngineMixin[DocumentLike],
    StructuredPrediction,
    ShowsErrors,
    SharesCallbacks,
    FunctionCallingLLM,
):
    """A local LLM that reads documents once and adapts to them.

    Constructing one is free: weights load at the first call and are shared by all objects of the
    process that name the same model. Documents are read (and adapted to) at the first question
    about them, unless `adapt` did so before.

    Example:
        >>> llm = TTTLLM(model="Qwen/Qwen3-4B")
        >>> doc_llm = llm.for_documents(SimpleDirectoryReader("data").load_data())
        >>> doc_llm.complete("What did the auditor object to?").text

    What a question is about is found in this order: `documents=` or `adapter=` (what `adapt`
    returned, or its id) of the call; documents in the messages, that is `DocumentBlock`s,
    `CitableBlock`s and text before a `CachePoint`; the documents of the instance; and what query
    and chat engines hand over as `context_str`. That is read as a document if it holds documents
    that were named before (`adapt`, `TTTDocumentPostprocessor`), or is long: then it is adapted to
    when it comes again. `raw["ttt"]` says which it was, what was done and what it cost.

    Tool calls, `tool_choice` and structured output are enforced token by token.

    Unknown arguments are errors. The core's errors come as they are; from the `predict` family its
    ValueErrors and TypeErrors come as `PredictionError`, since LlamaIndex's synthesizers take them
    for empty answers; so does what your own validators say of an object.

    Args:
        model: A local folder or a Hub id; None: `$TTT_MODEL`, or the bundled toy model. `revision`,
            `dtype` and `device` go with it.
        engine: A ready `TTTEngine` instead; it takes the settings of adaptation, memory and store.
        temperature: 0 decodes greedily. Further: `max_tokens`, `stop`, `top_p`, `top_k`, `min_p`,
            `repetition_penalty`, `seed`, `logprobs`, `top_logprobs`, `enable_thinking`,
            `thinking_budget`. All can be given to a call, too.
        timeout: Seconds for a whole answer, reading and adapting included.
        max_retries: How often to begin again when memory is full or the store cannot be read.
        documents: What every question is about; see `for_documents`.
        documents_from: `marked` (all of the above); `auto`, also long texts in prompts that were
            asked about before; `off`, only call and instance.
        min_document_tokens: What is shorter, and only found or marked, is answered in-context.
        passage_arguments: Arguments of prompts that hold what the question is about.
        context_window: Tokens to plan prompts with; None: the model's window.
        trim_history: Leave out the oldest turns of a conversation that does not fit.
        show_progress: Show loading, reading and training as one line on the terminal.
        system_prompt: Of the `predict` family, as in LlamaIndex; it is told behind documents.
        namespace: Whose documents these are; with `namespace_secret` nobody else can tell which.
    """

    context_window: int | None = Field(default=None, gt=0)
    """Tokens to plan prompts with; None: the model's window."""
    show_progress: bool = False
    """Show loading, reading and training as one line on the terminal."""
    trim_history: bool = True
    """Leave out the oldest turns of a conversation that does not fit the window; documents and the
    last question never, and room for the answer stays: `max_tokens`, or 256 (or half the window).
    LlamaIndex's memories are as long as `context_window` says, and nothing of it is left beside a
    document."""
    passage_arguments: tuple[str, ...] = ("context_str", "context_msg")
    """Arguments of prompts that hold what the question is about."""

    _to_documents = staticmethod(to_documents)

    @classmethod
    def _drops(cls, name: str, value: Any) -> bool:
        # LlamaIndex itself passes callback_manager=None in places, and pydantic refuses it.
        return name == "callback_manager" and value is None

    def _trims_history(self) -> bool:
        return self.trim_history

    def _kept_by_copies(self) -> Iterable[str]:
        # Unset ones too: handlers are added to the default callback manager.
        return type(self).model_fields

    @classmethod
    def class_name(cls) -> str:
        """Name in payloads and serialised forms."""
        return "TTTLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex plans prompts with.

        The window is the whole one, also where the instance has documents: query engines cut what
        they hand over to what it leaves, and pieces that were cut to fit beside a document would
        not be recognised as that document. Loads the model where its window is not known without.
        """
        window = self.context_window or self._known_window() or self._engine().window
        wanted = self.max_tokens or min(DEFAULT_ANSWER_TOKENS, window // 4)
        return LLMMetadata(
            context_window=window,
            num_output=min(wanted, window // 2),  # Prompt helpers refuse what leaves no room.
            is_chat_model=True,
            is_function_calling_model=True,
            model_name=self.model,
        )

    @property
    def tokenizer(self) -> Callable[[str], list[int]]:
        """The model's tokenizer, for `Settings.tokenizer`; the model loads at its first call.

        LlamaIndex counts with another model's otherwise, and cuts prompts too late or too early.
        What holds it can be pickled; unpickled, it counts with the settings' tokenizer again.
        """
        return ModelTokenizer(self._token_ids)

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

    def adapt(
        self,
        documents: DocumentLike | Sequence[DocumentLike] | None = None,
        *,
        system: str | None = None,
        on_progress: ProgressCallback = ignore_progress,
    ) -> AdaptedDocument:
        """Read documents and adapt to them now, so that the first question need not wait.

        Query and chat engines then find them in what they retrieved. See `EngineMixin.adapt`.
        """
        with self._events(on_progress) as events:
            adapted = super().adapt(documents, system=system, on_progress=events.progress)
            events.end(adapted)
        return adapted

    def __getstate__(self) -> dict[Any, Any]:
        """Leave a ready engine behind: LlamaIndex pickles every attribute just to try."""
        light = self.model_copy(update={"engine": None}) if self.engine is not None else self
        return super(TTTLLM, light).__getstate__()

    @chat_events
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer the last turn of a conversation; options of the call override the instance's."""
        return self._whole(to_messages(messages), kwargs).chat()

    @chat_events
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer piece by piece; see `chat`. Closing the generator stops the work."""
        steps = self._steps(to_messages(messages), self._checked(kwargs))
        return (answer.chat() for answer in steps)

    @chat_events
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer beside the event loop; see `chat`. Cancelling the task stops the work."""
        return (await self._awhole(to_messages(messages), kwargs)).chat()

    @chat_events
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """Answer piece by piece beside the event loop; see `chat`."""
        steps = self._asteps(to_messages(messages), self._checked(kwargs))
        return _each(steps, GrowingAnswer.chat)

    @completion_events
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt as a user's message; options of the call override the instance's."""
        return self._whole(self._turn(prompt, formatted), kwargs).completion()

    @completion_events
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """Answer piece by piece; see `complete`. Closing the generator stops the work."""
        steps = self._steps(self._turn(prompt, formatted), self._checked(kwargs))
        return (answer.completion() for answer in steps)

    @completion_events
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """Answer beside the event loop; see `complete`. Cancelling the task stops the work."""
        return (await self._awhole(self._turn(prompt, formatted), kwargs)).completion()

    @completion_events
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Answer piece by piece beside the event loop; see `complete`."""
        steps = self._asteps(self._turn(prompt, formatted), self._checked(kwargs))
        return _each(steps, GrowingAnswer.completion)

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Return the calls of an answer; of one that is still growing, as far as they go.

        Raises:
            ValueError: There is none, if that is to be an error.
        """
        selections = tool_selections(response.message)
        if not selections and error_on_no_tool_call:
            raise ValueError(
                "expected at least one tool call, found none; see raw['finish_reason']"
            )
        return selections

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = list(chat_history or ())
        if isinstance(user_msg, str):
            user_msg = ChatMessage(role=MessageRole.USER, content=user_msg)
        if user_msg is not None:
            messages.append(user_msg)
        choice = tool_choice_of(kwargs.pop("tool_choice", None))
        if not tools:
            return {"messages": messages, **kwargs}
        return {
            "messages": messages,
            "tools": [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools],
            "tool_choice": choice or ("required" if tool_required else None),
            "parallel_tool_calls": allow_parallel_tool_calls,
            **kwargs,
        }

    def _get_messages(self, prompt: BasePromptTemplate, **prompt_args: Any) -> list[ChatMessage]:
        """Format a prompt for the `predict` family, and note where its passages stand."""
        arguments = prompts.without_lists(prompt, prompt_args, self.passage_arguments)
        messages = prompt.format_messages(llm=self, **arguments)
        if self.output_parser is not None:
            messages = self.output_parser.format_messages(messages)
        passages = prompts.passages(prompt, arguments, self.passage_arguments)
        return self._extend_messages(prompts.note(messages, passages))

    def _extend_messages(self, messages: list[ChatMessage]) -> list[ChatMessage]:
        """Put the system prompt first, as part of the template: it is told behind documents."""
        extended = super()._extend_messages(messages)
        own = len(extended) - len(messages)
        return [*prompts.note(extended[:own]), *messages]

    def _events(self, on_progress: ProgressCallback) -> AdaptationEvents:
        line = ProgressLine() if self.show_progress else None
        return AdaptationEvents(self.model, on_progress, line=line)

    def _turn(self, prompt: str, formatted: bool) -> list[Message]:
        if self.completion_to_prompt is not None and not formatted:
            prompt = self.completion_to_prompt(prompt)
        if not isinstance(prompt, str):
            raise ConfigError(f"expected the prompt as text, found {type(prompt).__name__}")
        return [{"role": "user", "content": prompt}]

    def _checked(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse unknown options at the call, and not only where its first piece is asked for."""
        if call.get("n") not in (None, 1):
            raise ConfigError("TTTLLM gives one answer a call; ask n times, or use TTTEngine")
        self._check_call(call)
        return dict(call)

    def _whole(self, messages: Sequence[Message], call: Mapping[str, Any]) -> GrowingAnswer:
        *_, answer = self._steps(messages, self._checked(call))
        answer.whole()
        return answer

    async def _awhole(self, messages: Sequence[Message], call: Mapping[str, Any]) -> GrowingAnswer:
        async with aclosing(self._asteps(messages, self._checked(call))) as steps:
            async for step in steps:
                answer = step
        answer.whole()
        return answer

    def _asteps(
        self, messages: Sequence[Message], options: Mapping[str, Any]
    ) -> AsyncGenerator[GrowingAnswer, None]:
        return in_thread(lambda progress: self._steps(messages, options, progress))

    def _steps(
        self,
        messages: Sequence[Message],
        options: Mapping[str, Any],
        on_progress: ProgressCallback = ignore_progress,
    ) -> Generator[GrowingAnswer, None, None]:
        """Answer: the same object at each step, and once more in the end."""
        growing = GrowingAnswer()
        with self._events(on_progress) as events:
            reply = self._reply(messages, options, events.progress)
            try:
                with closing(reply.pieces()) as pieces:
                    for _, piece in pieces:
                        events.end(reply.adapted)
                        growing.add(piece)
                        yield growing
            finally:
                events.end(reply.adapted)  # It may be there though no answer followed.
        growing.finish(reply, options.get("model") or self.model)
        yield growing


async def _each(
    steps: AsyncGenerator[GrowingAnswer, None], form: Callable[[GrowingAnswer], R]
) -> AsyncGenerator[R, None]:
    """Translate the steps of an answer; closing stops the work."""
    async with aclosing(steps):
        async for answer in steps:
            yield form(answer)
