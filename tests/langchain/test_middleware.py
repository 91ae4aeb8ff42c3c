"""The middleware gives every model call of an agent its run's documents, and no other ones."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ModelRequest,
    dynamic_prompt,
    wrap_model_call,
)
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from langchain_ttt import ChatTTT
from langchain_ttt.middleware import TTTDocumentsMiddleware
from tests.scripted import ScriptedModel, scripted_tokenizer
from ttt_core import AdaptationConfig, ConfigError, DocumentError, TTTEngine

OWLS = "\n".join(f"the owl number {number} lives in tree {number * 7 % 10}" for number in range(5))
FOXES = "\n".join(f"the fox number {number} eats {number * 3 % 10} eggs" for number in range(5))
ASK: Any = {"messages": [("user", "What is it about?")]}
RECIPE = AdaptationConfig(steps=2, gate=False, early_stopping=False, held_out=2, clozes_per_step=2)


def say(prompt: str) -> str | None:
    """Say which documents stand in the prompt, and what the system asked for."""
    if "What is it about?" not in prompt:
        return None
    turns = prompt.count("<|im_start|>assistant")
    found = [name for name in ("owl", "fox") if f"the {name} number 3" in prompt]
    brief = " (brief)" if "Be brief." in prompt else ""
    return f"{turns}: {' and '.join(found) or 'nothing'}{brief}"


@pytest.fixture
def make_engine(tmp_path: Path) -> Iterator[Callable[..., TTTEngine]]:
    engines = []

    def make(script: Callable[[str], str | None] = say) -> TTTEngine:
        tokenizer = scripted_tokenizer(tools=True)
        model = ScriptedModel(script, tokenizer)
        store = tmp_path / "store"
        engines.append(TTTEngine(model, tokenizer, adaptation=RECIPE, store=store))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def llm(make_engine: Callable[..., TTTEngine]) -> ChatTTT:
    return ChatTTT(engine=make_engine())


def last(state: dict[str, Any]) -> AIMessage:
    message = state["messages"][-1]
    assert isinstance(message, AIMessage)
    return message


def done(message: AIMessage) -> dict[str, Any]:
    about = message.response_metadata["ttt"]
    assert isinstance(about, dict)
    return about


class _Settings(AgentMiddleware[Any, Any, Any]):
    """Stands behind another one, and notes what it passes on."""

    def __init__(self) -> None:
        super().__init__()
        self.settings: list[dict[str, Any]] = []

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        self.settings.append(dict(request.model_settings))
        return handler(request)


def test_documents_of_the_middleware_are_what_every_call_is_about(llm: ChatTTT) -> None:
    noted = _Settings()
    agent = create_agent(llm, middleware=[TTTDocumentsMiddleware(OWLS), noted])
    answer = last(agent.invoke(ASK))
    assert answer.text == "1: owl"
    about = done(answer)
    assert (about["decision"], about["documents_from"], about["source"]) == (
        "adapted", "call", "memory",
    )  # fmt: skip
    handle = llm.adapt(OWLS)
    assert noted.settings == [{"adapter": handle.id}]
    assert about["document_id"] == handle.id


async def test_beside_an_event_loop(llm: ChatTTT) -> None:
    agent = create_agent(llm, middleware=[TTTDocumentsMiddleware([OWLS, Document(FOXES)])])
    answer = last(await agent.ainvoke(ASK))
    assert answer.text == "1: owl and fox"
    assert done(answer)["source"] == "memory"


def test_without_adapt_first_the_call_itself_adapts(llm: ChatTTT) -> None:
    agent = create_agent(llm, middleware=[TTTDocumentsMiddleware(OWLS, adapt_first=False)])
    assert [done(last(agent.invoke(ASK)))["source"] for _ in range(2)] == ["trained", "memory"]


@pytest.mark.parametrize(
    "system",
    [
        "Be brief.",
        SystemMessage([{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]),
        SystemMessage(
            [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
        ),
        SystemMessage(
            [
                {"type": "text-plain", "mime_type": "text/plain", "text": "Rules."},
                {"type": "text", "text": "Be brief."},
            ]
        ),
    ],
)
def test_the_system_prompt_is_read_along(llm: ChatTTT, system: Any) -> None:
    agent = create_agent(llm, system_prompt=system, middleware=[TTTDocumentsMiddleware(OWLS)])
    answer = last(agent.invoke(ASK))
    assert answer.text == "1: owl (brief)"
    assert done(answer)["source"] == "memory"  # What was learned first is what was asked for.


def test_a_prompt_of_another_middleware_is_read_along(llm: ChatTTT) -> None:
    @dynamic_prompt
    def brief(request: ModelRequest[Any]) -> str:
        return "Be brief."

    agent = create_agent(llm, middleware=[brief, TTTDocumentsMiddleware(OWLS)])
    answer = last(agent.invoke(ASK))
    assert (answer.text, done(answer)["source"]) == ("1: owl (brief)", "memory")


def test_system_messages_in_the_conversation_are_read_along(llm: ChatTTT) -> None:
    agent = create_agent(llm, system_prompt="Hello.", middleware=[TTTDocumentsMiddleware(OWLS)])
    conversation: Any = [SystemMessage("Be brief."), HumanMessage("What is it about?")]
    answer = last(agent.invoke({"messages": conversation}))
    assert (answer.text, done(answer)["source"]) == ("1: owl (brief)", "memory")


# A run's own documents


def test_documents_in_the_state(llm: ChatTTT) -> None:
    agent: Any = create_agent(llm, middleware=[TTTDocumentsMiddleware(from_state="texts")])
    for texts, said in [
        (OWLS, "1: owl"),
        ([Document(FOXES)], "1: fox"),
        ([OWLS, Document(FOXES)], "1: owl and fox"),
        ([], "1: nothing"),
        (None, "1: nothing"),
    ]:
        state = agent.invoke({**ASK, "texts": texts})
        assert last(state).text == said
        assert "texts" not in state
    assert last(agent.invoke(ASK)).text == "1: nothing"
    assert "texts" in json_schema(agent)


def json_schema(agent: Any) -> Any:
    return agent.get_input_jsonschema()["properties"]


def test_a_runs_documents_win(llm: ChatTTT) -> None:
    own = llm.with_documents(FOXES + "\nThis is the model's.")
    agent: Any = create_agent(own, middleware=[TTTDocumentsMiddleware(OWLS, from_state="texts")])
    assert last(agent.invoke({**ASK, "texts": FOXES})).text == "1: fox"
    assert last(agent.invoke(ASK)).text == "1: owl"
    assert last(agent.invoke({**ASK, "texts": []})).text == "1: nothing"


@dataclass
class _Context:
    texts: list[str] | None = None


class _DictContext(TypedDict, total=False):
    texts: list[str]


@pytest.mark.parametrize("kind", [_Context, _DictContext])
def test_documents_in_the_context(llm: ChatTTT, kind: Any) -> None:
    middleware = TTTDocumentsMiddleware(from_context="texts")
    agent: Any = create_agent(llm, middleware=[middleware], context_schema=kind)
    assert last(agent.invoke(ASK, context=kind(texts=[FOXES]))).text == "1: fox"
    assert last(agent.invoke(ASK, context=kind())).text == "1: nothing"
    assert last(agent.invoke(ASK)).text == "1: nothing"


def test_a_wrong_attribute_of_the_context_is_an_error(llm: ChatTTT) -> None:
    middleware = TTTDocumentsMiddleware(from_context="text")
    agent: Any = create_agent(llm, middleware=[middleware], context_schema=_Context)
    with pytest.raises(ConfigError, match="'text': the agent's context, a _Context"):
        agent.invoke(ASK, context=_Context())


@pytest.mark.parametrize("adapt_first", [True, False])
async def test_concurrent_runs_do_not_meet(llm: ChatTTT, adapt_first: bool) -> None:
    middleware = TTTDocumentsMiddleware(from_state="texts", adapt_first=adapt_first)
    agent: Any = create_agent(llm, middleware=[middleware])
    texts = [OWLS, FOXES, [], OWLS, [FOXES, OWLS]]
    expected = ["1: owl", "1: fox", "1: nothing", "1: owl", "1: owl and fox"]
    states = [{**ASK, "texts": text} for text in texts]
    said = await asyncio.gather(*(agent.ainvoke(state) for state in states))
    assert [last(state).text for state in said] == expected
    said = await asyncio.to_thread(agent.batch, states)
    assert [last(state).text for state in said] == expected


async def test_the_loop_goes_on_turning_while_it_adapts(
    llm: ChatTTT, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = threading.Event()
    adapt, started = ChatTTT.adapt, asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait_for_the_loop(self: ChatTTT, *args: Any, **options: Any) -> Any:
        loop.call_soon_threadsafe(started.set)
        assert turned.wait(60), "the loop stands still"
        return adapt(self, *args, **options)

    monkeypatch.setattr(ChatTTT, "adapt", wait_for_the_loop)
    agent = create_agent(llm, middleware=[TTTDocumentsMiddleware(OWLS)])
    run = asyncio.create_task(agent.ainvoke(ASK))
    told = asyncio.create_task(started.wait())
    await asyncio.wait([run, told], return_when=asyncio.FIRST_COMPLETED)
    turned.set()
    assert told.done()
    assert last(await run).text == "1: owl"


def test_checkpoints_keep_a_runs_documents(
    llm: ChatTTT, make_engine: Callable[..., TTTEngine]
) -> None:
    saver = InMemorySaver()
    middleware = TTTDocumentsMiddleware(from_state="texts")
    agent: Any = create_agent(llm, middleware=[middleware], checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "1"}}
    first = agent.invoke({**ASK, "texts": [Document(OWLS, metadata={"page": 1})]}, config)
    assert last(first).text == "1: owl"
    assert last(agent.invoke(ASK, config)).text == "2: owl"
    elsewhere: Any = {"configurable": {"thread_id": "2"}}
    assert last(agent.invoke(ASK, elsewhere)).text == "1: nothing"
    # A process that starts anew: ids are not known there, and what was learned is.
    llm = ChatTTT(engine=make_engine())
    agent = create_agent(llm, middleware=[middleware], checkpointer=saver)
    noted: list[str] = []
    agent.invoke(ASK, {**config, "callbacks": [_Sources(noted)]})
    assert noted == ["prefill"]


class _Sources(BaseCallbackHandler):
    """Notes the stages of work that is told of."""

    def __init__(self, stages: list[str]) -> None:
        self._stages = stages

    def on_custom_event(self, name: str, data: Any, *, run_id: Any, **kwargs: Any) -> None:
        if data["stage"] not in self._stages:
            self._stages.append(data["stage"])


def test_progress_is_told_to_the_agents_handlers(llm: ChatTTT) -> None:
    agent = create_agent(llm, middleware=[TTTDocumentsMiddleware(OWLS)])
    stages: list[str] = []
    agent.invoke(ASK, {"callbacks": [_Sources(stages)]})
    assert stages == ["prefill", "train", "probe"]


async def test_progress_stands_in_event_streams(llm: ChatTTT) -> None:
    agent = create_agent(llm, middleware=[TTTDocumentsMiddleware(OWLS)])
    events: list[Any] = [event async for event in agent.astream_events(ASK, version="v2")]
    custom = [event for event in events if event["event"] == "on_custom_event"]
    assert custom[0]["data"]["stage"] == "prefill"
    names = [event["event"] for event in events]
    assert names.index("on_custom_event") < names.index("on_chat_model_start")


# Structured output, other models, other middleware


class Topic(BaseModel):
    """What a text is about."""

    animal: str


def topic(prompt: str) -> str | None:
    animal = "owl" if "the owl number 3" in prompt else "none"
    if "What is it about?" not in prompt:
        return None
    arguments = f'{{"animal": "{animal}"}}'
    if '"name": "Topic"' not in prompt:
        return arguments
    return f'<tool_call>\n{{"name": "Topic", "arguments": {arguments}}}\n</tool_call>'


@pytest.mark.parametrize("strategy", [Topic, ProviderStrategy(Topic), ToolStrategy(Topic)])
def test_documents_survive_structured_output(
    make_engine: Callable[..., TTTEngine], strategy: Any
) -> None:
    llm = ChatTTT(engine=make_engine(topic))
    middleware = TTTDocumentsMiddleware(OWLS)
    agent: Any = create_agent(llm, response_format=strategy, middleware=[middleware])
    assert agent.invoke(ASK)["structured_response"] == Topic(animal="owl")


def test_a_model_with_bound_options_is_seen_through(llm: ChatTTT) -> None:
    bound: Any = llm.bind(max_tokens=2).with_config(tags=["x"])
    agent = create_agent(bound, middleware=[TTTDocumentsMiddleware(OWLS)])
    answer = last(agent.invoke(ASK))
    assert done(answer)["documents_from"] == "call"


def other() -> BaseChatModel:
    return GenericFakeChatModel(messages=iter([AIMessage("Hello.")] * 3))


def test_other_models_are_called_without(llm: ChatTTT) -> None:
    agent = create_agent(other(), middleware=[TTTDocumentsMiddleware(OWLS)])
    with pytest.warns(UserWarning, match="a GenericFakeChatModel, not a ChatTTT"):
        assert last(agent.invoke(ASK)).text == "Hello."
    quiet = TTTDocumentsMiddleware(OWLS, on_other_model="ignore")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert last(create_agent(other(), middleware=[quiet]).invoke(ASK)).text == "Hello."
        empty = TTTDocumentsMiddleware(from_state="texts")
        assert last(create_agent(other(), middleware=[empty]).invoke(ASK)).text == "Hello."
    strict = TTTDocumentsMiddleware(OWLS, on_other_model="raise")
    with pytest.raises(ConfigError, match="GenericFakeChatModel"):
        create_agent(other(), middleware=[strict]).invoke(ASK)


def test_an_exchanged_model_is_the_one_that_counts(llm: ChatTTT) -> None:
    @wrap_model_call
    def exchange(request: ModelRequest[Any], handler: Any) -> Any:
        return handler(request.override(model=llm))

    agent = create_agent(other(), middleware=[exchange, TTTDocumentsMiddleware(OWLS)])
    assert last(agent.invoke(ASK)).text == "1: owl"


@pytest.mark.parametrize("name", ["documents", "adapter"])
def test_settings_that_name_documents_stay(llm: ChatTTT, name: str) -> None:
    value = {"documents": FOXES, "adapter": llm.adapt(FOXES).id}[name]

    @wrap_model_call
    def own(request: ModelRequest[Any], handler: Any) -> Any:
        return handler(request.override(model_settings={name: value}))

    agent = create_agent(llm, middleware=[own, TTTDocumentsMiddleware(OWLS)])
    assert last(agent.invoke(ASK)).text == "1: fox"


def test_other_settings_stay(llm: ChatTTT) -> None:
    @wrap_model_call
    def own(request: ModelRequest[Any], handler: Any) -> Any:
        return handler(request.override(model_settings={"max_tokens": 2}))

    agent = create_agent(llm, middleware=[own, TTTDocumentsMiddleware(OWLS)])
    assert last(agent.invoke(ASK)).text == "1:"


# Errors


def test_arguments_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="from_state= or from_context="):
        TTTDocumentsMiddleware()
    with pytest.raises(ConfigError, match="not both"):
        TTTDocumentsMiddleware(from_state="a", from_context="b")
    with pytest.raises(ConfigError, match="'ignore', 'warn' or 'raise', not 'panic'"):
        TTTDocumentsMiddleware(OWLS, on_other_model="panic")  # type: ignore[arg-type]
    for nothing in ([], "", [OWLS, " "]):
        with pytest.raises(DocumentError):
            TTTDocumentsMiddleware(nothing)


def test_a_runs_documents_are_checked(llm: ChatTTT) -> None:
    agent: Any = create_agent(llm, middleware=[TTTDocumentsMiddleware(from_state="texts")])
    with pytest.raises(DocumentError):
        agent.invoke({**ASK, "texts": ""})
    with pytest.raises(ConfigError, match="found int"):
        agent.invoke({**ASK, "texts": [3]})
    with pytest.raises(DocumentError) as caught:
        agent.invoke({**ASK, "texts": OWLS * 100})
    assert "owl" not in str(caught.value)


def test_without_langchain_it_says_what_to_install() -> None:
    """And all the rest works."""
    code = (
        "import sys; sys.modules['langchain'] = None; import langchain_ttt\n"
        "try: import langchain_ttt.middleware\n"
        "except ImportError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'langchain>=" in said.stdout
