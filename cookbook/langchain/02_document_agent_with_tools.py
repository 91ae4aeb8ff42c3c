"""An agent that has read a long document, and has tools for what reading cannot do: to count.

    python cookbook/langchain/02_document_agent_with_tools.py
    python cookbook/langchain/02_document_agent_with_tools.py report.md --model Qwen/Qwen3-4B \\
        --ask "How often is the auditor mentioned, and what did she object to?"

Prints (shortened):
    4 questions, 2 tools
    count_lines {'words': 'jolly fox'}
    Where is indigo hammer? indigo hammer: Beirut
    4 of 4 right; 1 of 4 called with the right words

The bundled toy cannot choose a tool: its first call is forced, and the grammar makes the arguments
valid, not wise. What it gets right it has from the document: 17 of 20 answers for five seeds, of
which this is one of the best.

When not to use it: where tools find all that is needed (then read nothing ahead), or with a model
too small to call tools on its own.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest, ModelResponse, wrap_model_call
from pydantic import Field

from langchain_ttt import ChatTTT, TTTDocumentsMiddleware
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
Words = Annotated[str, Field(pattern=f"^({keys})$")]


def find_lines(words: Words) -> str:
    """Lines that hold these words."""
    return "\n".join(line for line in text.splitlines() if words in line)[:500]


def count_lines(words: Words) -> int:
    """How many lines hold these words."""
    return sum(words in line for line in text.splitlines())


@wrap_model_call
def force(request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]) -> ModelResponse:
    """Let the toy call a tool at first; leave other models alone."""
    first = options.model is None and request.messages[-1].type == "human"
    return handler(request.override(tool_choice="count_lines") if first else request)


llm, tools = ChatTTT(model=options.model, max_tokens=64), [find_lines, count_lines]
agent = create_agent(llm, tools, middleware=[force, TTTDocumentsMiddleware(text)])
print(f"{len(truth or options.ask)} questions, {len(tools)} tools")
right = called = 0
for question in truth or options.ask:
    messages = agent.invoke({"messages": [("human", question)]})["messages"]
    for call in (call for each in messages[1:] for call in getattr(each, "tool_calls", [])):
        print(call["name"], call["args"])
        called += bool(truth) and call["args"]["words"] == truth[question].key
    print(question, messages[-1].text)
    right += bool(truth) and messages[-1].text == truth[question].answer
if truth:
    print(f"{right} of {len(truth)} right; {called} of {len(truth)} called with the right words")
