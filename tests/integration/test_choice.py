"""All ways to say which tool a call has to use mean one of four things."""

from __future__ import annotations

from typing import Any

import pytest

from ttt_core.errors import ConfigError
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


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"function": "look"},
        {"type": "function", "function": {}},
        {"type": "function", "function": {"name": ""}},
        {"type": "function"},
        {"type": "tool"},
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}},
        {"type": "any", "name": "look"},
        {"type": "custom", "name": "look"},
        {"type": ["any"]},
        {"name": 3},
        {"mode": "auto"},
    ],
)
def test_other_objects_are_errors_that_say_what_it_can_be(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"tool_choice is 'auto', .*\"type\": \"tool\"") as caught:
        tool_choice_of(given)
    assert "look" not in str(caught.value)


@pytest.mark.parametrize(
    "given", [{"function": {"name": "look"}}, {"name": "look"}, {"type": "required"}]
)
def test_objects_may_leave_out_what_is_clear(given: Any) -> None:
    assert tool_choice_of(given) in ("look", "required")
