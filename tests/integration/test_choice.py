"""All ways to say which tool a call has to use mean one of four things."""

from __future__ import annotations

from typing import Any

import pytest

from ttt_core.integration.choice import tool_choice_of


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        (False, None),
        (True, "required"),
        ("any", "required"),
        ("required", "required"),
        ("auto", "auto"),
        ("none", "none"),
        ("look", "look"),
        ({"type": "function", "function": {"name": "look"}}, "look"),
        ({"type": "function", "name": "look"}, "look"),
        ({"type": "tool", "name": "look"}, "look"),
        ({"type": "any"}, "required"),
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
    ],
)
def test_all_shapes_are_one(given: Any, expected: Any) -> None:
    assert tool_choice_of(given) == expected
    assert tool_choice_of(tool_choice_of(given)) == expected
