"""What a capable model would say to the standard tests that need one."""

from __future__ import annotations

import re

CAPABLE = (
    "test_agent_loop",
    "test_tool_calling",
    "test_tool_calling_async",
    "test_unicode_tool_call_integration",
)
"""Standard tests that need more than plumbing and grammars."""

_CUSTOMER = re.compile("Create a customer named '([^']+)'")


def capable(prompt: str) -> str:
    """Say it; for `ScriptedModel`.

    It calls only tools that its prompt shows. So this is no way around a chat model that drops
    tools on their way to the template.
    """
    question = prompt.rpartition("<|im_start|>user\n")[2]
    if question.startswith("<tool_response>"):
        return "It is sunny."
    if "magic_function(3)" in question:
        name, arguments = "magic_function", '{"input": 3}'
    elif "weather" in question:
        name, arguments = "get_weather", '{"location": "San Francisco, CA"}'
    elif customer := _CUSTOMER.search(question):
        name = "unicode_customer"
        arguments = f'{{"customer_name": "{customer[1]}", "description": "a company"}}'
    else:
        return "Hello."
    if f'"name": "{name}"' not in prompt:
        return "I see no such function."
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
