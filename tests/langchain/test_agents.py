"""Agents on ChatTTT: tools, structured output, memory and streams, over a document.

The model is scripted (see tests/scripted.py): it decides to call a tool because the script says so;
that the call is offered, enforced, read, executed and its result shown to the model is real.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from functools import reduce
from operator import add
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.tools import ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import BaseModel

from langchain_ttt import ChatTTT
from tests.scripted import ScriptedModel, scripted_tokenizer
from ttt_core import AdaptationConfig, TTTEngine

OWLS = "\n".join(f"the owl number {number} lives in tree {number * 7 % 10}" for number in range(5))
RECIPE = AdaptationConfig(steps=2, gate=False, early_stopping=False, held_out=2, clozes_per_step=2)
OWL = re.compile(r"owl number (\d)\?")


@tool
def height_of(tree: int) -> str:
    """Say how high a tree is."""
    return f"tree {tree} is {tree + 10} metres high"


@tool
def age_of(tree: int) -> str:
    """Say how old a tree is."""
    return f"tree {tree} is {tree * 10} years old"


@tool
def fell(tree: int) -> str:
    """Cut a tree down."""
    raise ToolException(f"tree {tree} is protected")


fell.handle_tool_error = True
TOOLS = [height_of, age_of, fell]


def call(name: str, tree: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {{"tree": {tree}}}}}\n</tool_call>'


def ranger(prompt: str) -> str | None:
    """Look the tree up in the document, ask a tool about it, and pass on what it says."""
    turn = prompt.rpartition("<|im_start|>user\n")[2]
    if "<tool_response>" in turn:
        said = re.findall(r"<tool_response>\n(.*?)\n</tool_response>", turn, re.DOTALL)
        return f"I hear that {' and '.join(said)}."
    owl = OWL.search(turn)
    if owl is None:
        return "Hello again." if "Hello" in turn and "assistant" in prompt else None
    home = re.search(rf"the owl number {owl[1]} lives in tree (\d)", prompt)
    if home is None:
        return "I do not know that owl."
    question = turn.rpartition("\n\n")[2]  # Behind the document and what is told of tools.
    wanted = [name for name in ("height", "age", "fell") if name in question]
    names = {"height": "height_of", "age": "age_of", "fell": "fell"}
    if '"name": "height_of"' not in prompt:
        return f"It lives in tree {home[1]}."
    return "\n".join(call(names[name], home[1]) for name in wanted)


@pytest.fixture
def make_llm(tmp_path: Path) -> Iterator[Callable[..., ChatTTT]]:
    engines = []

    def make(script: Callable[[str], str | None] = ranger, **options: Any) -> ChatTTT:
        tokenizer = scripted_tokenizer(tools=True)
        model = ScriptedModel(script, tokenizer)
        engine = TTTEngine(model, tokenizer, adaptation=RECIPE, store=tmp_path / "store")
        engines.append(engine)
        return ChatTTT(engine=engine, **options)

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def owls(make_llm: Callable[..., ChatTTT]) -> ChatTTT:
    return make_llm(documents=OWLS)


def asking(*wanted: str, owl: int = 1) -> Any:
    text = f"What is the {' and the '.join(wanted)} of the tree of owl number {owl}?"
    return {"messages": [HumanMessage(text)]}


def done(message: BaseMessage) -> dict[str, Any]:
    about = message.response_metadata["ttt"]
    assert isinstance(about, dict)
    return about


def kinds(messages: list[BaseMessage]) -> list[str]:
    return [message.type for message in messages]


def check_run(messages: list[BaseMessage]) -> None:
    """The model called a tool about what stands in the document, and told of the result."""
    assert kinds(messages) == ["human", "ai", "tool", "ai"]
    called, result, answer = messages[1:]
    assert isinstance(called, AIMessage)
    assert isinstance(result, ToolMessage)
    assert [(c["name"], c["args"]) for c in called.tool_calls] == [("height_of", {"tree": 7})]
    assert called.response_metadata["finish_reason"] == "tool_calls"
    assert result.tool_call_id == called.tool_calls[0]["id"]
    assert (result.content, result.status) == ("tree 7 is 17 metres high", "success")
    assert answer.text == "I hear that tree 7 is 17 metres high."
    assert done(called)["decision"] == done(answer)["decision"] == "adapted"
    assert done(called)["document_id"] == done(answer)["document_id"] is not None
    assert done(answer)["source"] == "memory"


def test_an_agent_asks_a_tool_about_its_document(owls: ChatTTT) -> None:
    check_run(create_agent(owls, TOOLS).invoke(asking("height"))["messages"])


async def test_an_agent_beside_an_event_loop(owls: ChatTTT) -> None:
    agent = create_agent(owls, TOOLS, system_prompt="Be brief.")
    both = await asyncio.gather(
        agent.ainvoke(asking("height")), agent.ainvoke(asking("age", owl=2))
    )
    check_run(both[0]["messages"])
    assert both[1]["messages"][-1].text == "I hear that tree 4 is 40 years old."


def check_stream(parts: list[Any]) -> None:
    nodes = [name for mode, part in parts if mode == "updates" for name in part]
    assert nodes == ["model", "tools", "model"]
    updates = [part for mode, part in parts if mode == "updates"]
    messages = [HumanMessage("?"), *(m for u in updates for v in u.values() for m in v["messages"])]
    check_run(messages)
    chunks = [part[0] for mode, part in parts if mode == "messages"]
    by_id: dict[str, list[AIMessageChunk]] = {}
    for chunk in chunks:
        if isinstance(chunk, AIMessageChunk):
            by_id.setdefault(str(chunk.id), []).append(chunk)
    called, answer = (reduce(add, one) for one in by_id.values())
    assert len(by_id[str(answer.id)]) > 3
    assert (called.id, answer.id) == (messages[1].id, messages[3].id)
    assert called.tool_calls == messages[1].tool_calls
    assert called.text == ""
    assert answer.text == messages[3].text
    assert answer.usage_metadata == messages[3].usage_metadata


MODES: Any = ["messages", "updates"]


def test_a_streamed_agent(owls: ChatTTT) -> None:
    check_stream(list(create_agent(owls, TOOLS).stream(asking("height"), stream_mode=MODES)))


async def test_a_streamed_agent_beside_an_event_loop(owls: ChatTTT) -> None:
    stream = create_agent(owls, TOOLS).astream(asking("height"), stream_mode=MODES)
    check_stream([part async for part in stream])


async def test_events_of_an_agent(owls: ChatTTT) -> None:
    """`version="v2"`: what models and tools do, by name."""
    agent = create_agent(owls, TOOLS)
    events: list[Any] = [e async for e in agent.astream_events(asking("height"), version="v2")]
    ended = [e for e in events if e["event"] in ("on_chat_model_end", "on_tool_end")]
    assert [e["name"] for e in ended] == ["ChatTTT", "height_of", "ChatTTT"]
    streamed = [e["data"]["chunk"] for e in events if e["event"] == "on_chat_model_stream"]
    said = "".join(chunk.text for chunk in streamed)
    assert said == "I hear that tree 7 is 17 metres high."


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
async def test_typed_events_of_an_agent(owls: ChatTTT) -> None:
    """`version="v3"`: messages and tool calls as streams of their own."""
    agent: Any = create_agent(owls, TOOLS)
    stream = agent.stream_events(asking("height"), version="v3")
    said = [message.output for message in stream.messages]
    assert [message.text for message in said] == ["", "I hear that tree 7 is 17 metres high."]
    assert said[0].tool_calls[0]["args"] == {"tree": 7}
    check_run(stream.output["messages"])
    later = await agent.astream_events(asking("height"), version="v3")
    check_run((await later.output())["messages"])


def test_parallel_calls(owls: ChatTTT) -> None:
    messages = create_agent(owls, TOOLS).invoke(asking("height", "age"))["messages"]
    assert kinds(messages) == ["human", "ai", "tool", "tool", "ai"]
    assert [c["name"] for c in messages[1].tool_calls] == ["height_of", "age_of"]
    assert len({c["id"] for c in messages[1].tool_calls}) == 2
    assert messages[-1].text == ("I hear that tree 7 is 17 metres high and tree 7 is 70 years old.")


def test_no_parallel_calls_where_they_are_off(owls: ChatTTT) -> None:
    bound = owls.bind_tools(TOOLS, parallel_tool_calls=False)
    answer = bound.invoke(asking("height", "age")["messages"])
    assert [c["name"] for c in answer.tool_calls] == ["height_of"]


def test_a_tool_that_fails_is_told_of(owls: ChatTTT) -> None:
    messages = create_agent(owls, TOOLS).invoke(asking("fell"))["messages"]
    assert (messages[2].status, messages[2].content) == ("error", "tree 7 is protected")
    assert messages[3].text == "I hear that tree 7 is protected."


def test_a_tool_that_raises_ends_the_run_and_nothing_else(owls: ChatTTT) -> None:
    failing = [True]

    @tool("height_of")
    def breaks(tree: int) -> str:
        """Say how high a tree is."""
        if failing.pop():
            raise OSError("no ladder")
        return f"tree {tree} is {tree + 10} metres high"

    failing.insert(0, False)
    agent = create_agent(owls, [breaks])
    with pytest.raises(OSError, match="no ladder"):
        agent.invoke(asking("height"))
    check_run(agent.invoke(asking("height"))["messages"])


def test_memory_over_two_turns(owls: ChatTTT) -> None:
    agent = create_agent(owls, TOOLS, checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    check_run(agent.invoke(asking("height"), config)["messages"])
    messages = agent.invoke(asking("age", owl=3), config)["messages"]
    assert kinds(messages) == ["human", "ai", "tool", "ai"] * 2
    assert messages[-1].text == "I hear that tree 1 is 10 years old."
    # The first turn is in the prompt: the second costs more tokens than it would alone.
    alone = create_agent(owls, TOOLS).invoke(asking("age", owl=3))["messages"]
    tokens = [m[-1].usage_metadata["input_tokens"] for m in (messages, alone)]
    assert tokens[0] > tokens[1] + 100


# Structured output


class Home(BaseModel):
    """Where an owl lives."""

    owl: int
    tree: int


def reporter(prompt: str) -> str | None:
    """Ask a tool, then report in the form that is asked for."""
    turn = prompt.rpartition("<|im_start|>user\n")[2]
    home = '{"owl": 1, "tree": 7}'
    if "<tool_response>" in turn:
        if '"name": "Home"' in prompt:
            return f'<tool_call>\n{{"name": "Home", "arguments": {home}}}\n</tool_call>'
        return home
    if OWL.search(turn) is None:
        return None
    return call("height_of", "7")


@pytest.mark.parametrize("strategy", [Home, ProviderStrategy(Home), ToolStrategy(Home)])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_agent_with_a_form_to_fill_in(
    make_llm: Callable[..., ChatTTT], strategy: Any, asynchronous: bool
) -> None:
    agent: Any = create_agent(
        make_llm(reporter, documents=OWLS), [height_of], response_format=strategy
    )
    given = asking("height")
    state = asyncio.run(agent.ainvoke(given)) if asynchronous else agent.invoke(given)
    assert state["structured_response"] == Home(owl=1, tree=7)
    assert kinds(state["messages"])[:4] == ["human", "ai", "tool", "ai"]
    assert state["messages"][1].tool_calls[0]["name"] == "height_of"
    assert {done(m)["decision"] for m in state["messages"] if m.type == "ai"} == {"adapted"}


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_documents_survive_structured_output(make_llm: Callable[..., ChatTTT], method: Any) -> None:
    def fill(prompt: str) -> str | None:
        home = re.search(r"the owl number 1 lives in tree (\d)", prompt)
        filled = f'{{"owl": 1, "tree": {home[1] if home else 0}}}'
        if '"name": "Home"' in prompt:
            return f'<tool_call>\n{{"name": "Home", "arguments": {filled}}}\n</tool_call>'
        return filled if "Where" in prompt else None

    llm = make_llm(fill, documents=OWLS)
    form = llm.with_structured_output(Home, method=method, include_raw=True)
    said: Any = form.invoke("Where?")
    assert said["parsed"] == Home(owl=1, tree=7)
    assert done(said["raw"])["documents_from"] == "instance"


def test_documents_survive_bound_tools(owls: ChatTTT) -> None:
    answer = owls.bind_tools(TOOLS).invoke(asking("height")["messages"])
    assert answer.tool_calls[0]["args"] == {"tree": 7}
    again = owls.bind_tools(TOOLS).bind(max_tokens=200).with_config(tags=["x"])
    assert again.invoke(asking("height")["messages"]).tool_calls[0]["args"] == {"tree": 7}
    assert done(answer)["documents_from"] == "instance"


# LangGraph without an agent factory


class _Chat(TypedDict):
    messages: Annotated[list[BaseMessage], add_messages]


def test_a_graph_of_ones_own(owls: ChatTTT) -> None:
    llm = owls.bind_tools(TOOLS)

    def ask(state: _Chat) -> dict[str, Any]:
        return {"messages": [llm.invoke(state["messages"])]}

    graph = StateGraph(_Chat)
    graph.add_node("model", ask)
    graph.add_node("tools", ToolNode(TOOLS))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    app: Any = graph.compile()
    check_run(app.invoke(asking("height"))["messages"])
    check_stream(list(app.stream(asking("height"), stream_mode=MODES)))


def test_without_the_document_there_is_nothing_to_ask_about(owls: ChatTTT) -> None:
    """What the script answers does come out of the document."""
    bare = ChatTTT(engine=owls.engine)
    messages = create_agent(bare, TOOLS).invoke(asking("height"))["messages"]
    assert messages[-1].text == "I do not know that owl."
    assert done(messages[-1])["decision"] == "no_document"
