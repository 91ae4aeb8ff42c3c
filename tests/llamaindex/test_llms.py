"""TTTLLM says what the engine says, in LlamaIndex's terms. Random weights: texts are gibberish.

LlamaIndex has no suite for LLMs; every contract below is one that another local LLM breaks.
"""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import llama_index.core
import pytest
from llama_index.core import PromptTemplate, Settings
from llama_index.core.callbacks import (
    CallbackManager,
    CBEventType,
    LlamaDebugHandler,
    TokenCountingHandler,
)
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span import BaseSpan
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from llama_index.core.llms import ChatMessage, MessageRole, TextBlock
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import Document, NodeWithScore, TextNode
from pydantic import Field, ValidationError

import llamaindex_ttt
import ttt_core
from llamaindex_ttt import TTTLLM
from ttt_core import (
    AdaptationConfig,
    ConfigError,
    DocumentError,
    DocumentTooLongError,
    PromptTooLongError,
    TTTEngine,
)

OWLS = "\n".join(f"the owl number {number} lives in tree {number * 7 % 10}" for number in range(5))
FOXES = "\n".join(f"the fox number {number} eats {number * 3 % 10} eggs" for number in range(5))
QUESTION = "Where?"
CHAT = [ChatMessage(role="user", content=QUESTION)]
TOKENS = 6

RECIPE = AdaptationConfig(
    steps=2, learning_rate=0.01, gate=False, early_stopping=False, held_out=2, clozes_per_step=2,
    max_drift=1e9,
)  # fmt: skip
"""Always adapts, and so much that every document gives another answer."""


@pytest.fixture
def engine(model: Any, tokenizer: Any, tmp_path: Path) -> Iterator[TTTEngine]:
    with TTTEngine(model, tokenizer, adaptation=RECIPE, store=tmp_path / "store") as engine:
        yield engine


@pytest.fixture
def llm(engine: TTTEngine) -> TTTLLM:
    return TTTLLM(engine=engine, max_tokens=TOKENS)


@pytest.fixture
def owls(llm: TTTLLM) -> TTTLLM:
    return llm.for_documents(OWLS)


def expected(engine: TTTEngine, documents: Any = None, *, system: str | None = None) -> str:
    adapted = engine.adapt(documents, system=system) if documents else None
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": QUESTION})
    return engine.generate(adapted, messages, max_new_tokens=TOKENS).text


# The eight methods: each is called with an LLM and options, and gives all its responses.


def chat(llm: TTTLLM, **options: Any) -> Sequence[Any]:
    return [llm.chat(CHAT, **options)]


def complete(llm: TTTLLM, **options: Any) -> Sequence[Any]:
    return [llm.complete(QUESTION, **options)]


def stream_chat(llm: TTTLLM, **options: Any) -> Sequence[Any]:
    return list(llm.stream_chat(CHAT, **options))


def stream_complete(llm: TTTLLM, **options: Any) -> Sequence[Any]:
    return list(llm.stream_complete(QUESTION, **options))


def achat(llm: TTTLLM, **options: Any) -> Sequence[Any]:
    return [asyncio.run(llm.achat(CHAT, **options))]


def acomplete(llm: TTTLLM, **options: Any) -> Sequence[Any]:
    return [asyncio.run(llm.acomplete(QUESTION, **options))]


def astream_chat(llm: TTTLLM, **options: Any) -> Sequence[Any]:
    async def collect() -> Sequence[Any]:
        return [response async for response in await llm.astream_chat(CHAT, **options)]

    return asyncio.run(collect())


def astream_complete(llm: TTTLLM, **options: Any) -> Sequence[Any]:
    async def collect() -> Sequence[Any]:
        return [response async for response in await llm.astream_complete(QUESTION, **options)]

    return asyncio.run(collect())


WHOLE = [chat, complete, achat, acomplete]
STREAMED = [stream_chat, stream_complete, astream_chat, astream_complete]
Method = Callable[..., Sequence[Any]]


def text_of(response: Any) -> str:
    return response.message.content if hasattr(response, "message") else response.text


@pytest.mark.parametrize("method", WHOLE + STREAMED)
def test_answers_what_the_engine_answers(engine: TTTEngine, llm: TTTLLM, method: Method) -> None:
    assert text_of(method(llm)[-1]) == expected(engine)
    assert text_of(method(llm.for_documents(OWLS))[-1]) == expected(engine, OWLS)
    assert expected(engine) != expected(engine, OWLS) != expected(engine, FOXES)


@pytest.mark.parametrize("method", WHOLE + STREAMED)
def test_figures_are_the_engines_and_plain_json(
    engine: TTTEngine, owls: TTTLLM, method: Method
) -> None:
    raw = method(owls)[-1].raw
    adapted = engine.adapt(OWLS)
    answer = engine.generate(adapted, QUESTION, max_new_tokens=TOKENS)
    assert json.loads(json.dumps(raw)) == raw
    assert raw["model"] == owls.model
    assert raw["finish_reason"] == answer.finish_reason
    assert raw["usage"] == {
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
        "total_tokens": answer.usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},  # This call read the document.
    }
    assert raw["ttt"]["decision"] == "adapted"
    assert raw["ttt"]["source"] == "trained"
    assert raw["ttt"]["document_id"] == adapted.id
    assert raw["ttt"]["computed_tokens"] == answer.usage.computed_tokens + adapted.n_tokens
    assert "owl" not in json.dumps(raw)
    assert method(owls)[-1].raw["ttt"]["source"] == "memory"


@pytest.mark.parametrize("method", STREAMED)
def test_streams_give_new_text_and_text_so_far(
    engine: TTTEngine, owls: TTTLLM, method: Method
) -> None:
    responses = method(owls)
    assert len(responses) > 2
    so_far = ""
    for response in responses:
        assert isinstance(response.delta, str)
        so_far += response.delta
        assert text_of(response) == so_far
    assert so_far == expected(engine, OWLS)
    assert [response.raw is not None for response in responses].count(True) == 1
    assert responses[-1].raw is not None


@pytest.mark.parametrize("method", WHOLE + STREAMED)
def test_options_of_the_call_reach_the_engine(
    engine: TTTEngine, llm: TTTLLM, method: Method
) -> None:
    options: dict[str, Any] = {"temperature": 3.0, "seed": 1, "top_p": 0.9, "top_k": 50}
    sampled = engine.generate(None, QUESTION, max_new_tokens=TOKENS + 2, **options).text
    assert sampled[:TOKENS] != expected(engine)
    assert text_of(method(llm, max_tokens=TOKENS + 2, **options)[-1]) == sampled
    whole = expected(engine)
    assert text_of(method(llm, stop=[whole[2]])[-1]) == whole[: whole.index(whole[2])]
    instance = TTTLLM(engine=engine, max_tokens=TOKENS + 2, **options)
    assert text_of(method(instance)[-1]) == sampled


@pytest.mark.parametrize("method", WHOLE + STREAMED)
def test_unknown_options_are_errors(llm: TTTLLM, method: Method) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'temperature'\?"):
        method(llm, temprature=1)
    assert text_of(method(llm, tools=None)[-1])


@pytest.mark.parametrize("prompt", [None, 7, b"Where?"])
def test_a_prompt_is_text(llm: TTTLLM, prompt: Any) -> None:
    with pytest.raises(ConfigError, match=f"as text, found {type(prompt).__name__}"):
        llm.complete(prompt)
    with pytest.raises(ConfigError, match="as text"):
        asyncio.run(llm.astream_complete(prompt))


@pytest.mark.parametrize("method", WHOLE + STREAMED)
def test_errors_arrive(llm: TTTLLM, method: Method) -> None:
    with pytest.raises(PromptTooLongError):
        method(llm, max_tokens=600)
    with pytest.raises(DocumentTooLongError):
        method(llm.for_documents("x" * 600))


# Events


@pytest.mark.parametrize("method", WHOLE + STREAMED)
def test_one_event_a_call(engine: TTTEngine, method: Method) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    counter = TokenCountingHandler(tokenizer=lambda text: [])
    llm = TTTLLM(
        engine=engine, max_tokens=TOKENS, callback_manager=CallbackManager([debug, counter])
    )
    usage = method(llm)[-1].raw["usage"]
    assert len(debug.get_event_pairs(CBEventType.LLM)) == 1
    assert counter.prompt_llm_token_count == usage["prompt_tokens"]
    assert counter.completion_llm_token_count == usage["completion_tokens"]


class _Events(BaseEventHandler):
    names: list[str] = Field(default_factory=list)
    payloads: list[str] = Field(default_factory=list)

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.names.append(event.class_name())
        self.payloads.append(event.model_dump_json())


def test_instrumentation_names_the_model_and_shows_no_document(owls: TTTLLM) -> None:
    seen, dispatcher = _Events(), get_dispatcher()
    dispatcher.add_event_handler(seen)
    try:
        owls.chat(CHAT)
        owls.complete(QUESTION)
    finally:
        dispatcher.event_handlers.remove(seen)
    calls = [name for name in seen.names if not name.startswith("Adaptation")]
    assert calls == ["LLMChatStartEvent", "LLMChatEndEvent",
                     "LLMCompletionStartEvent", "LLMCompletionEndEvent"]  # fmt: skip
    assert owls.model in seen.payloads[0]
    assert owls.document_ids[0] in seen.payloads[0]
    assert "owl" not in str(seen.payloads)


def test_payload_loads_nothing() -> None:
    payload = TTTLLM(model="no/such-model", temperature=0.5).to_payload()
    assert payload["class_name"] == "TTTLLM"
    assert (payload["model"], payload["temperature"]) == ("no/such-model", 0.5)


# Messages and prompts


def test_conversation_reaches_the_engine_in_its_roles(engine: TTTEngine, llm: TTTLLM) -> None:
    conversation = [
        ChatMessage(role=MessageRole.DEVELOPER, content="a"),
        ChatMessage(role=MessageRole.USER, blocks=[TextBlock(text="b"), TextBlock(text="c")]),
        ChatMessage(role=MessageRole.CHATBOT, content="d"),
        ChatMessage(role=MessageRole.USER, content="e"),
    ]
    messages = [
        {"role": role, "content": content}
        for role, content in zip(
            ["system", "user", "assistant", "user"], ["a", "b\nc", "d", "e"], strict=True
        )
    ]
    asked = engine.generate(None, messages, max_new_tokens=TOKENS)
    assert llm.chat(conversation).message.content == asked.text


def test_completion_to_prompt_applies_unless_formatted(engine: TTTEngine) -> None:
    llm = TTTLLM(engine=engine, max_tokens=TOKENS, completion_to_prompt=lambda text: text + "?")
    assert llm.complete("Where").text == expected(engine)
    assert list(llm.stream_complete("Where"))[-1].text == expected(engine)
    assert llm.complete(QUESTION, formatted=True).text == expected(engine)
    with pytest.raises(ValueError, match="No prompt provided"):
        llm.complete()  # type: ignore[call-arg]


def test_predict_tells_the_system_prompt_behind_the_document(
    engine: TTTEngine, owls: TTTLLM
) -> None:
    brief = owls.model_copy(update={"system_prompt": "Be brief."})
    adapted = brief.adapt()
    asked = f"Be brief.\n\n{QUESTION}"
    wanted = engine.generate(adapted, asked, max_new_tokens=TOKENS).text
    prompt = PromptTemplate("{what}?")

    async def predict() -> tuple[str, list[str]]:
        streamed = [token async for token in await brief.astream(prompt, what="Where")]
        return await brief.apredict(prompt, what="Where"), streamed

    answer, tokens = asyncio.run(predict())
    assert brief.predict(prompt, what="Where") == answer == "".join(tokens) == wanted
    assert "".join(brief.stream(prompt, what="Where")) == wanted
    assert engine.adapt(OWLS).key == adapted.key


def test_without_a_document_the_system_prompt_is_the_systems(
    engine: TTTEngine, llm: TTTLLM
) -> None:
    brief = llm.model_copy(update={"system_prompt": "Be brief."})
    wanted = expected(engine, system="Be brief.")
    assert brief.predict(PromptTemplate(QUESTION)) == wanted


def test_settings_accept_it(llm: TTTLLM) -> None:
    Settings.llm = llm
    try:
        assert Settings.llm is llm
    finally:
        Settings._llm = None


def test_settings_count_with_the_models_tokenizer(llm: TTTLLM, tokenizer: Any) -> None:
    try:
        Settings.tokenizer = llm.tokenizer
        assert Settings.tokenizer(OWLS) == tokenizer(OWLS, add_special_tokens=False)["input_ids"]
    finally:
        llama_index.core.global_tokenizer = None


def test_what_holds_the_tokenizer_is_pickled_without_the_llm(owls: TTTLLM) -> None:
    memory = ChatMemoryBuffer.from_defaults(token_limit=99, tokenizer_fn=owls.tokenizer)
    memory.put(CHAT[0])
    data = pickle.dumps(memory)
    assert b"owl number" not in data
    assert copy.deepcopy(owls.tokenizer)(OWLS) == owls.tokenizer(OWLS)
    try:
        Settings.tokenizer = lambda text: [7] * 3
        restored = pickle.loads(data)
        assert restored.tokenizer_fn(OWLS) == [7] * 3
        assert restored.get() == memory.get()
    finally:
        llama_index.core.global_tokenizer = None


# What it says about itself


def test_metadata_tells_the_truth(engine: TTTEngine, llm: TTTLLM, owls: TTTLLM) -> None:
    metadata = llm.metadata
    assert (metadata.context_window, metadata.num_output) == (engine.window, TOKENS)
    assert metadata.is_chat_model
    assert metadata.model_name == llm.model
    assert owls.metadata.context_window == engine.window
    assert TTTLLM(engine=engine).metadata.num_output < engine.window / 2
    assert TTTLLM(engine=engine, max_tokens=9999).metadata.num_output == engine.window // 2
    assert TTTLLM(model="no/such-model", context_window=4096).metadata.context_window == 4096


# Async


def test_concurrent_questions_about_different_documents(engine: TTTEngine, llm: TTTLLM) -> None:
    async def ask() -> list[Any]:
        asked = [llm.for_documents(text).achat(CHAT) for text in (OWLS, FOXES, OWLS)]
        return await asyncio.gather(*asked, llm.achat(CHAT))

    texts = [text_of(answer) for answer in asyncio.run(ask())]
    assert texts == [expected(engine, document) for document in (OWLS, FOXES, OWLS, None)]


@pytest.mark.parametrize("streaming", [False, True])
def test_the_event_loop_goes_on_turning(owls: TTTLLM, streaming: bool) -> None:
    async def answer() -> None:
        if not streaming:
            await owls.achat(CHAT, max_tokens=40)
            return
        async for _ in await owls.astream_chat(CHAT, max_tokens=40):
            pass

    async def ask() -> tuple[float, float]:
        started = last = time.perf_counter()
        gap = 0.0
        task = asyncio.create_task(answer())
        while not task.done():
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            gap, last = max(gap, now - last), now
        await task
        return gap, last - started

    gap, total = asyncio.run(ask())
    assert gap < total / 2


def test_closing_a_stream_stops_the_work(engine: TTTEngine, owls: TTTLLM) -> None:
    owls.adapt()
    passes = _count_passes(engine)
    stream = owls.stream_chat(CHAT, max_tokens=50)
    next(stream)
    stream.close()
    done = len(passes)
    time.sleep(0.1)
    assert len(passes) == done < 25


def test_leaving_an_async_stream_stops_the_work(engine: TTTEngine, owls: TTTLLM) -> None:
    owls.adapt()
    passes = _count_passes(engine)

    async def leave() -> int:
        stream = await owls.astream_chat(CHAT, max_tokens=300)
        await stream.__anext__()
        await stream.aclose()
        await asyncio.sleep(0.1)
        return len(passes)

    done = asyncio.run(leave())
    time.sleep(0.1)
    assert len(passes) == done < 25


def test_cancelling_stops_the_answer(engine: TTTEngine, owls: TTTLLM) -> None:
    owls.adapt()
    passes = _count_passes(engine)
    _cancel(owls.achat(CHAT, max_tokens=300), when=lambda: len(passes) > 2)
    _settle(passes)
    assert len(passes) < 250


def test_cancelling_stops_an_adaptation(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"steps": 10_000})
    engine = TTTEngine(model, tokenizer, adaptation=recipe, store=tmp_path / "store")
    passes = _count_passes(engine)
    llm = TTTLLM(engine=engine, documents=OWLS)
    _cancel(llm.acomplete(QUESTION), when=lambda: len(passes) > 5)
    _settle(passes)
    assert len(passes) < 1000


# Documents, copies, serialised forms


def test_documents_come_without_their_metadata(engine: TTTEngine, llm: TTTLLM) -> None:
    about = {"file_path": "/home/me/owls.txt"}
    document = Document(text=OWLS, metadata=about)
    node = TextNode(text=FOXES, metadata=about)
    both = llm.for_documents([document, NodeWithScore(node=node, score=0.5)])
    assert both.complete(QUESTION).text == expected(engine, [OWLS, FOXES])
    ids = {llm.for_documents(one).document_ids for one in (OWLS, document, [OWLS], [document])}
    assert ids == {(ttt_core.Document.of(OWLS).hash,)}


def test_for_documents_is_a_new_llm_on_the_same_engine(engine: TTTEngine) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    llm = TTTLLM(engine=engine, max_tokens=TOKENS)
    llm.callback_manager.add_handler(debug)
    owls = llm.for_documents(OWLS)
    assert owls._engine() is llm._engine()
    assert (llm.document_ids, owls.max_tokens) == ((), TOKENS)
    owls.complete(QUESTION)
    assert len(debug.get_event_pairs(CBEventType.LLM)) == 1
    a, b = TTTLLM(model="m"), TTTLLM(model="m").for_documents(OWLS)
    assert a._engine() is b._engine()


def test_no_documents_are_not_documents(llm: TTTLLM) -> None:
    for nothing in ([], "", " \n", [OWLS, ""], Document(text="")):
        with pytest.raises(DocumentError):
            llm.for_documents(nothing)
    with pytest.raises(ConfigError, match="found int"):
        llm.for_documents([1])  # type: ignore[list-item]
    with pytest.raises(ValidationError) as caught:
        TTTLLM(model="m", documents=[OWLS, ""])
    assert "owl" not in str(caught.value)


def test_constructor_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValidationError, match="temprature"):
        TTTLLM(model="m", temprature=1)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="temperature"):
        TTTLLM(model="m", temperature=-1)
    assert TTTLLM(model="m", callback_manager=None).callback_manager is not None


def test_dict_and_back() -> None:
    llm = TTTLLM(model="m", temperature=0.5, stop=["x"], system_prompt="Be brief.")
    assert TTTLLM.from_dict(llm.to_dict()).to_dict() == llm.to_dict()
    owls = llm.for_documents(OWLS)
    data = owls.to_json()
    assert "owl" not in data + repr(owls)
    loaded = TTTLLM.from_json(data)
    assert loaded.document_ids == owls.document_ids
    for use in (lambda: loaded.complete(QUESTION), loaded.adapt):
        with pytest.raises(DocumentError, match="pass the documents again"):
            use()
    assert loaded.for_documents(OWLS).documents == owls.documents


def test_copies_share_the_engine_and_pickles_leave_it(engine: TTTEngine, owls: TTTLLM) -> None:
    text = owls.complete(QUESTION).text
    copied = copy.deepcopy(owls)
    assert copied._engine() is engine
    assert copied.complete(QUESTION).text == text
    data = pickle.dumps(owls)
    assert len(data) < 10_000
    thawed = pickle.loads(data)
    assert thawed.engine is None
    assert (thawed.documents, thawed.max_tokens) == (owls.documents, TOKENS)


# Packaging


def test_constructing_is_free() -> None:
    code = (
        "import sys; from llamaindex_ttt import TTTLLM; "
        "llm = TTTLLM(model='no/such-model', documents=['an owl']); "
        "llm.for_documents('a fox'); print([m for m in ('torch', 'peft') if m in sys.modules])"
    )
    path = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_missing_extra_is_named() -> None:
    code = "import sys; sys.modules['llama_index.core'] = None; import llamaindex_ttt"
    path = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True)
    assert "pip install 'context-ttt[llamaindex]'" in done.stderr
    assert "During handling" not in done.stderr


def test_public_names() -> None:
    assert set(llamaindex_ttt.__all__) == {
        "AdaptationEndEvent", "AdaptationProgressEvent", "AdaptationStartEvent",
        "PredictionError", "TTTLLM", "TTTDocumentPostprocessor", "TTTSynthesizer",
        "collect_raw",
    }  # fmt: skip


def test_llamahub_is_told_of_classes_that_there_are() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    section = project.partition("[tool.llamahub]\n")[2]
    assert 'import_path = "llamaindex_ttt"' in section.partition("[")[0]
    authors = section.partition("[tool.llamahub.class_authors]\n")[2].partition("\n[")[0]
    names = set(re.findall(r"^(\w+) = ", authors, re.MULTILINE))
    assert names == {"TTTLLM", "TTTDocumentPostprocessor", "TTTSynthesizer"}
    assert names <= set(llamaindex_ttt.__all__)


# Tools of these tests


def _count_passes(engine: TTTEngine) -> list[None]:
    """Record every forward pass from now on."""
    passes: list[None] = []
    engine._resident().model.runtime.model.register_forward_hook(lambda *_: passes.append(None))
    return passes


def _cancel(work: Any, *, when: Callable[[], bool]) -> None:
    async def run() -> None:
        task = asyncio.ensure_future(work)
        while not (when() or task.done()):
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def _settle(passes: list[None]) -> None:
    """Wait until no pass has been added for a while."""
    before = -1
    while len(passes) != before:
        before = len(passes)
        time.sleep(0.3)


# Calls as callbacks see them


def test_documents_of_a_call_are_not_shown(llm: TTTLLM) -> None:
    seen, dispatcher = _Events(), get_dispatcher()
    debug = LlamaDebugHandler(print_trace_on_end=False)
    told = llm.model_copy(update={"callback_manager": CallbackManager([debug])})
    handle = llm.adapt(OWLS)
    dispatcher.add_event_handler(seen)
    try:
        told.chat(CHAT, documents=[OWLS], temperature=0.5)
        list(told.stream_complete(QUESTION, adapter=handle))
        asyncio.run(told.achat(CHAT, documents=OWLS))
    finally:
        dispatcher.event_handlers.remove(seen)
    shown = [str(event.payload) for event in debug.get_events()]
    assert "owl" not in str([seen.payloads, shown])
    assert "0.5" in str(seen.payloads)
    assert handle.id in str(seen.payloads)


@pytest.mark.parametrize("method", ["stream_chat", "stream_complete", "stream"])
def test_a_handler_that_keeps_errors_does_not_keep_a_closed_stream_going(
    engine: TTTEngine, owls: TTTLLM, method: str
) -> None:
    owls.adapt()
    debug = LlamaDebugHandler(print_trace_on_end=False)
    told = owls.model_copy(update={"callback_manager": CallbackManager([debug])})
    given: Any = {"stream_chat": CHAT, "stream_complete": QUESTION}.get(
        method, PromptTemplate(QUESTION)
    )
    stream = getattr(told, method)(given)
    next(stream)
    stream.close()
    passes = _count_passes(engine)
    told.complete(QUESTION, max_tokens=1)
    assert len(passes) == 1  # Not decoded together with what was closed.


class _Spans(BaseSpanHandler[BaseSpan]):
    names: list[str] = Field(default_factory=list)

    def new_span(self, id_: str, *args: Any, **kwargs: Any) -> BaseSpan:
        self.names.append(id_.partition("-")[0])
        return BaseSpan(id_=id_)

    def prepare_to_exit_span(self, id_: str, *args: Any, **kwargs: Any) -> BaseSpan:
        return self.open_spans[id_]

    prepare_to_drop_span = prepare_to_exit_span


def test_a_prediction_is_one_span_and_its_call_another(llm: TTTLLM) -> None:
    spans, dispatcher = _Spans(), get_dispatcher()
    dispatcher.add_span_handler(spans)
    try:
        llm.predict(PromptTemplate(QUESTION))
        asyncio.run(llm.apredict(PromptTemplate(QUESTION)))
    finally:
        dispatcher.span_handlers.remove(spans)
    assert spans.names == ["TTTLLM.predict", "TTTLLM.chat", "TTTLLM.apredict", "TTTLLM.achat"]


def test_progress_is_shown_where_it_is_asked_for(
    llm: TTTLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    llm.for_documents(FOXES).chat(CHAT)
    assert terminal.getvalue() == ""
    llm.model_copy(update={"show_progress": True}).for_documents(OWLS).chat(CHAT)
    assert "training" in terminal.getvalue()
    assert "owl" not in terminal.getvalue()


def test_one_answer_a_call(llm: TTTLLM) -> None:
    with pytest.raises(ConfigError, match="one answer a call"):
        llm.chat(CHAT, n=2)
    assert llm.chat(CHAT, n=1).message.content
