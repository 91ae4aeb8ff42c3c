"""System messages that are part of a prompt's template: told behind documents, see `TEMPLATE`."""

from __future__ import annotations

from collections.abc import Sequence

from ttt_core.chat import SEAM, Message
from ttt_core.integration.prompt import TEMPLATE, is_system


def is_template(message: Message) -> bool:
    """Return whether a message is a template's system message."""
    return is_system(message) and bool(message.get(TEMPLATE))


def told_behind(opening: Sequence[Message]) -> list[Message]:
    """Make the system messages of templates a message of the user."""
    told = [str(message["content"]) for message in opening if is_template(message)]
    kept = [message for message in opening if not is_template(message)]
    return [*kept, {"role": "user", "content": SEAM.join(told)}] if told else kept


def without_key(message: Message) -> Message:
    """Take out what only the resolver is to know."""
    return {key: value for key, value in message.items() if key != TEMPLATE}
