"""An agent that has read a long document, and has tools for what reading cannot do: to count.

    python cookbook/llamaindex/04_function_agent_over_documents.py
    python cookbook/llamaindex/04_function_agent_over_documents.py report.md \\
        --model Qwen/Qwen3-4B \\
        --ask "How often is the auditor mentioned, and what did she object to?"

Prints (shortened):
    4 questions, 2 tools
    count_lines {'words': 'jolly fox'}
    Where is indigo hammer? indigo hammer: Beirut
    4 of 4 right; 1 of 4 called with the right words

The bundled toy cannot choose a tool: its first call is forced by `initial_tool_choice`, and the
grammar makes the arguments valid, not wise. What it gets right it has from the document: 17 of
20 answers for five seeds, of which this is one of the two best.

When not to use it: where tools find all that is needed (then read nothing ahead), or with a model
too small to call tools on its own.
"""

import argparse
import asyncio
from pathlib import Path

from llama_index.core.agent.workflow import FunctionAgent, ToolCall
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, Field

from llamaindex_ttt import TTTLLM
from ttt_core.sandbox import make_registry

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("file", nargs="?", help="a text file; without it, a generated registry")
parser.add_argument("--ask", nargs="+", default=["What is this about?"], metavar="QUESTION")
parser.add_argument("--model", help="a local folder or a Hub id; default: the bundled toy model")
options = parser.parse_args()

registry = make_registry(64, seed=0, questions=0 if options.file else 4)
text = Path(options.file).read_text("utf-8") if options.file else registry.text
truth = {each.text: each for each in registry.questions}
keys = "|".join(each.key for each in registry.questions) or ".{1,40}"


class Words(BaseModel):
    """Of what a signature says, LlamaIndex drops patterns and lengths; a class keeps them."""

    words: str = Field(pattern=f"^({keys})$")


def find_lines(words: str) -> str:
    """Lines that hold these words."""
    return "\n".join(line for line in text.splitlines() if words in line)[:500]


def count_lines(words: str) -> int:
    """How many lines hold these words."""
    return sum(words in line for line in text.splitlines())


llm = TTTLLM(model=options.model, max_tokens=64).for_documents(text)
tools = [
    FunctionTool.from_defaults(each, fn_schema=Words, description=each.__doc__)
    for each in (find_lines, count_lines)
]
agent = FunctionAgent(
    llm=llm,
    tools=tools,
    # The toy would never call one by itself; leave other models alone.
    initial_tool_choice=None if options.model else "count_lines",
)


async def main() -> None:
    """Ask one question after the other."""
    print(f"{len(truth or options.ask)} questions, {len(tools)} tools")
    right = called = 0
    for question in truth or options.ask:
        run = agent.run(question)
        async for event in run.stream_events():
            if type(event) is ToolCall:
                print(event.tool_name, event.tool_kwargs)
                called += bool(truth) and event.tool_kwargs["words"] == truth[question].key
        answer = str(await run)
        print(question, answer)
        right += bool(truth) and answer == truth[question].answer
    if truth:
        print(
            f"{right} of {len(truth)} right; {called} of {len(truth)} called with the right words"
        )


asyncio.run(main())
