"""What messages bring as documents: attachments and marked texts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.resolver.conversations import (
    ATTACHED,
    BOOK,
    INSTEAD,
    MIN,
    OTHER,
    QUESTION,
    Caller,
    assistant,
    contents,
    system,
    texts,
    tool,
    user,
)
from ttt_core import Document
from ttt_core.chat import Message
from ttt_core.integration.prompt import Attachment, Marked, Part, Text
from ttt_core.integration.resolver import reasons, resolve

# Attachments


@pytest.mark.parametrize("role", ["system", "user"])
def test_attachments_go_to_the_head(marked: Caller, role: str) -> None:
    first = {"role": role, "content": [Text("a"), Attachment(ATTACHED), Text("b")], "name": "n"}
    found = marked(first, user(QUESTION))
    assert found.documents == (ATTACHED,)
    assert found.messages == ({"role": role, "content": "a\n\nb", "name": "n"}, user(QUESTION))


def test_attachments_of_later_turns_too_in_their_order(marked: Caller) -> None:
    again: Part = Attachment(INSTEAD)
    found = marked(
        user([again, Text(QUESTION)]),
        assistant("Oslo"),
        user([Attachment(ATTACHED), Text("And the heron?"), again]),
    )
    assert found.documents == (INSTEAD, ATTACHED)
    assert contents(found) == [QUESTION, "Oslo", "And the heron?"]


@pytest.mark.parametrize("make", [tool, assistant])
@pytest.mark.parametrize("part", [Attachment(Document.of(BOOK)), Marked(BOOK)])
def test_answers_and_tools_bring_no_documents(marked: Caller, make: Any, part: Part) -> None:
    found = marked(user(QUESTION), assistant(""), make([Text("Found:"), part]))
    assert found.documents == ()
    assert BOOK in contents(found)[2]
    assert found.reasons == (reasons.IN_ANSWERS,)


def test_a_short_attachment_is_a_document(marked: Caller) -> None:
    assert marked(user([Attachment(Document.of("a")), Text(QUESTION)])).adapt


def test_messages_of_documents_alone_are_gone(marked: Caller) -> None:
    """But turns go on alternating, and somebody has asked."""
    document = Attachment(INSTEAD)
    assert contents(marked(system([document]), user([document]), user(QUESTION))) == [QUESTION]
    assert contents(marked(user(QUESTION), user([document]))) == [QUESTION]
    assert contents(marked(user([document]), user([document]))) == [""]
    later = marked(user(QUESTION), assistant("Oslo"), user([document]))
    assert contents(later) == [QUESTION, "Oslo", ""]


def test_nothing_is_read_ahead_of_an_answer(marked: Caller, auto: Caller) -> None:
    for role in (marked, auto):
        found = role(assistant("Hello"), user([Attachment(INSTEAD), Marked(BOOK)]))
        assert found.documents == ()
        assert contents(found) == ["Hello", f"{INSTEAD.text}\n\n{BOOK}"]
        assert found.reasons == (reasons.NO_HEAD,)


# Marked text


@pytest.mark.parametrize("before", [[], [Text("\n ")], [Attachment(INSTEAD)]])
def test_marked_text_that_stands_first_is_the_document(marked: Caller, before: list[Part]) -> None:
    found = marked(system("Be brief."), user([*before, Marked(BOOK), Text(f"\n\n{QUESTION}")]))
    assert texts(found)[-1] == BOOK
    assert (found.source, found.adapt) == ("content", True)
    assert [text.strip() for text in contents(found)] == ["Be brief.", QUESTION]


def test_marked_system_text_is_the_document_and_the_rest_stays(marked: Caller) -> None:
    found = marked(system([Text("Be brief."), Marked(BOOK)]), user(QUESTION))
    assert (texts(found), contents(found)) == ([BOOK], ["Be brief.", QUESTION])
    found = marked(system([Marked(BOOK)]), user(QUESTION))
    assert (texts(found), contents(found)) == ([BOOK], [QUESTION])


def test_several_marked_texts_are_read_together(marked: Caller) -> None:
    found = marked(system([Marked(OTHER)]), user([Marked(BOOK), Text(QUESTION)]))
    assert (texts(found), contents(found)) == ([OTHER, BOOK], [QUESTION])


def test_short_marked_text_stays(marked: Caller) -> None:
    found = marked(user([Marked("Be brief."), Text(QUESTION)]))
    assert (found.documents, contents(found)) == ((), [f"Be brief.{QUESTION}"])
    assert "fewer than 8 tokens" in found.reasons[0]


def test_marked_text_that_is_no_document_stays(marked: Caller) -> None:
    found = marked(user([Marked(f"\0{BOOK}"), Marked("\n"), Text(QUESTION)]))
    assert (found.documents, contents(found)) == ((), [f"\0{BOOK}\n{QUESTION}"])
    assert found.reasons == (reasons.UNREADABLE,)


def test_long_marked_text_is_not_counted_to_its_end(marked: Caller) -> None:
    counted: list[int] = []

    def count(text: str) -> int:
        counted.append(len(text))
        return len(text.split())

    message = user([Marked(f"{BOOK}\n" * 1000), Text(QUESTION)])
    found = resolve([message], call=None, own=(), mode="marked", min_tokens=MIN,
                    count_tokens=count, registry=marked.registry)  # fmt: skip
    assert found.adapt
    assert max(counted) < 1000


def test_marked_text_of_later_turns_stays(marked: Caller) -> None:
    later = user([Marked(f"{OTHER} And there?")])
    found = marked(user([Marked(BOOK), Text(QUESTION)]), assistant("Oslo"), later)
    assert texts(found) == [BOOK]
    assert contents(found)[2] == f"{OTHER} And there?"
    assert found.reasons == (reasons.LATER,)


def test_text_before_the_mark_is_read_along_when_it_comes_again(marked: Caller) -> None:
    def message(question: str) -> Message:
        return user([Text("Read this:\n"), Marked(BOOK), Text(f"\n\n{question}")])

    first = marked(system("Be brief."), message(QUESTION))
    assert (first.documents, first.source, first.adapt) == ((), None, False)
    assert contents(first) == ["Be brief.", f"Read this:\n{BOOK}\n\n{QUESTION}"]
    assert first.reasons == (reasons.FIRST_MARKED,)

    again = marked(system("Be brief."), message("And the otter?"))
    assert (texts(again), again.source) == ([f"Read this:\n{BOOK}"], "content")
    assert (contents(again), again.adapt) == (["Be brief.", "And the otter?"], True)


def test_of_several_marks_the_last_that_was_there_before(marked: Caller) -> None:
    """As Anthropic's servers do: agents mark the end of what they sent, over and over."""
    marked(user([Text("a"), Marked(BOOK), Marked(f"{OTHER} 1")]))
    found = marked(user([Text("a"), Marked(BOOK), Marked(f"{OTHER} 2")]))
    assert (texts(found), contents(found)) == ([f"a{BOOK}"], [f"{OTHER} 2"])
    found = marked(user([Text("a"), Marked(BOOK), Marked(f"{OTHER} 2")]))
    assert (texts(found), contents(found)) == ([f"a{BOOK}{OTHER} 2"], [""])


def test_a_question_before_the_mark_is_never_read_ahead(marked: Caller, auto: Caller) -> None:
    for caller in (marked, auto):
        for number in range(4):
            message = user([Text(f"Question {number}: where? "), Marked(BOOK)])
            assert not caller(message).documents


def test_marks_behind_text_stay_beside_other_documents(marked: Caller) -> None:
    found = marked(user([Attachment(INSTEAD), Text(QUESTION), Marked(BOOK)]))
    assert (texts(found), contents(found)) == ([INSTEAD.text], [f"{QUESTION}{BOOK}"])
    assert found.reasons == (reasons.BEHIND_TEXT,)


def test_a_mark_behind_what_cannot_be_a_document_stays(marked: Caller) -> None:
    for _ in range(2):  # What was seen before could be read along, if it could be read at all.
        found = marked(user([Text("A log:\0\n"), Marked(BOOK), Text(QUESTION)]))
        assert contents(found) == [f"A log:\0\n{BOOK}{QUESTION}"]
        assert (found.documents, found.reasons) == ((), (reasons.BEHIND_TEXT,))


def test_text_before_the_mark_may_be_a_message_of_its_own(marked: Caller) -> None:
    messages = [user("Read this."), user([Marked(BOOK), Text(QUESTION)]), user("Be brief.")]
    marked(*messages)
    found = marked(*messages)
    assert texts(found) == [f"Read this.\n\n{BOOK}"]
    assert contents(found) == [f"{QUESTION}\n\nBe brief."]
