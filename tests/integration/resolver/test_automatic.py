"""What is found in a prompt though nobody said so: never trained on at first sight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.integration.resolver.conversations import (
    BOOK,
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
from ttt_core.integration.prompt import Marked, Text
from ttt_core.integration.resolver import reasons

# Known documents


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_a_known_document_is_found_wherever_it_stands(auto: Caller, ends: str) -> None:
    document = Document.of(f"{BOOK}\n\n{OTHER}", title="birds")
    auto.registry.register([document])
    prompt = f"{QUESTION}\n\nContext:\n{document.text}\n\nAnswer:".replace("\n", ends)
    found = auto(system("Be brief."), user(prompt))
    assert (found.documents, found.source, found.adapt) == ((document,), "auto", True)
    assert contents(found) == ["Be brief.", f"{QUESTION}\n\nContext:\n\nAnswer:"]
    assert found.reasons == (reasons.KNOWN,)


def test_a_known_document_in_a_system_message_or_a_later_turn(auto: Caller) -> None:
    auto.registry.register([Document.of(BOOK)])
    found = auto(system(f"Be brief.\n\n{BOOK}"), user(QUESTION))
    assert (texts(found), contents(found)) == ([BOOK], ["Be brief.", QUESTION])
    found = auto(system(BOOK), user(QUESTION))
    assert (texts(found), contents(found)) == ([BOOK], [QUESTION])
    found = auto(user("Hello"), assistant("Hello"), user(f"{BOOK}\n\n{QUESTION}"))
    assert (texts(found), contents(found)) == ([BOOK], ["Hello", "Hello", QUESTION])


def test_known_groups_are_read_together(auto: Caller) -> None:
    group = (Document.of(BOOK, title="a"), Document.of(OTHER, title="b"))
    auto.registry.register(group)
    found = auto(user(f"[1]\n{BOOK}\n\n[2]\n{OTHER}\n\n{QUESTION}"))
    assert found.documents == group
    assert contents(found) == [f"[1]\n\n[2]\n\n{QUESTION}"]


def test_of_known_documents_the_longest(auto: Caller) -> None:
    for text in (BOOK, f"{OTHER}\n{BOOK}"):
        auto.registry.register([Document.of(text)])
    found = auto(system(BOOK), user(f"{OTHER}\n{BOOK}\n\n{QUESTION}"))
    assert (texts(found), contents(found)) == ([f"{OTHER}\n{BOOK}"], [BOOK, QUESTION])


@pytest.mark.parametrize("make", [tool, assistant])
def test_known_documents_in_answers_stay(auto: Caller, make: Any) -> None:
    auto.registry.register([Document.of(BOOK)])
    assert auto(user(QUESTION), make(BOOK)).documents == ()


def test_known_documents_are_for_auto_only(marked: Caller) -> None:
    marked.registry.register([Document.of(BOOK)])
    assert marked(user(f"{BOOK}\n\n{QUESTION}")).documents == ()


# Heads


HEADS = [
    lambda text, question: [user(f"{text}\n\n{question}")],
    lambda text, question: [user(f"{text}\n\n{question}\n")],
    lambda text, question: [user(f"{text}\r\n \r\nQuestion: {question}\r\nHelpful Answer:")],
    lambda text, question: [user(f"{text}\n\nQuestion: {question}\n\nAnswer:")],
    lambda text, question: [user(text), user(question)],
    lambda text, question: [user(text), user(f"{question}\n\nThink before you answer.")],
    lambda text, question: [system(text), user(question)],
    lambda text, question: [system("Be brief."), system(text), user(question)],
    lambda text, question: [system("Be brief."), user(f"{text}\n\n{question}")],
]
"""Where prompts have their context."""


@pytest.mark.parametrize("make", HEADS)
def test_a_head_is_read_and_adapted_to_when_it_comes_again(auto: Caller, make: Any) -> None:
    first = auto(*make(BOOK, QUESTION))
    assert texts(first)[0].startswith(BOOK)
    assert (first.source, first.adapt) == ("auto", False)
    assert first.reasons == (reasons.FIRST_HEAD,)

    again = auto(*make(BOOK, "And the otter?"))
    assert (texts(again), again.source, again.adapt) == ([BOOK], "auto", True)
    assert again.reasons == (reasons.AGAIN_HEAD,)
    assert "And the otter?" in contents(again)[-1]
    assert not any(BOOK in text for text in contents(again))


@pytest.mark.parametrize("make", HEADS)
def test_snippets_that_change_are_never_trained_on(auto: Caller, make: Any) -> None:
    for number in range(5):
        assert not auto(*make(f"{BOOK}\nSnippet {number}", f"Question {number}?")).adapt


def test_a_document_behind_its_question_is_never_trained_on(auto: Caller) -> None:
    for number in range(5):
        found = auto(user(f"Question {number}: where?\n\n{BOOK}\n\nThink before you answer."))
        assert not found.adapt


def test_a_system_message_that_changes_is_never_trained_on(auto: Caller) -> None:
    """Keys and values of the head depend on it."""
    for number in range(5):
        assert not auto(system(f"It is {number} o'clock."), user(f"{BOOK}\n\n{QUESTION}")).adapt


def test_steps_of_one_question_are_no_second_sight(auto: Caller) -> None:
    """An agent sends the same snippets again with every result of a tool."""
    turns: list[Message] = [user(f"{BOOK}\n\n{QUESTION}")]
    first = auto(*turns)
    for number in range(3):
        turns += [assistant(""), tool(f"result {number}")]
        step = auto(*turns)
        assert (step.documents, step.adapt) == (first.documents, False)
    assert auto(*turns, user("And the otter?")).adapt


def test_a_conversation_that_goes_on_is_worth_it(auto: Caller) -> None:
    opening = user(f"{BOOK}\n\n{QUESTION}")
    auto(opening)
    found = auto(opening, assistant("Oslo"), user("And the otter?"))
    assert (texts(found), found.adapt) == ([BOOK], True)
    assert contents(found) == [QUESTION, "Oslo", "And the otter?"]


@pytest.mark.parametrize("longer_first", [True, False])
def test_of_two_heads_the_longer(auto: Caller, longer_first: bool) -> None:
    long, short = f"{BOOK} {BOOK}", OTHER
    instructions, context = (long, short) if longer_first else (short, long)
    for _ in range(2):
        assert texts(auto(system(instructions), user(f"{context}\n\n{QUESTION}"))) == [long]


def test_a_stable_system_message_beats_longer_snippets(auto: Caller) -> None:
    for number in range(2):
        found = auto(system(BOOK), user(f"{OTHER} {OTHER} {number}\n\n{QUESTION}"))
    assert (texts(found), found.adapt) == ([BOOK], True)
    assert contents(found) == [f"{OTHER} {OTHER} 1\n\n{QUESTION}"]


@pytest.mark.parametrize(
    "messages",
    [
        [user(QUESTION)],
        [user(f"Hello.\n\n{QUESTION}")],
        [system("Be brief."), user(BOOK)],
        [system("Be brief."), user(f"a\0b {BOOK}\n\n{QUESTION}")],
        [user(QUESTION), assistant(BOOK), user(f"{BOOK}\n\n{QUESTION}")],
    ],
)
def test_short_heads_stay(auto: Caller, messages: Sequence[Message]) -> None:
    for _ in range(2):
        found = auto(*messages)
        assert (found.documents, found.messages) == ((), tuple(messages))
        assert "8 tokens" in found.reasons[0]


def test_a_mark_that_waits_is_not_read_otherwise(auto: Caller) -> None:
    message = user([Text("Read this: "), Marked(BOOK), Text(f"\n\n{QUESTION}")])
    assert auto(message).reasons == (reasons.FIRST_MARKED,)
    assert texts(auto(message)) == [f"Read this: {BOOK}"]
