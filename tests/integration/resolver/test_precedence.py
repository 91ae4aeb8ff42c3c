"""Whose documents are read: who wins, and what cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.resolver.conversations import (
    ATTACHED,
    BOOK,
    INSTEAD,
    LONG,
    OTHER,
    QUESTION,
    RULES,
    Caller,
    contents,
    system,
    template,
    texts,
    user,
)
from ttt_core import ConfigError, Document
from ttt_core.integration.prompt import Attachment, Marked, Part, Passage, Text
from ttt_core.integration.resolver import NOTHING, Resolved, as_text, reasons


def test_nothing_is_nothing() -> None:
    assert Resolved() == NOTHING
    assert not NOTHING.adapt


def test_plain_text_has_no_document(marked: Caller) -> None:
    messages = (system(f"{BOOK}"), user(f"{BOOK}\n\n{QUESTION}"))
    assert marked(*messages) == Resolved(messages=messages, opening=1)


def test_the_call_wins(marked: Caller) -> None:
    messages = [user([Marked(BOOK), Attachment(ATTACHED), Text(QUESTION)])]
    found = marked(*messages, call=(INSTEAD,), own=(Document.of(BOOK),))
    assert (found.documents, found.source, found.adapt) == ((INSTEAD,), "call", True)
    assert contents(found) == [f"{BOOK}\n\nbirds.txt\n\n{OTHER}\n\n{QUESTION}"]
    assert found.reasons == (reasons.CALL_NAMES_OTHERS, reasons.INSTEAD_OF_OWN)


def test_the_call_with_the_instances_own_replaces_nothing(marked: Caller) -> None:
    assert marked(user(QUESTION), call=(INSTEAD,), own=(INSTEAD,)).reasons == ()


def test_content_wins_over_the_instance(marked: Caller) -> None:
    found = marked(user([Marked(BOOK), Text(QUESTION)]), own=(INSTEAD,))
    assert (texts(found), found.source) == ([BOOK], "content")
    assert found.reasons == (reasons.INSTEAD_OF_OWN,)


def test_the_instance_wins_over_the_prompt(auto: Caller) -> None:
    for _ in range(2):
        found = auto(user(f"{BOOK}\n\n{QUESTION}"), own=(INSTEAD,))
        assert (found.documents, found.source, found.adapt) == ((INSTEAD,), "instance", True)
        assert contents(found) == [f"{BOOK}\n\n{QUESTION}"]


def test_what_is_read_about_an_instance_does_not_depend_on_what_was_seen(marked: Caller) -> None:
    message = user([Text("See: "), Marked(BOOK), Text(QUESTION)])
    assert marked(message, own=(INSTEAD,)) == marked(message, own=(INSTEAD,))
    assert marked(message, own=(INSTEAD,)).reasons == (reasons.BEHIND_TEXT,)


@pytest.mark.parametrize("own", [(), (INSTEAD,)])
def test_off_leaves_contents_alone(own: tuple[Document, ...]) -> None:
    parts: list[Part] = [Text("a"), Marked(BOOK), Attachment(ATTACHED), Text(QUESTION)]
    found = Caller("off")(user(parts), own=own)
    assert contents(found) == [f"a{BOOK}\n\nbirds.txt\n\n{OTHER}\n\n{QUESTION}"]
    assert (found.documents, found.adapt) == (own, bool(own))
    assert Caller("off")(user(QUESTION), call=(INSTEAD,), own=own).documents == (INSTEAD,)


def test_as_text_leaves_all_in_the_prompt(auto: Caller) -> None:
    messages = [
        template(RULES),
        user([Marked(BOOK), Attachment(ATTACHED), Passage(LONG.text), Text(QUESTION)]),
    ]
    left = as_text(messages)
    assert left == auto(*messages, call=()).messages
    assert left == (system(RULES), user(f"{BOOK}\n\nbirds.txt\n\n{OTHER}\n\n{LONG.text}{QUESTION}"))


def test_unknown_modes_are_errors(marked: Caller) -> None:
    with pytest.raises(ConfigError, match="'marked', 'auto' or 'off', found 'on'"):
        marked(user(QUESTION), mode="on")


@pytest.mark.parametrize("content", [3, [BOOK], [{"type": "text", "text": BOOK}]])
def test_unknown_contents_are_errors_that_tell_nothing(marked: Caller, content: Any) -> None:
    with pytest.raises(ConfigError, match="Text, Marked, Attachment and Passage") as caught:
        marked({"role": "user", "content": content})
    assert "falcon" not in str(caught.value)


def test_nothing_of_the_text_is_shown() -> None:
    parts = [Text(BOOK), Marked(BOOK), Attachment(Document.of(BOOK))]
    found = Caller("off")(user([Marked(BOOK)]), own=(Document.of(BOOK),))
    assert "falcon" not in repr((parts, found))
