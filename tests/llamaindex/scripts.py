"""What a capable model would say to the prompts of the conformance suite; for `ScriptedModel`.

Every script goes by the prompt that reached the model and by nothing else: a tool that was not
offered is not called, and a fact that the prompt does not hold is not known.
"""

from __future__ import annotations

import json
import re
from typing import Any

OPENING = "<|im_start|>assistant\n"
FACTS = {"amber falcon": "Oslo", "quiet harbour": "Lima"}
"""Who lives where, in the documents of the suite."""

THOUGHT = "hm, yes"
THINKING = f"<think>\n{THOUGHT}\n</think>\n\nParis"
LONG = "An owl sat in the old oak. " * 8

DESCRIBED: dict[str, dict[str, Any]] = {
    "Song": {"title": "Night", "year": 1999},
    "Album": {"name": "Trees", "songs": [{"title": "Oak", "year": 1}, {"title": "Ash", "year": 2}]},
    "Opinion": {"mood": "bad"},
    "Remark": {"text": "well said"},
    "Total": {"value": 42},
}
"""What the model writes when it is asked for one of the suite's schemas."""

_ASKED = re.compile(r"Where is ((?:amber|quiet) \w+)\?")
_WANTED = re.compile(r"Describe an? (\w+)")
_PRODUCT = re.compile(r"(\d+) times (\d+)")
_RESULT = re.compile(r"<tool_response>\n(.*?)\n</tool_response>", re.DOTALL)


def last_turn(prompt: str) -> str:
    """The last turn of the user, or of tools."""
    return prompt.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]


def call(name: str, **arguments: Any) -> str:
    """Write a call as the template tells the model to."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def offers(prompt: str, tool: str) -> bool:
    """Whether the template told the model about a tool."""
    return f'"name": "{tool}"' in prompt


def hello(prompt: str) -> str:
    """Never mind what is asked."""
    return "Hello."


def chatter(prompt: str) -> str:
    """A long answer."""
    return LONG


def thinker(prompt: str) -> str:
    """Think, then answer."""
    return THINKING


def reader(prompt: str) -> str:
    """Answer from what the prompt says; write a question anew where the prompt asks for one."""
    asked = _ASKED.findall(prompt)
    if not asked:
        return "Hello."
    if "tandalone question" in prompt:
        return f"Where is {asked[-1]}?"
    home = re.search(rf"{asked[-1]}: (\w+)", prompt) or re.search(r"It is in (\w+)\.", prompt)
    return f"It is in {home[1]}." if home else "I do not know."


def author(prompt: str) -> str:
    """Write an object: in a call if there is a tool for it, else as text."""
    wanted = _WANTED.findall(prompt)
    kind = wanted[-1] if wanted else "Total"
    if offers(prompt, kind):
        return call(kind, **DESCRIBED[kind])
    return json.dumps(DESCRIBED[kind])


def clerk(prompt: str) -> str:
    """Multiply with the tool if there is one; hand over, or write the object, where asked to."""
    turn = last_turn(prompt)
    if "output according to the provided schema" in turn or offers(prompt, "Total"):
        return author(prompt)
    results = _RESULT.findall(turn)
    if results and "handling the request" not in results[-1]:
        return f"I get {' and '.join(results)}."
    sums = _PRODUCT.findall(turn) or _PRODUCT.findall(prompt)
    if not sums or (not results and not _PRODUCT.search(turn)):
        return "Hello."
    if not offers(prompt, "multiply"):
        if offers(prompt, "handoff"):
            return call("handoff", to_agent="calculator", reason="it is a sum")
        return "I cannot multiply."
    return "\n".join(call("multiply", a=int(a), b=int(b)) for a, b in sums)


def reasoner(prompt: str) -> str:
    """Multiply in the manner of ReAct, as the prompt explains it."""
    turn = last_turn(prompt)
    if observed := re.search(r"Observation: (.*)", turn):
        return f"Thought: I can answer without using any more tools.\nAnswer: I get {observed[1]}."
    a, b = _PRODUCT.findall(turn)[-1]
    return f'Thought: I need a tool.\nAction: multiply\nAction Input: {{"a": {a}, "b": {b}}}'


def rememberer(prompt: str) -> str:
    """Tell the name that the conversation mentions."""
    named = re.search(r"My name is (\w+)\.", prompt)
    return f"You are {named[1]}." if named else "I do not know you."
