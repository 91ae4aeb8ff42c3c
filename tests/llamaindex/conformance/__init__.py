"""The conformance suite that LlamaIndex does not have: what users may expect of any LLM class.

LlamaIndex tests an integration by the names of its base classes. Here every promise of the LLM
interface, and of what is built on it, is a test. To put a class through, derive from `Hooks`, say
how an LLM is made, and let `classes` combine that with the areas:

>>> class MyHooks(Hooks): ...
>>> globals().update(classes("MyLLM", MyHooks))

Nothing in here knows a class under test. Weights are small and random; where an answer must make
sense they are scripted (see tests/scripted.py), the same for every class. What a class does not
claim (tools, thinking) is skipped, but that agents, engines and structured output work is expected
of every class: LlamaIndex has ways for those that do not call functions.
"""

from __future__ import annotations

from importlib import import_module

import pytest

from tests.llamaindex.conformance.hooks import Hooks

AREAS = {
    "Calls": "calls",
    "Events": "events",
    "Asynchrony": "asynchrony",
    "Prediction": "prediction",
    "StructuredOutput": "structured",
    "Tools": "tools",
    "Agents": "agents",
    "Synthesis": "synthesis",
    "ChatEngines": "chat_engines",
    "Objects": "objects",
}
"""The test classes, and the modules that they are in."""

__all__ = ["AREAS", "Hooks", "classes"]

# Before they are imported: failures are to tell what was found.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in AREAS.values()))


def classes(name: str, hooks: type[Hooks]) -> dict[str, type]:
    """Return a test class for each area, by the names under which pytest finds them."""
    found = {}
    for area, module in AREAS.items():
        tests: type = getattr(import_module(f"{__name__}.{module}"), area)
        found[f"Test{name}{area}"] = type(f"Test{name}{area}", (hooks, tests), {})
    return found
