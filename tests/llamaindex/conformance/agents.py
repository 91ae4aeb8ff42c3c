"""Agents and workflows on the class, whether it calls functions itself or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.agent.workflow import (
    AgentStream,
    AgentWorkflow,
    FunctionAgent,
    ReActAgent,
    ToolCallResult,
)
from llama_index.core.memory import Memory
from llama_index.core.tools import FunctionTool
from llama_index.core.workflow import Context, JsonSerializer
from pydantic import BaseModel

from tests.llamaindex.conformance.hooks import (
    ENOUGH,
    THINKING_TEMPLATE,
    Capable,
    Hooks,
    forgetful_memory,
)
from tests.llamaindex.conformance.tools import ONE, TWO, multiply
from tests.llamaindex.scripts import THOUGHT, clerk, reasoner, rememberer, thinker
from tests.scripted import ScriptedModel, scripted_tokenizer


class Total(BaseModel):
    """The result of a sum."""

    value: int


def run(agent: Any, question: str, **options: Any) -> tuple[Any, list[Any]]:
    """Run an agent; return its output and the events of its stream."""

    async def go() -> tuple[Any, list[Any]]:
        handler = agent.run(question, **options)
        events = [event async for event in handler.stream_events()]
        return await handler, events

    return asyncio.run(go())


@pytest.mark.filterwarnings(
    # Workflows look at every attribute of an agent, outdated ones too.
    "ignore::DeprecationWarning",
    "ignore:Skipping serialization of known unserializable key. memory",
)
@forgetful_memory
class Agents(Hooks):
    """`FunctionAgent`, `ReActAgent` and `AgentWorkflow`."""

    @pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "whole"])
    def test_a_function_agent_uses_its_tools(self, capable: Capable, streaming: bool) -> None:
        llm, _ = capable(clerk)
        agent = FunctionAgent(llm=llm, tools=[multiply], streaming=streaming)
        output, events = run(agent, ONE)
        assert str(output) == "I get 42."
        results = [event for event in events if isinstance(event, ToolCallResult)]
        assert [(r.tool_name, r.tool_output.content) for r in results] == [("multiply", "42")]

    def test_a_function_agent_streams_its_answer(self, capable: Capable) -> None:
        llm, _ = capable(clerk)
        _, events = run(FunctionAgent(llm=llm, tools=[multiply]), ONE)
        streamed = [event for event in events if isinstance(event, AgentStream)]
        assert "".join(event.delta for event in streamed) == "I get 42."
        assert all(json.dumps(event.raw) for event in streamed)

    def test_a_function_agent_calls_several_tools_at_once(self, capable: Capable) -> None:
        llm, _ = capable(clerk)
        output, _ = run(FunctionAgent(llm=llm, tools=[multiply]), TWO)
        assert str(output) == "I get 42 and 6."

    def test_a_function_agent_begins_with_the_tool_it_is_told_to(self, capable: Capable) -> None:
        llm, _ = capable(clerk)
        agent = FunctionAgent(llm=llm, tools=[multiply], initial_tool_choice="multiply")
        output, _ = run(agent, ONE)
        assert str(output) == "I get 42."

    def test_a_tool_that_answers_ends_the_run(self, capable: Capable) -> None:
        llm, model = capable(clerk)
        tool = FunctionTool.from_defaults(multiply, return_direct=True)
        output, _ = run(FunctionAgent(llm=llm, tools=[tool]), ONE)
        assert str(output) == "42"
        assert len(model.prompts) == 1

    def test_an_agent_s_output_can_be_an_object(self, capable: Capable) -> None:
        llm, _ = capable(clerk)
        output, _ = run(FunctionAgent(llm=llm, tools=[multiply], output_cls=Total), ONE)
        assert output.get_pydantic_model(Total) == Total(value=42)

    def test_one_agent_hands_over_to_another(self, capable: Capable) -> None:
        llm, _ = capable(clerk)
        desk = FunctionAgent(
            name="desk",
            description="Takes questions.",
            llm=llm,
            tools=[],
            can_handoff_to=["calculator"],
        )
        calculator = FunctionAgent(
            name="calculator", description="Multiplies.", llm=llm, tools=[multiply]
        )
        workflow = AgentWorkflow(agents=[desk, calculator], root_agent="desk")
        output, _ = run(workflow, ONE)
        assert (str(output), output.current_agent_name) == ("I get 42.", "calculator")

    def test_a_workflow_of_tools_calls_functions(self, capable: Capable) -> None:
        llm, _ = capable(clerk)
        workflow = AgentWorkflow.from_tools_or_functions([multiply], llm=llm)
        (agent,) = workflow.agents.values()
        assert isinstance(agent, FunctionAgent)

    def test_a_workflow_of_tools_works(self, capable: Capable) -> None:
        """By whatever agent LlamaIndex takes for the class."""
        llm, model = capable(clerk)
        workflow = AgentWorkflow.from_tools_or_functions([multiply], llm=llm)
        if isinstance(next(iter(workflow.agents.values())), ReActAgent):
            model.script = reasoner
        assert str(run(workflow, ONE)[0]) == "I get 42."

    @pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "whole"])
    def test_a_react_agent_uses_its_tools(self, capable: Capable, streaming: bool) -> None:
        llm, _ = capable(reasoner)
        agent = ReActAgent(llm=llm, tools=[multiply], streaming=streaming)
        output, events = run(agent, ONE)
        assert str(output) == "I get 42."
        results = [event for event in events if isinstance(event, ToolCallResult)]
        assert [r.tool_output.content for r in results] == ["42"]

    def test_an_agent_without_tools_talks(self, capable: Capable) -> None:
        llm, _ = capable(clerk)
        assert str(run(FunctionAgent(llm=llm), "Hello!")[0]) == "Hello."

    @pytest.mark.parametrize("kind", [FunctionAgent, ReActAgent])
    @pytest.mark.parametrize("stored", [False, True], ids=["in memory", "stored"])
    def test_a_context_remembers_the_runs_before(
        self, capable: Capable, kind: type, stored: bool
    ) -> None:
        def said(prompt: str) -> str:
            text = rememberer(prompt)
            return f"Thought: I know.\nAnswer: {text}" if kind is ReActAgent else text

        llm, _ = capable(said)
        agent = kind(llm=llm, tools=[multiply])

        async def go() -> str:
            context, memory = Context(agent), Memory.from_defaults(token_limit=900)
            # LlamaIndex leaves the agent's own memory out of what it stores of a context, and with
            # newer workflows also out of what it takes to the next run.
            await agent.run("My name is Ann.", ctx=context, memory=memory)
            if stored:
                data = json.dumps(context.to_dict(serializer=JsonSerializer()))
                context = Context.from_dict(agent, json.loads(data), serializer=JsonSerializer())
            return str(await agent.run("Who am I?", ctx=context, memory=memory))

        assert asyncio.run(go()) == "You are Ann."

    def test_a_context_with_calls_in_it_can_be_stored(self, capable: Capable) -> None:
        llm, _ = capable(clerk)
        agent = FunctionAgent(llm=llm, tools=[multiply])

        async def go() -> str:
            context = Context(agent)
            await agent.run(ONE, ctx=context)
            data = json.dumps(context.to_dict(serializer=JsonSerializer()))
            again = Context.from_dict(agent, json.loads(data), serializer=JsonSerializer())
            return str(await agent.run("What is 3 times 4?", ctx=again))

        assert asyncio.run(go()) == "I get 12."

    def test_two_agents_run_at_once(self, capable: Capable) -> None:
        llm, _ = capable(clerk)

        async def go() -> list[str]:
            agents = [FunctionAgent(llm=llm, tools=[multiply]) for _ in range(2)]
            outputs = await asyncio.gather(agents[0].run(ONE), agents[1].run("What is 3 times 4?"))
            return [str(output) for output in outputs]

        assert asyncio.run(go()) == ["I get 42.", "I get 12."]

    def test_thought_is_streamed_apart_from_the_answer(self, make_llm: Callable[..., Any]) -> None:
        if self.thinking is None:
            pytest.skip("not claimed: thinking")
        tokenizer = scripted_tokenizer(THINKING_TEMPLATE)
        model = ScriptedModel(thinker, tokenizer)
        llm = make_llm(model, tokenizer, max_tokens=ENOUGH, **self.thinking)
        output, events = run(FunctionAgent(llm=llm, tools=[multiply]), "Which town?")
        streamed = [event for event in events if isinstance(event, AgentStream)]
        assert str(output) == "".join(event.delta for event in streamed) == "Paris"
        assert "".join(event.thinking_delta or "" for event in streamed).strip() == THOUGHT
