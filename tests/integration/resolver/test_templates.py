"""System messages of prompts' templates are told behind documents."""

from __future__ import annotations

from tests.integration.resolver.conversations import (
    LONG,
    QUESTION,
    RULES,
    Caller,
    assistant,
    system,
    template,
    user,
)


def test_a_templates_system_message_is_told_behind_the_document(marked: Caller) -> None:
    opening = [template(RULES), system("Be brief."), template("Think first.")]
    found = marked(*opening, user(QUESTION), assistant("Oslo"), user("Sure?"), own=(LONG,))
    assert found.messages == (
        system("Be brief."),
        user(f"{RULES}\n\nThink first."),
        user(QUESTION),
        assistant("Oslo"),
        user("Sure?"),
    )
    assert found.opening == 2


def test_without_documents_a_templates_system_message_stays_one(marked: Caller) -> None:
    found = marked(template(RULES), system("Be brief."), user(QUESTION))
    assert found.messages == (system(RULES), system("Be brief."), user(QUESTION))
    assert found.opening == 2


def test_a_templates_system_message_of_later_turns_stays_there(marked: Caller) -> None:
    found = marked(user(QUESTION), assistant("Oslo"), template(RULES), user("Sure?"), own=(LONG,))
    assert found.messages == (user(QUESTION), assistant("Oslo"), system(RULES), user("Sure?"))
    assert found.opening == 0
