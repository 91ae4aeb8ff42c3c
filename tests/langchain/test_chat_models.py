"""ChatTTT says what the engine says, in LangChain's terms. Random weights: texts are gibberish."""

from __future__ import annotations

import asyncio
import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.exceptions import ContextOverflowError
from langchain_core.load import dumpd, dumps, load
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import ConfigurableField
from pydantic import ValidationError

import langchain_ttt
import ttt_core
from langchain_ttt import ChatTTT
from ttt_core import (
    AdaptationConfig,
    AdaptedDocument,
    ConfigError,
    DocumentError,
    DocumentTooLongError,
    PromptTooLongError,
    TTTEngine,
)

OWLS = "\n".join(f"the owl number {number} lives in tree {number * 7 % 10}" for number in range(5))
FOXES = "\n".join(f"the fox number {number} eats {number * 3 % 10} eggs" for number in range(5))
QUESTION = "Where?"
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
def llm(engine: TTTEngine) -> ChatTTT:
    return ChatTTT(engine=engine, max_tokens=TOKENS)


@pytest.fixture
def owls(llm: ChatTTT) -> ChatTTT:
    return llm.with_documents(OWLS)


def expected(engine: TTTEngine, documents: Any = None, *, system: str | None = None) -> str:
    adapted = engine.adapt(documents, system=system) if documents else None
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": QUESTION})
    return engine.generate(adapted, messages, max_new_tokens=TOKENS).text


# Answers


def test_answers_what_the_engine_answers(engine: TTTEngine, llm: ChatTTT) -> None:
    assert llm.invoke(QUESTION).text == expected(engine)
    assert llm.with_documents(OWLS).invoke(QUESTION).text == expected(engine, OWLS)
    both = llm.with_documents([OWLS, Document(FOXES, metadata={"source": "/home/me/foxes.txt"})])
    assert both.invoke(QUESTION).text == expected(engine, [OWLS, FOXES])
    assert expected(engine) != expected(engine, OWLS) != expected(engine, FOXES)


def test_system_message_is_read_with_the_document(engine: TTTEngine, owls: ChatTTT) -> None:
    conversation = [SystemMessage("Be brief."), HumanMessage(QUESTION)]
    first, second = owls.invoke(conversation), owls.invoke(conversation)
    assert first.text == second.text == expected(engine, OWLS, system="Be brief.")
    prefix = len(engine.adapt(OWLS, system="Be brief.").prefix)
    details = [each.usage_metadata and each.usage_metadata["input_token_details"]
               for each in (first, second)]  # fmt: skip
    assert details == [{"cache_read": 0, "cache_creation": prefix}, {"cache_read": prefix}]


def test_conversation_reaches_the_engine_in_its_roles(engine: TTTEngine, llm: ChatTTT) -> None:
    conversation = [
        SystemMessage("a"),
        HumanMessage([{"type": "text", "text": "b"}], name="someone"),
        AIMessageChunk("c"),
        HumanMessage("d"),
    ]
    messages = [
        {"role": role, "content": content}
        for role, content in zip(["system", "user", "assistant", "user"], "abcd", strict=True)
    ]
    asked = engine.generate(None, messages, max_new_tokens=TOKENS)
    assert llm.invoke(conversation).text == asked.text


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (HumanMessage([{"type": "image", "url": "https://example.org/owl.png"}]), "'image'"),
        (ToolMessage([{"type": "image", "url": "https://a.b/c"}], tool_call_id="1"), "'image'"),
        (HumanMessage([{"type": "file", "url": "https://a.b/c.txt"}]), "by reference"),
        (HumanMessage([{"type": "file", "base64": "AA==", "mime_type": "application/pdf"}]), "pdf"),
        (HumanMessage([{"type": "text-plain", "base64": "%"}]), "not valid base64"),
        (RemoveMessage(id="1"), "RemoveMessage"),
        (ChatMessage("hello", role="pirate"), "'pirate'"),
    ],
)
def test_what_is_not_understood_is_refused(llm: ChatTTT, message: BaseMessage, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        llm.invoke([message, HumanMessage("And now?")])


def test_usage_and_metadata(engine: TTTEngine, owls: ChatTTT) -> None:
    message = owls.invoke(QUESTION)
    adapted = engine.adapt(OWLS)
    answer = engine.generate(adapted, QUESTION, max_new_tokens=TOKENS)
    assert message.usage_metadata == {
        "input_tokens": answer.usage.prompt_tokens,
        "output_tokens": answer.usage.completion_tokens,
        "total_tokens": answer.usage.total_tokens,
        "input_token_details": {"cache_read": 0, "cache_creation": adapted.n_tokens},
    }
    metadata = message.response_metadata
    assert metadata["model_name"] == owls.model
    assert metadata["finish_reason"] == answer.finish_reason
    done = metadata["ttt"]
    assert done["decision"] == "adapted"
    assert done["source"] == "trained"
    assert done["document_id"] == adapted.id != adapted.document_hash
    assert (done["documents_from"], done["document_tokens"]) == ("instance", adapted.n_tokens)
    assert done["computed_tokens"] == answer.usage.computed_tokens + adapted.n_tokens
    assert done["seconds"].keys() == {"prefill", "adaptation", "first_token", "answer"}
    assert json.loads(json.dumps(done)) == done
    assert "owl" not in json.dumps(metadata)
    assert owls.invoke(QUESTION).response_metadata["ttt"]["source"] == "memory"


def test_without_documents_nothing_is_adapted(llm: ChatTTT) -> None:
    assert llm.invoke(QUESTION).response_metadata["ttt"]["decision"] == "no_document"


def test_adapt_prewarms(engine: TTTEngine, llm: ChatTTT, owls: ChatTTT) -> None:
    adapted = llm.adapt(Document(OWLS))
    assert isinstance(adapted, AdaptedDocument)
    assert owls.invoke(QUESTION).response_metadata["ttt"]["source"] == "memory"
    assert owls.adapt().key == adapted.key
    assert owls.adapt(system="Be brief.").key != adapted.key


# Options


def test_options_of_instance_and_call_reach_the_engine(engine: TTTEngine, llm: ChatTTT) -> None:
    options: dict[str, Any] = {"temperature": 3.0, "seed": 1, "top_p": 0.9, "top_k": 50}
    sampled = engine.generate(None, QUESTION, max_new_tokens=TOKENS, **options).text
    assert sampled != expected(engine)
    assert llm.invoke(QUESTION, **options).text == sampled
    assert ChatTTT(engine=engine, max_tokens=TOKENS, **options).invoke(QUESTION).text == sampled
    longer = engine.generate(None, QUESTION, max_new_tokens=TOKENS + 3).text
    assert llm.invoke(QUESTION, max_tokens=TOKENS + 3).text == longer
    assert llm.bind(max_tokens=TOKENS + 3).invoke(QUESTION).text == longer


def test_stop_of_the_call_replaces_that_of_the_instance(engine: TTTEngine, llm: ChatTTT) -> None:
    whole = llm.invoke(QUESTION).text
    first, later = whole[2], whole[3]
    stopping = ChatTTT(engine=engine, max_tokens=TOKENS, stop=[first])
    answer = stopping.invoke(QUESTION)
    assert answer.text == whole[: whole.index(first)]
    assert answer.response_metadata["finish_reason"] == "stop"
    assert stopping.invoke(QUESTION, stop=[later]).text == whole[: whole.index(later)]
    assert stopping.invoke(QUESTION, stop=[]).text == whole


def test_unknown_options_are_errors(llm: ChatTTT) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'temperature'\? the options are: adapter"):
        llm.invoke(QUESTION, temprature=1)
    with pytest.raises(ConfigError, match="tool"):
        llm.invoke(QUESTION, tools=[{}])
    with pytest.raises(ValidationError, match="temprature"):
        ChatTTT(model="m", temprature=1)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="temperature"):
        ChatTTT(model="m", temperature=-1)


def test_remote_options_are_dropped() -> None:
    llm = ChatTTT(model="m", api_key="sk-12345", timeout=3, max_retries=1)  # type: ignore[call-arg]
    assert "sk-12345" not in repr(vars(llm)) + dumps(llm)


def test_standard_params_for_traces(llm: ChatTTT) -> None:
    llm = ChatTTT(model="m", max_tokens=5, stop=["x"], temperature=0.5)
    assert llm._get_ls_params() == {
        "ls_provider": "ttt", "ls_model_type": "chat", "ls_model_name": "m", "ls_stop": ["x"],
        "ls_temperature": 0.5, "ls_max_tokens": 5,
    }  # fmt: skip
    assert llm._get_ls_params(stop=["y"])["ls_stop"] == ["y"]


def test_counts_tokens_with_the_models_tokenizer(engine: TTTEngine, llm: ChatTTT) -> None:
    text = "the owl's tree: \u00e4\u00f6\u00fc"
    assert llm.get_num_tokens(text) == engine.count_tokens(text)
    own = llm.model_copy(update={"custom_get_token_ids": lambda text: [1, 2, 3]})
    assert own.get_num_tokens(text) == 3


# Streaming


def test_stream_joins_to_the_answer_and_ends_once(owls: ChatTTT) -> None:
    chunks = list(owls.stream(QUESTION))
    assert "".join(chunk.text for chunk in chunks) == owls.invoke(QUESTION).text
    assert len(chunks) > 2
    assert [chunk.chunk_position for chunk in chunks] == [None] * (len(chunks) - 1) + ["last"]
    assert [chunk.usage_metadata is not None for chunk in chunks].count(True) == 1
    assert chunks[-1].usage_metadata is not None
    assert chunks[-1].response_metadata["ttt"]["decision"] == "adapted"


def test_closing_a_stream_stops_the_work(engine: TTTEngine, owls: ChatTTT) -> None:
    owls.adapt()
    passes = _count_passes(engine)
    stream = owls.stream(QUESTION, max_tokens=50)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    done = len(passes)
    time.sleep(0.1)
    assert len(passes) == done < 25


class _Tokens(BaseCallbackHandler):
    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.starts: list[Any] = []
        self.ends = 0

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.starts.append((serialized, messages, kwargs))

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.tokens.append(token)

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.ends += 1


def test_callbacks_fire_once_and_see_no_document(owls: ChatTTT) -> None:
    seen = _Tokens()
    chunks = list(owls.stream(QUESTION, config={"callbacks": [seen]}))
    assert seen.tokens == [chunk.content for chunk in chunks]
    assert (len(seen.starts), seen.ends) == (1, 1)
    assert owls.document_ids[0] in str(seen.starts)
    assert "owl" not in str(seen.starts)


def test_streaming_instances_stream_when_invoked(owls: ChatTTT) -> None:
    seen = _Tokens()
    streaming = owls.model_copy(update={"streaming": True})
    answer = streaming.invoke(QUESTION, config={"callbacks": [seen]})
    assert "".join(seen.tokens) == answer.text == owls.invoke(QUESTION, stream=False).text


# Async and batches


def test_async_is_sync(owls: ChatTTT) -> None:
    async def ask() -> tuple[AIMessage, list[AIMessageChunk]]:
        streamed = [chunk async for chunk in owls.astream(QUESTION)]
        return await owls.ainvoke(QUESTION), streamed

    answer, chunks = asyncio.run(ask())
    assert answer.text == "".join(chunk.text for chunk in chunks) == owls.invoke(QUESTION).text
    assert owls.invoke(QUESTION).usage_metadata == answer.usage_metadata
    assert chunks[-1].usage_metadata is not None
    assert chunks[-1].usage_metadata["input_tokens"] == answer.usage_metadata["input_tokens"]
    assert chunks[-1].chunk_position == "last"


def test_batches_are_the_answers_one_by_one(owls: ChatTTT) -> None:
    questions = [QUESTION, "Who?", "What is it that lives in the tree?"]
    single = [owls.invoke(question).text for question in questions]
    assert [answer.text for answer in owls.batch(questions)] == single
    assert [answer.text for answer in asyncio.run(owls.abatch(questions))] == single


def test_concurrent_questions_about_different_documents(engine: TTTEngine, llm: ChatTTT) -> None:
    async def ask() -> list[AIMessage]:
        asked = [llm.with_documents(text).ainvoke(QUESTION) for text in (OWLS, FOXES, OWLS)]
        return await asyncio.gather(*asked, llm.ainvoke(QUESTION))

    texts = [answer.text for answer in asyncio.run(ask())]
    assert texts == [expected(engine, document) for document in (OWLS, FOXES, OWLS, None)]


def test_the_event_loop_goes_on_turning(owls: ChatTTT) -> None:
    async def ask() -> tuple[float, float]:
        started = last = time.perf_counter()
        gap = 0.0
        task = asyncio.create_task(owls.ainvoke(QUESTION, max_tokens=40))
        while not task.done():
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            gap, last = max(gap, now - last), now
        await task
        return gap, last - started

    gap, total = asyncio.run(ask())
    assert gap < total / 2


def test_cancelling_stops_the_answer(engine: TTTEngine, owls: ChatTTT) -> None:
    owls.adapt()
    passes = _count_passes(engine)
    _cancel(owls.ainvoke(QUESTION, max_tokens=300), when=lambda: len(passes) > 2)
    _settle(passes)
    assert len(passes) < 250


def test_cancelling_stops_an_adaptation(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"steps": 10_000})
    engine = TTTEngine(model, tokenizer, adaptation=recipe, store=tmp_path / "store")
    passes = _count_passes(engine)
    _cancel(ChatTTT(engine=engine, documents=OWLS).ainvoke("?"), when=lambda: len(passes) > 5)
    _settle(passes)
    assert len(passes) < 1000


def test_errors_arrive_in_async_streams(llm: ChatTTT) -> None:
    async def ask() -> None:
        async for _ in llm.astream("x" * 600):
            raise AssertionError("there is nothing to say")

    with pytest.raises(PromptTooLongError):
        asyncio.run(ask())


# Documents, copies, identity


def test_with_documents_is_a_new_model_on_the_same_engine(llm: ChatTTT) -> None:
    owls = llm.with_documents(OWLS)
    assert owls is not llm
    assert owls._engine() is llm._engine()
    assert (llm.document_ids, owls.max_tokens) == ((), TOKENS)
    assert owls.with_documents(FOXES).document_ids != owls.document_ids
    a, b = ChatTTT(model="m"), ChatTTT(model="m").with_documents(OWLS)
    assert a._engine() is b._engine()


def test_no_documents_are_not_documents(llm: ChatTTT) -> None:
    for nothing in ([], "", " \n", [OWLS, ""], Document("")):
        with pytest.raises(DocumentError):
            llm.with_documents(nothing)
    with pytest.raises(ConfigError, match="found int"):
        llm.with_documents([1])  # type: ignore[list-item]
    with pytest.raises(ValidationError) as caught:
        ChatTTT(model="m", documents=[OWLS, ""])
    assert "owl" not in str(caught.value)
    assert ChatTTT(model="m", documents=[]).documents == ()


def test_ids_tell_documents_order_and_titles_apart() -> None:
    a, b = ttt_core.Document.of(OWLS), ttt_core.Document.of(FOXES)
    titled = ttt_core.Document.of(FOXES, title="Foxes")
    groups = [[a], [b], [a, b], [b, a], [a, titled]]
    ids = [ChatTTT(model="m", documents=group).document_ids for group in groups]
    assert len(set(ids)) == len(groups)
    assert ChatTTT(model="m", documents=OWLS).document_ids == (a.hash,)


def test_documents_survive_what_chains_do(owls: ChatTTT) -> None:
    text = owls.invoke(QUESTION).text
    assert owls.bind(stop=["\x00"]).invoke(QUESTION).text == text
    assert owls.with_config(tags=["x"]).invoke(QUESTION).text == text
    assert owls.with_retry().invoke(QUESTION).text == text
    assert copy.deepcopy(owls).invoke(QUESTION).text == text
    field = owls.configurable_fields(temperature=ConfigurableField(id="heat"))
    config: Any = {"configurable": {"heat": 0.0}}
    assert field.invoke(QUESTION, config=config).text == text  # type: ignore[union-attr]


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")  # load() is beta.
def test_serialised_form_has_ids_and_no_text() -> None:
    owls = ChatTTT(model="m", temperature=0.5, documents=[OWLS])
    data = dumpd(owls)
    assert data["kwargs"]["document_ids"] == list(owls.document_ids)
    assert "owl" not in json.dumps(data) + repr(owls) + str(owls.asdict())
    loaded = load(data, allowed_objects=[ChatTTT], valid_namespaces=["langchain_ttt"])
    assert loaded.asdict() == owls.asdict()
    with pytest.raises(DocumentError, match="pass the documents again"):
        loaded.invoke(QUESTION)
    with pytest.raises(DocumentError):
        loaded.adapt()
    assert loaded.with_documents(OWLS).documents == owls.documents


class _Unserialisable(ChatTTT):
    @classmethod
    def is_lc_serializable(cls) -> bool:
        return False


@pytest.mark.parametrize("kind", [ChatTTT, _Unserialisable])
def test_llm_cache_keeps_documents_apart(engine: TTTEngine, kind: type[ChatTTT]) -> None:
    llm = kind(engine=engine, max_tokens=TOKENS, cache=InMemoryCache())
    answers = [llm.invoke(QUESTION).text]
    # The traps: a copy made after LangChain cached the serialised form of its origin.
    owls = llm.with_documents(OWLS)
    answers.append(owls.invoke(QUESTION).text)
    answers.append(owls.model_copy(update={"documents": [FOXES]}).invoke(QUESTION).text)
    assert answers == [expected(engine, document) for document in (None, OWLS, FOXES)]
    passes = _count_passes(engine)
    assert owls.with_documents(OWLS).invoke(QUESTION).text == answers[1]
    assert not passes


def test_llm_cache_keeps_engines_apart(engine: TTTEngine, make_model: Any, tokenizer: Any) -> None:
    other = TTTEngine(make_model("qwen3", seed=1), tokenizer)
    cache = InMemoryCache()
    llms = [ChatTTT(engine=e, max_tokens=TOKENS, cache=cache) for e in (engine, other)]
    assert [llm.invoke(QUESTION).text for llm in llms] == [expected(engine), expected(other)]


def test_what_does_not_fit_is_langchains_error_too(llm: ChatTTT) -> None:
    with pytest.raises(ContextOverflowError) as prompt:
        llm.invoke("x" * 600)
    assert isinstance(prompt.value, PromptTooLongError)
    assert prompt.value.window == 512
    with pytest.raises(ContextOverflowError) as document:
        llm.with_documents("x" * 600).invoke(QUESTION)
    assert isinstance(document.value, DocumentTooLongError)


# Packaging


def test_constructing_is_free() -> None:
    code = (
        "import sys; from langchain_ttt import ChatTTT; "
        "llm = ChatTTT(model='no/such-model', documents=['an owl']); "
        "llm.with_documents('a fox'); print([m for m in ('torch', 'peft') if m in sys.modules])"
    )
    path = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_missing_extra_is_named() -> None:
    code = "import sys; sys.modules['langchain_core'] = None; import langchain_ttt"
    path = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True)
    assert "pip install 'context-ttt[langchain]'" in done.stderr
    assert "During handling" not in done.stderr


def test_public_names() -> None:
    assert sorted(langchain_ttt.__all__) == [
        "AdapterByteStore",
        "ChatTTT",
        "DeviceFullError",
        "DocumentOverflowError",
        "InvalidDocumentError",
        "InvalidRequestError",
        "NoSuchModelError",
        "PromptOverflowError",
        "StoreFailedError",
        "TTTProgressHandler",
        "TimeLimitError",
        "WrongModelError",
    ]
    assert all(hasattr(langchain_ttt, name) for name in langchain_ttt.__all__)
    assert langchain_ttt.TTTDocumentsMiddleware.__module__ == "langchain_ttt.middleware"


def test_the_middleware_alone_needs_langchain() -> None:
    code = (
        "import sys; sys.modules['langchain'] = None; import langchain_ttt; "
        "langchain_ttt.TTTDocumentsMiddleware"
    )
    path = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True)
    assert "pip install 'langchain>=1.4'" in done.stderr


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
