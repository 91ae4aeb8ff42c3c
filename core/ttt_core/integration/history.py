"""Conversations that outgrow the window: which of their turns to leave out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise

from ttt_core.chat import Message

_MARKUP = 16
"""Tokens that templates write around a message: rather too many, since of too little more is left
out when the engine refuses again, and what was left out too much nobody brings back."""


def without_oldest(
    messages: Sequence[Message],
    *,
    opening: int,
    excess: int,
    count_tokens: Callable[[str], int],
) -> list[Message] | None:
    """Leave out the oldest turns of a conversation: questions with all that followed them.

    Args:
        messages: All contents are text.
        opening: How many of the first messages stay: instructions.
        excess: Tokens to get rid of. What the template writes is estimated, so that a few may be
            left; ask again with those.
        count_tokens: The number of tokens of a text.

    Returns:
        The conversation that is left; None, if its last turn is all there is.
    """
    starts = _turns(messages, opening)
    left, freed = opening, 0
    for start, end in pairwise(starts):
        left, dropped = end, messages[start:end]
        freed += sum(count_tokens(_written(message)) + _MARKUP for message in dropped)
        if freed >= excess:
            break
    return None if left == opening else [*messages[:opening], *messages[left:]]


def _written(message: Message) -> str:
    calls = message.get("tool_calls")
    return str(message["content"]) + (
        json.dumps(calls, ensure_ascii=False, default=str) if calls else ""
    )


def _turns(messages: Sequence[Message], opening: int) -> list[int]:
    """Where turns begin: at questions, and at whatever comes first."""
    numbers = range(opening, len(messages))
    return [
        n
        for n in numbers
        if n == opening or (messages[n]["role"] == "user" and messages[n - 1]["role"] != "user")
    ]
