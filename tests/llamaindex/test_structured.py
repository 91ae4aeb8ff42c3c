"""Structured prediction: objects of any class, whole and as they grow, from all four methods."""

from __future__ import annotations

import asyncio
import copy
import enum
import json
import pickle
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core import Document, MockEmbedding, PromptTemplate, SummaryIndex, VectorStoreIndex
from llama_index.core.agent.utils import generate_structured_response
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.response.schema import PydanticResponse
from llama_index.core.callbacks import (
    CallbackManager,
    CBEventType,
    LlamaDebugHandler,
    TokenCountingHandler,
)
from llama_index.core.callbacks.schema import EventPayload
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    CustomLLM,
    LLMMetadata,
)
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.program.utils import FlexibleModel, create_list_model
from llama_index.core.prompts import ChatPromptTemplate, SelectorPromptTemplate
from llama_index.core.types import PydanticProgramMode
from llama_index_instrumentation import get_dispatcher
from pydantic import (
    AliasChoices,
    BaseModel,
    Field,
    RootModel,
    ValidationError,
    field_validator,
)

from llamaindex_ttt import TTTLLM, PredictionError
from llamaindex_ttt.structured import StructuredPrediction, TTTStructuredLLM
from llamaindex_ttt.unfinished import unfinished_object
from tests.conftest import build_model
from tests.scripted import Script, ScriptedModel, scripted_tokenizer
from ttt_core import TTTEngine, TTTError

ASK = PromptTemplate("Tell me about {topic}.")
OWLS = "\n".join(f"the owl number {number} lives in tree {number * 7 % 10}" for number in range(5))


SAID = '{"setup": "The owl", "rating": 7}'


class Joke(BaseModel):
    """A joke."""

    setup: str = Field(description="How it begins.", max_length=12)
    rating: int = Field(ge=0, le=9)


JOKE = Joke(setup="The owl", rating=7)


class Color(enum.Enum):
    RED = "red"
    GREEN = "gr\u00fcn"


class Inner(BaseModel):
    kind: Literal["a", "b", 3]
    share: float = Field(ge=0, le=1)


class Outer(BaseModel):
    """Much of what classes can say."""

    inner: Inner
    many: list[Inner] = Field(min_length=1, max_length=2)
    color: Color
    maybe: Inner | None = None
    tags: dict[str, bool] = Field(max_length=2)
    pair: tuple[int, bool]
    when: date


class Node(BaseModel):
    """A tree."""

    name: str = Field(max_length=4)
    children: list[Node] = Field(default=[], max_length=2)


class Defaults(BaseModel):
    name: str = Field(default="nobody", max_length=5)


class Aliased(BaseModel):
    first_name: str = Field(alias="firstName", max_length=5)
    age: int = Field(validation_alias=AliasChoices("years", "age"), ge=0, le=99)


class Different(BaseModel):
    numbers: set[int] = Field(max_length=3)


Numbers = RootModel[list[int]]

CLASSES: tuple[type[BaseModel], ...] = (
    *(Joke, Outer, Node, Defaults, Aliased, Different, Numbers),
    create_list_model(Joke),
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TTTEngine]:
    model = build_model("qwen3", max_position_embeddings=4096)
    store = tmp_path_factory.mktemp("structured")
    with TTTEngine(model, scripted_tokenizer(tools=True), store=store) as engine:
        yield engine


@pytest.fixture
def random_llm(engine: TTTEngine) -> TTTLLM:
    """Random weights: all sense in the answers comes from the grammar."""
    return TTTLLM(engine=engine, max_tokens=300, temperature=1.0, seed=0)


Make = Callable[..., TTTLLM]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    engines = []

    def make(script: Script | str, **options: Any) -> TTTLLM:
        tokenizer = scripted_tokenizer(tools=True)
        say = (lambda prompt: script) if isinstance(script, str) else script
        engine = TTTEngine(ScriptedModel(say, tokenizer), tokenizer, store=tmp_path / "store")
        engines.append(engine)
        return TTTLLM(engine=engine, **{"max_tokens": 150, **options})

    yield make
    for engine in engines:
        engine.close()


def heard(reply: str) -> tuple[Script, list[str]]:
    """A script that always says the same, and what it was asked."""
    prompts: list[str] = []

    def script(prompt: str) -> str:
        prompts.append(prompt)
        return reply

    return script, prompts


# The four methods: each gives all objects that come.


def whole(llm: Any, output_cls: Any, prompt: Any = ASK, **options: Any) -> list[Any]:
    return [llm.structured_predict(output_cls, prompt, options, topic="owls")]


def streamed(llm: Any, output_cls: Any, prompt: Any = ASK, **options: Any) -> list[Any]:
    return list(llm.stream_structured_predict(output_cls, prompt, options, topic="owls"))


def awhole(llm: Any, output_cls: Any, prompt: Any = ASK, **options: Any) -> list[Any]:
    return [asyncio.run(llm.astructured_predict(output_cls, prompt, options, topic="owls"))]


def astreamed(llm: Any, output_cls: Any, prompt: Any = ASK, **options: Any) -> list[Any]:
    async def collect() -> list[Any]:
        stream = await llm.astream_structured_predict(output_cls, prompt, options, topic="owls")
        return [one async for one in stream]

    return asyncio.run(collect())


ALL = pytest.mark.parametrize("predict", [whole, awhole, streamed, astreamed])
STREAMS = pytest.mark.parametrize("predict", [streamed, astreamed])


class Stub(StructuredPrediction, CustomLLM):
    """Says a text in pieces of three, and remembers how it was asked and whether it was closed."""

    text: str = SAID
    finish_reason: str = "stop"
    asked: list[tuple[Sequence[ChatMessage], dict[str, Any]]] = Field(default_factory=list)
    closed: list[bool] = Field(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=True)

    def complete(self, prompt: str, formatted: bool = False, **options: Any) -> CompletionResponse:
        raise NotImplementedError

    def stream_complete(self, prompt: str, formatted: bool = False, **options: Any) -> Any:
        raise NotImplementedError

    def responses(self, messages: Any, options: Any) -> Iterator[ChatResponse]:
        self.asked.append((messages, options))
        for end in range(3, max(len(self.text), 1) + 3, 3):
            message = ChatMessage(role="assistant", content=self.text[:end])
            raw = {"finish_reason": self.finish_reason}
            yield ChatResponse(message=message, delta=self.text[end - 3 : end], raw=raw)

    def chat(self, messages: Any, **options: Any) -> ChatResponse:
        return list(self.responses(messages, options))[-1]

    def stream_chat(self, messages: Any, **options: Any) -> Generator[ChatResponse, None, None]:
        try:
            yield from self.responses(messages, options)
        except GeneratorExit:
            self.closed.append(True)
            raise

    async def achat(self, messages: Any, **options: Any) -> ChatResponse:
        return self.chat(messages, **options)

    async def astream_chat(
        self, messages: Any, **options: Any
    ) -> AsyncGenerator[ChatResponse, None]:
        async def stream() -> AsyncGenerator[ChatResponse, None]:
            try:
                for response in self.responses(messages, options):
                    yield response
                    await asyncio.sleep(0)
            except (GeneratorExit, asyncio.CancelledError):
                self.closed.append(True)
                raise

        return stream()


# Any class


@pytest.mark.parametrize("output_cls", CLASSES, ids=lambda each: each.__name__)
def test_random_models_answer_in_form_whatever_the_seed(
    random_llm: TTTLLM, output_cls: type[BaseModel]
) -> None:
    for seed in range(2):
        (value,) = whole(random_llm, output_cls, seed=seed)
        assert isinstance(value, output_cls)
    *parts, last = streamed(random_llm, output_cls, seed=1)
    assert last == value
    assert all(isinstance(part, FlexibleModel) for part in parts)


@ALL
def test_what_the_model_says_is_read(make: Make, predict: Any) -> None:
    text = json.dumps({"setup": '\u68df "{x}"\\', "rating": 7}, ensure_ascii=False)
    assert predict(make(text), Joke)[-1] == Joke(setup='\u68df "{x}"\\', rating=7)


@ALL
def test_aliases(make: Make, predict: Any) -> None:
    objects = predict(make('{"firstName": "Ada", "years": 36}'), Aliased)
    assert (objects[-1].first_name, objects[-1].age) == ("Ada", 36)
    for part in objects[:-1]:
        assert part.model_fields_set <= {"first_name", "age"}


@ALL
def test_fields_with_defaults_are_asked_for_if_there_are_no_others(
    make: Make, predict: Any
) -> None:
    assert predict(make("{}"), Defaults)[-1].model_fields_set == {"name"}
    assert predict(make('{"name": "Ada"}'), Defaults)[-1].name == "Ada"
    jokes = predict(make('{"items": [' + SAID + "]}"), create_list_model(Joke))[-1]
    assert jokes.items == [JOKE]


def test_only_required_fields_must_be_said(make: Make) -> None:
    assert whole(make('{"name": "oak"}'), Node) == [Node(name="oak")]


@ALL
def test_sets_are_sets(make: Make, predict: Any) -> None:
    assert predict(make('{"numbers": [1, 2, 1]}'), Different)[-1].numbers == {1, 2}


@ALL
def test_the_schema_is_told_and_the_prompt_formatted(make: Make, predict: Any) -> None:
    script, prompts = heard(SAID)
    predict(make(script), Joke)
    assert "How it begins." in prompts[-1]
    assert "Tell me about owls." in prompts[-1]


# As they grow


@STREAMS
def test_streams_show_what_was_said_so_far(make: Make, predict: Any) -> None:
    *parts, last = predict(make(SAID), Joke)
    assert last == JOKE
    said = [part.setup for part in parts]
    assert said[-1] == "The owl"
    assert all(later.startswith(earlier) for earlier, later in pairwise(said))
    assert len(set(said)) > 3
    fields = [part.model_fields_set for part in parts]
    assert all(earlier <= later for earlier, later in pairwise(fields))
    assert parts[0].rating is None


@STREAMS
def test_lists_grow(make: Make, predict: Any) -> None:
    text = json.dumps({"items": [JOKE.model_dump()] * 3})
    *parts, last = predict(make(text, max_tokens=300), create_list_model(Joke))
    assert last.items == [JOKE] * 3
    lengths = [len(part.items) for part in parts]
    assert lengths == sorted(lengths)
    assert set(lengths) == {0, 1, 2, 3}


@STREAMS
def test_the_last_object_alone_is_of_the_class(make: Make, predict: Any) -> None:
    *parts, last = predict(make(SAID), Joke)
    assert isinstance(last, Joke)
    assert parts
    assert not any(isinstance(part, Joke) for part in parts)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def grew(before: Any, after: Any) -> bool:
    """Whether `after` says all that `before` says, in the same order."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = list(after)[: len(before)]
        return names == list(before) and all(grew(before[name], after[name]) for name in before)
    if isinstance(before, list) and isinstance(after, list):
        return len(before) <= len(after) and all(map(grew, before, after))
    if isinstance(before, str) and isinstance(after, str):
        return after.startswith(before)
    return type(before) is type(after) and before == after


@given(st.dictionaries(st.text(), JSON, max_size=4), st.booleans())
def test_parts_only_grow_wherever_text_is_cut(value: dict[str, Any], ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    parts = [unfinished_object(text[:end]) for end in range(len(text) + 1)]
    assert all(map(grew, parts, parts[1:]))
    assert parts[-1] == value


@given(st.text() | st.text('{}[]",:\\utrue0.-e '))
def test_what_cannot_be_read_yet_is_no_object(text: str) -> None:
    assert isinstance(unfinished_object(text), dict)


# Options, prompts and events


@ALL
def test_options_reach_the_model_and_those_for_tools_do_not(predict: Any) -> None:
    llm = Stub()
    given = {"temperature": 0.5, "tool_choice": "any", "tool_required": True,
             "allow_parallel_tool_calls": True}  # fmt: skip
    before = dict(given)
    assert predict(llm, Joke, **given)[-1] == JOKE
    ((_, options),) = llm.asked
    assert options.keys() == {"temperature", "response_format"}
    assert given == before


@ALL
@pytest.mark.parametrize("name", ["response_format", "tools"])
def test_options_that_contradict_the_class_are_refused(predict: Any, name: str) -> None:
    with pytest.raises(TTTError, match=name):
        predict(Stub(), Joke, **{name: [{"type": "text"}]})


@ALL
@pytest.mark.parametrize("output_cls", [str, list[int], dict, JOKE])
def test_what_is_no_class_of_pydantic_is_refused(predict: Any, output_cls: Any) -> None:
    with pytest.raises(TTTError, match="model with one field"):
        predict(Stub(), output_cls)


@ALL
def test_the_system_prompt_comes_once(make: Make, predict: Any) -> None:
    script, prompts = heard(SAID)
    predict(make(script, system_prompt="Be brief."), Joke)
    assert prompts[-1].count("Be brief.") == 1


def test_a_structured_llm_has_a_system_prompt_of_its_own(make: Make) -> None:
    script, prompts = heard(SAID)
    structured = make(script, system_prompt="Be brief.").as_structured_llm(Joke)
    structured.system_prompt = "Be funny."
    structured.predict(PromptTemplate("About owls."))
    assert [prompts[-1].count(told) for told in ("Be brief.", "Be funny.")] == [1, 1]


def selected(prompt: PromptTemplate) -> SelectorPromptTemplate:
    chat = ChatPromptTemplate([ChatMessage("Say all about {topic}.")])
    chat.output_parser = prompt.output_parser
    selector = SelectorPromptTemplate(prompt, [(lambda llm: llm.metadata.is_chat_model, chat)])
    selector.output_parser = prompt.output_parser
    return selector


@ALL
@pytest.mark.parametrize("make_prompt", [lambda prompt: prompt, selected])
def test_output_parsers_are_left_out_and_left_alone(
    make: Make, predict: Any, make_prompt: Any
) -> None:
    parser = PydanticOutputParser(Inner, pydantic_format_tmpl="FORMAT {schema}")
    prompt = make_prompt(PromptTemplate("About {topic}.", output_parser=parser))
    script, prompts = heard(SAID)
    llm = make(script, output_parser=parser)
    assert predict(llm, Joke, prompt)[-1] == JOKE
    assert "FORMAT" not in prompts[-1]
    assert "bout owls." in prompts[-1]
    assert (prompt.output_parser, llm.output_parser) == (parser, parser)


@ALL
def test_another_program_is_the_users_choice(make: Make, predict: Any) -> None:
    script, prompts = heard(SAID)
    llm = make(script, pydantic_program_mode=PydanticProgramMode.LLM)
    prompt = ASK.model_copy()  # LlamaIndex's program leaves its output parser there.
    found = predict(llm, Joke, prompt)[-1]
    assert (found.setup, found.rating) == ("The owl", 7)
    assert "Here's a JSON schema to follow" in prompts[-1]
    assert type(llm.as_structured_llm(Joke)) is not TTTStructuredLLM


class Events(BaseEventHandler):
    names: list[str] = Field(default_factory=list)

    def handle(self, event: Any, **_: Any) -> None:
        self.names.append(event.class_name())


@contextmanager
def listening(handler: BaseEventHandler) -> Iterator[None]:
    dispatcher = get_dispatcher()
    dispatcher.add_event_handler(handler)
    try:
        yield
    finally:
        dispatcher.event_handlers.remove(handler)


@ALL
def test_the_dispatcher_is_told_as_llamaindex_does(make: Make, predict: Any) -> None:
    events = Events()
    with listening(events):
        objects = predict(make(SAID), Joke)
    steps = [name for name in events.names if name.startswith("LLMStructuredPredict")]
    growing = len(objects) if len(objects) > 1 else 0
    assert steps == [
        "LLMStructuredPredictStartEvent",
        *["LLMStructuredPredictInProgressEvent"] * growing,
        "LLMStructuredPredictEndEvent",
    ]
    assert events.names.count("LLMChatStartEvent") == 1


# What cannot be


class Picky(BaseModel):
    setup: str
    rating: int

    @field_validator("setup")
    @classmethod
    def check(cls, value: str) -> str:
        raise ValueError("no such setup")


@ALL
def test_validators_of_the_class_have_the_last_word(predict: Any) -> None:
    with pytest.raises(PredictionError, match="no such setup") as caught:
        predict(Stub(), Picky)
    assert "The owl" not in str(caught.value)
    assert isinstance(caught.value.__cause__, ValidationError)
    (error,) = caught.value.__cause__.errors()
    assert (error["loc"], error["type"], error["input"]) == (("setup",), "value_error", "The owl")


@ALL
@pytest.mark.parametrize("end", [0, 1, 12, len(SAID) - 1])
def test_half_an_answer_is_an_error_that_says_so(predict: Any, end: int) -> None:
    with pytest.raises(TTTError, match=r"'length'.* cut off") as caught:
        predict(Stub(text=SAID[:end], finish_reason="length"), Joke)
    assert "owl" not in str(caught.value)


@ALL
def test_what_a_class_takes_at_least_must_fit_into_max_tokens(
    random_llm: TTTLLM, predict: Any
) -> None:
    with pytest.raises(TTTError, match="max_tokens"):
        predict(random_llm, Outer, max_tokens=9)


def test_closing_a_stream_stops_the_work() -> None:
    llm = Stub()
    stream = llm.stream_structured_predict(Joke, ASK, topic="owls")
    next(stream)
    stream.close()
    assert llm.closed == [True]
    responses = llm.as_structured_llm(Joke).stream_chat([ChatMessage("Go!")])
    next(responses)
    responses.close()
    assert llm.closed == [True, True]


@pytest.mark.parametrize("structured", [False, True])
def test_closing_or_cancelling_stops_the_work_beside_the_loop(structured: bool) -> None:
    async def open_stream(llm: Stub) -> AsyncGenerator[Any, None]:
        stream = await (
            llm.as_structured_llm(Joke).astream_complete("Go!")
            if structured
            else llm.astream_structured_predict(Joke, ASK, topic="owls")
        )
        await anext(stream)
        return stream

    async def close() -> Stub:
        llm = Stub()
        await (await open_stream(llm)).aclose()
        return llm

    async def cancel() -> Stub:
        llm = Stub(text=SAID + " " * 9999)

        async def consume() -> None:
            async for _ in await open_stream(llm):
                pass

        task = asyncio.create_task(consume())
        while not llm.asked:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return llm

    assert asyncio.run(close()).closed == [True]
    assert asyncio.run(cancel()).closed == [True]


# As an LLM


def chat(llm: Any) -> list[Any]:
    return [llm.chat([ChatMessage("Go!")])]


def complete(llm: Any) -> list[Any]:
    return [llm.complete("Go!")]


def stream_chat(llm: Any) -> list[Any]:
    return list(llm.stream_chat([ChatMessage("Go!")]))


def stream_complete(llm: Any) -> list[Any]:
    return list(llm.stream_complete("Go!"))


def achat(llm: Any) -> list[Any]:
    return [asyncio.run(llm.achat([ChatMessage("Go!")]))]


def acomplete(llm: Any) -> list[Any]:
    return [asyncio.run(llm.acomplete("Go!"))]


def astream_chat(llm: Any) -> list[Any]:
    async def collect() -> list[Any]:
        return [one async for one in await llm.astream_chat([ChatMessage("Go!")])]

    return asyncio.run(collect())


def astream_complete(llm: Any) -> list[Any]:
    async def collect() -> list[Any]:
        return [one async for one in await llm.astream_complete("Go!")]

    return asyncio.run(collect())


EIGHT = (chat, complete, stream_chat, stream_complete,
         achat, acomplete, astream_chat, astream_complete)  # fmt: skip


@pytest.mark.parametrize("ask", EIGHT)
def test_every_method_of_a_structured_llm(make: Make, ask: Any) -> None:
    responses = ask(make(SAID).as_structured_llm(Joke))
    texts = [getattr(one, "text", None) or one.message.content for one in responses]
    assert (texts[-1], responses[-1].raw) == (SAID, JOKE)
    if len(responses) > 1:
        assert "".join(one.delta for one in responses) == SAID
        assert all(later.startswith(said) for said, later in pairwise(texts))
        assert all(isinstance(one.raw, FlexibleModel) for one in responses[:-1])


@pytest.mark.parametrize("ask", [stream_chat, stream_complete, astream_chat, astream_complete])
def test_deltas_are_the_text_wherever_it_ends(ask: Any) -> None:
    responses = ask(Stub().as_structured_llm(Joke))  # Its last piece has text still.
    assert "".join(one.delta for one in responses) == SAID
    assert responses[-1].raw == JOKE


@pytest.mark.parametrize("ask", EIGHT)
def test_a_call_is_one_event_that_counts_what_was_used(make: Make, ask: Any) -> None:
    counter = TokenCountingHandler(tokenizer=lambda text: [0] * 1000)
    llm = make(SAID)
    structured = llm.as_structured_llm(Joke)
    structured.callback_manager = CallbackManager([counter])  # As `Settings.llm = ` does.
    ask(structured)
    (event,) = counter.llm_token_counts
    assert 0 < event.completion_token_count < 100
    assert llm.callback_manager is not structured.callback_manager


def test_callbacks_are_the_inner_ones_unless_others_are_set() -> None:
    llm = Stub(callback_manager=CallbackManager([]))
    assert llm.as_structured_llm(Joke).callback_manager is llm.callback_manager
    other = CallbackManager([])
    assert llm.as_structured_llm(Joke, callback_manager=other).callback_manager is other


@pytest.mark.parametrize("predict", ["chat", "predict", "stream", "apredict", "astream"])
def test_a_structured_llm_says_the_system_prompt_once(make: Make, predict: str) -> None:
    script, prompts = heard(SAID)
    structured = make(script, system_prompt="Be brief.").as_structured_llm(Joke)

    async def collect() -> str:
        return "".join([piece async for piece in await structured.astream(ASK, topic="owls")])

    said: Any
    if predict == "chat":
        said = structured.chat([ChatMessage("About owls.")]).message.content
    elif predict == "stream":
        said = "".join(structured.stream(ASK, topic="owls"))
    elif predict == "predict":
        said = structured.predict(ASK, topic="owls")
    else:
        said = asyncio.run(
            collect() if predict == "astream" else structured.apredict(ASK, topic="owls")
        )
    assert said == SAID
    assert prompts[-1].count("Be brief.") == 1
    assert "bout owls." in prompts[-1]


@given(st.text(st.sampled_from("{}x query_str%")))
def test_text_in_braces_stays_as_it_is(text: str) -> None:
    messages = [ChatMessage(f"{{topic}} {text} {{context_str}}"), ChatMessage(text)]
    llm = Stub()
    llm.as_structured_llm(Joke).chat(messages)
    ((asked, _),) = llm.asked
    assert list(asked) == messages


@pytest.mark.parametrize("document", [OWLS, "if (x) {query_str} {{y}} " + OWLS])
def test_passages_of_prompts_stay_known(make: Make, document: str) -> None:
    llm = make(SAID, min_document_tokens=10, documents_from="auto")
    template = ChatPromptTemplate(
        [
            ChatMessage(role="system", content="Answer from what you read."),
            ChatMessage("Here: {context_str}\n{query_str}"),
        ]
    )
    structured = llm.as_structured_llm(Joke)
    noted = structured._get_messages(template, context_str=document, query_str="Who?")
    plain = llm._get_messages(template, context_str=document, query_str="Who?")
    assert noted == plain
    (place,) = noted[1].additional_kwargs["ttt_passages"]
    assert noted[1].blocks[place[0]].text[place[1] : place[2]] == document
    stub = Stub()
    stub.as_structured_llm(Joke).chat(noted)
    assert list(stub.asked[0][0]) == noted


def test_what_a_structured_llm_tells_of_itself(make: Make) -> None:
    llm = make(SAID, namespace="a", namespace_secret="hidden words " * 2).for_documents(OWLS)
    payload = llm.as_structured_llm(Joke).to_payload()
    assert payload["class_name"] == "structured_llm"
    assert payload["output_cls"] == "Joke"
    assert payload["model"] == llm.model
    assert "hidden words" not in str(payload)
    assert "owl" not in str(payload)


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # Workflows look at every attribute of an agent.
)
def test_a_structured_llm_is_not_taken_for_one_that_calls_tools(make: Make) -> None:
    structured = make(SAID).as_structured_llm(Joke)
    own, inner = structured.metadata, structured.llm.metadata
    assert (own.is_function_calling_model, inner.is_function_calling_model) == (False, True)
    assert own.context_window == inner.context_window

    async def run() -> None:
        await FunctionAgent(llm=structured, tools=[lambda: "hoot"]).run("Go!")

    with pytest.raises(ValueError, match="must be a FunctionCallingLLM"):
        asyncio.run(run())


def test_copies_and_pickles(tmp_path: Path) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    debug.on_event_start(CBEventType.SYNTHESIZE, {EventPayload.RESPONSE: (_ for _ in "unread")})
    manager = CallbackManager([debug])
    structured = TTTLLM(model=str(tmp_path), callback_manager=manager).as_structured_llm(Joke)
    copied = copy.deepcopy(structured)
    assert copied.llm is not structured.llm
    assert copied.callback_manager is copied.llm.callback_manager is manager
    for twin in (copy.deepcopy(structured), pickle.loads(pickle.dumps(structured))):
        assert type(twin) is TTTStructuredLLM
        assert (twin.output_cls, twin.llm.to_payload()) == (Joke, structured.llm.to_payload())


# In LlamaIndex


NODES = [Document(text=OWLS, metadata={"file_path": "/secret/owls.txt"})]


def summary(**options: Any) -> Any:
    return SummaryIndex.from_documents(NODES).as_query_engine(**options)


def vectors(**options: Any) -> Any:
    index = VectorStoreIndex.from_documents(NODES, embed_model=MockEmbedding(8))
    return index.as_query_engine(**options)


@pytest.mark.parametrize("engine_of", [summary, vectors])
@pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize", "simple_summarize"])
def test_query_engines_answer_with_objects(make: Make, engine_of: Any, mode: str) -> None:
    script, prompts = heard(SAID)
    engine = engine_of(llm=make(script).as_structured_llm(Joke), response_mode=mode)
    for response in (engine.query("Who?"), asyncio.run(engine.aquery("Who?"))):
        assert isinstance(response, PydanticResponse)
        assert response.response == JOKE
        assert response.source_nodes
    assert "the owl number 3" in prompts[-1]


@pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize"])
def test_query_engines_with_an_output_class(make: Make, mode: str) -> None:
    engine = summary(llm=make(SAID), output_cls=Joke, response_mode=mode)
    for response in (engine.query("Who?"), asyncio.run(engine.aquery("Who?"))):
        answer = response.response
        assert (Joke.model_validate_json(answer) if isinstance(answer, str) else answer) == JOKE


def test_a_known_document_is_read_from_where_it_is(make: Make) -> None:
    llm = make(SAID, documents_from="auto", min_document_tokens=10)
    adapted = llm.adapt(OWLS)
    raws: list[Any] = []

    class Raws(BaseEventHandler):
        def handle(self, event: Any, **_: Any) -> None:
            raws.append(getattr(getattr(event, "response", None), "raw", None))

    with listening(Raws()):
        assert summary(llm=llm.as_structured_llm(Joke)).query("Who?").response == JOKE
    (told,) = [raw["ttt"] for raw in raws if isinstance(raw, dict) and "ttt" in raw]
    assert told["document_id"] == adapted.id


def test_chat_engines_stream_and_remember(make: Make) -> None:
    memory = ChatMemoryBuffer.from_defaults(token_limit=1000)
    llm = make(SAID).as_structured_llm(Joke)
    engine = SimpleChatEngine.from_defaults(llm=llm, memory=memory)
    assert "".join(engine.stream_chat("Go!").response_gen) == SAID
    assert [message.content for message in engine.chat_history] == ["Go!", SAID]


def test_agents_finish_with_objects(make: Make) -> None:
    found = asyncio.run(generate_structured_response([ChatMessage("Go!")], make(SAID), Joke))
    assert found == JOKE.model_dump()
