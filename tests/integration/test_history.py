"""Conversations that outgrow the window lose their oldest turns, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.scripted import WINDOW, ScriptedModel, scripted_tokenizer
from ttt_core import AdaptationConfig, PromptTooLongError, TTTEngine
from ttt_core.chat import Message
from ttt_core.config import DEFAULT_ANSWER_TOKENS
from ttt_core.document import Document
from ttt_core.integration import history as module
from ttt_core.integration.history import without_oldest
from ttt_core.integration.reply import Reply
from ttt_core.integration.resolver import Resolved

TEXTS = st.text("ab ", max_size=8)
TURN = st.builds(
    lambda question, tools, answer: [
        {"role": "user", "content": question},
        *[one for tool in tools for one in called(tool)],
        *([{"role": "assistant", "content": answer}] if answer else []),
    ],
    TEXTS,
    st.lists(TEXTS, max_size=2),
    TEXTS,
)
OPENING = st.lists(st.builds(lambda text: {"role": "system", "content": text}, TEXTS), max_size=2)


def call(at: str) -> dict[str, Any]:
    function = {"name": "look", "arguments": {"at": at}}
    return {"id": "abcdefghi", "type": "function", "function": function}


def called(result: str) -> list[Message]:
    return [
        {"role": "assistant", "content": "", "tool_calls": [call(result)]},
        {"role": "tool", "content": result, "tool_call_id": "abcdefghi"},
    ]


def shorter(opening: list[Message], turns: list[list[Message]], excess: int) -> Any:
    messages = [*opening, *(message for turn in turns for message in turn)]
    return without_oldest(messages, opening=len(opening), excess=excess, count_tokens=len)


def joined(turns: list[list[Message]]) -> list[list[Message]]:
    """Join turns that begin within another one: questions behind questions are one."""
    found: list[list[Message]] = []
    for turn in turns:
        if found and found[-1][-1]["role"] == "user":
            found[-1] = [*found[-1], *turn]
        else:
            found.append(turn)
    return found


@given(opening=OPENING, turns=st.lists(TURN, min_size=1, max_size=6), excess=st.integers(1, 400))
def test_instructions_and_the_last_turn_stay(
    opening: list[Message], turns: list[list[Message]], excess: int
) -> None:
    turns = joined(turns)
    left = shorter(opening, turns, excess)
    if len(turns) == 1:
        assert left is None
        return
    assert left[: len(opening)] == opening
    kept = [
        number
        for number in range(1, len(turns))
        if left == [*opening, *(message for turn in turns[number:] for message in turn)]
    ]
    assert kept, "whole turns, the oldest first, and at least one"


@given(opening=OPENING, turns=st.lists(TURN, min_size=2, max_size=6), excess=st.integers(1, 400))
def test_as_few_as_suffice(opening: list[Message], turns: list[list[Message]], excess: int) -> None:
    turns = joined(turns)
    assume(len(turns) > 1)
    left = shorter(opening, turns, excess)
    dropped = len([*opening, *(m for turn in turns for m in turn)]) - len(left)
    ends = [sum(map(len, turns[:number])) for number in range(1, len(turns))]
    number = ends.index(dropped)
    before = [message for turn in turns[:number] for message in turn]
    assert freed(before) < excess
    if number + 2 < len(turns):
        assert freed([message for turn in turns[: number + 1] for message in turn]) >= excess


def freed(messages: list[Message]) -> int:
    return sum(len(module._written(message)) + module._MARKUP for message in messages)


def test_what_comes_before_the_first_question_is_a_turn() -> None:
    """An assistant's greeting goes alone."""
    greeting: list[Message] = [{"role": "assistant", "content": "Hello" * 20}]
    question: list[Message] = [{"role": "user", "content": "Where?"}]
    assert shorter([], [greeting, question], 5) == question


def test_calls_of_tools_count() -> None:
    first: list[Message] = [
        {"role": "user", "content": ""},
        {"role": "assistant", "content": "", "tool_calls": [call("a" * 500)]},
    ]
    second: list[Message] = [{"role": "user", "content": "b"}, {"role": "assistant", "content": ""}]
    third: list[Message] = [{"role": "user", "content": "c"}]
    assert shorter([], [first, second, third], 400) == [*second, *third]


def test_nothing_but_questions_cannot_be_shortened() -> None:
    questions: list[Message] = [{"role": "user", "content": "Where?"}] * 3
    assert without_oldest(questions, opening=0, excess=1, count_tokens=len) is None
    assert without_oldest([], opening=0, excess=1, count_tokens=len) is None


# Through an engine


QUICK = AdaptationConfig(
    steps=1, gate=False, early_stopping=False, held_out=2, clozes_per_step=2, max_drift=1e9
)
BOOK = Document.of("\n".join(f"the owl number {n} lives in tree {n * 7 % 10}" for n in range(5)))
SMALL = 1024


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel(lambda prompt: "It is so.", scripted_tokenizer(tools=True), window=SMALL)


@pytest.fixture
def engine(model: ScriptedModel, tmp_path: Any) -> Iterator[TTTEngine]:
    assert SMALL < WINDOW
    tokenizer = scripted_tokenizer(tools=True)
    with TTTEngine(model, tokenizer, adaptation=QUICK, store=tmp_path / "store") as engine:
        yield engine


def conversation(turns: int, *, length: int = 60, system: str | None = None) -> list[Message]:
    opening = [{"role": "system", "content": system}] if system else []
    past = [
        {"role": role, "content": f"{role} {number:02} ".ljust(length, "x")}
        for number in range(turns)
        for role in ("user", "assistant")
    ]
    return [*opening, *past, {"role": "user", "content": "What do I ask last?"}]


def reply(engine: TTTEngine, messages: list[Message], **options: Any) -> Reply:
    resolved = options.pop(
        "resolved", Resolved(opening=sum(m["role"] == "system" for m in messages))
    )
    options = {"trim_history": True, "options": {}, **options}
    return Reply(engine, messages, resolved=resolved, **options)


@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("documents", [(), (BOOK,)])
def test_a_long_conversation_is_answered(
    engine: TTTEngine, model: ScriptedModel, system: str | None, documents: Any
) -> None:
    messages = conversation(20, system=system)
    opening = int(system is not None)
    resolved = Resolved(documents, tuple(messages), opening=opening)
    made = reply(engine, messages, resolved=resolved)
    assert "".join(made.deltas()) == "It is so."
    dropped = made.details()["dropped_messages"]
    assert dropped > 0
    assert dropped % 2 == 0
    [prompt] = [prompt for prompt in model.prompts if "ask last" in prompt]
    assert prompt.count("<|im_start|>assistant\nassistant") == (40 - dropped) // 2
    assert f"user {dropped // 2:02}" in prompt
    assert f"user {dropped // 2 - 1:02}" not in prompt
    assert ("Be brief." in prompt) == bool(system)
    assert made.answer.usage.prompt_tokens + min(256, SMALL // 4) <= SMALL
    assert made.answer.usage.completion_tokens > 0


def test_no_more_is_left_out_than_must_be(engine: TTTEngine) -> None:
    room = min(DEFAULT_ANSWER_TOKENS, engine.window // 4)
    for turns, length in ((9, 60), (20, 31), (40, 8), (15, 97)):
        messages = conversation(turns, length=length)
        made = reply(engine, messages)
        list(made.pieces())
        dropped = made.details()["dropped_messages"]
        kept = engine.count_prompt_tokens(messages[dropped:])
        more = engine.count_prompt_tokens(messages[max(dropped - 2, 0) :])
        assert kept + room <= engine.window
        assert dropped == 0 or more + room > engine.window


def test_a_conversation_that_fits_is_left_alone(engine: TTTEngine) -> None:
    messages = conversation(2)
    trimmed, plain = reply(engine, messages), reply(engine, messages, trim_history=False)
    assert list(trimmed.pieces()) == list(plain.pieces())
    assert trimmed.details()["dropped_messages"] == plain.details()["dropped_messages"] == 0


def test_room_that_was_asked_for_is_made(engine: TTTEngine) -> None:
    messages = conversation(9)
    made = {
        tokens: reply(engine, messages, options={"max_new_tokens": tokens}) for tokens in (8, 700)
    }
    for one in made.values():
        list(one.pieces())
    few, many = (one.details()["dropped_messages"] for one in made.values())
    assert few < many
    assert made[700].answer.usage.prompt_tokens + 700 <= SMALL


def test_a_question_that_leaves_little_room_has_what_there_is(engine: TTTEngine) -> None:
    """A last turn that fits, but without the usual room, is still answered."""
    last = {"role": "user", "content": "y" * (SMALL - 60)}
    made = reply(engine, [*conversation(1)[:-1], last])
    list(made.pieces())
    assert made.details()["dropped_messages"] == 2
    assert 0 < made.answer.usage.completion_tokens < 60


def test_a_last_turn_that_does_not_fit_is_an_error(engine: TTTEngine) -> None:
    last = {"role": "user", "content": "y" * SMALL}
    made = reply(engine, [*conversation(3)[:-1], last])
    with pytest.raises(PromptTooLongError):
        list(made.pieces())


def test_without_leave_nothing_is_left_out(engine: TTTEngine) -> None:
    made = reply(engine, conversation(20), trim_history=False)
    with pytest.raises(PromptTooLongError):
        list(made.pieces())


def test_all_of_several_answers_lose_the_same(engine: TTTEngine) -> None:
    made = reply(engine, conversation(20), n=2)
    list(made.pieces())
    first, second = made.answers
    assert first.usage.prompt_tokens == second.usage.prompt_tokens
    assert made.details(second)["dropped_messages"] == made.details(first)["dropped_messages"] > 0


def test_calls_and_results_of_the_last_turn_stay(engine: TTTEngine, model: ScriptedModel) -> None:
    messages: list[Message] = [
        *conversation(20),
        {"role": "assistant", "content": "", "tool_calls": [call("z")]},
        {"role": "tool", "content": "result " * 30, "tool_call_id": "abcdefghi"},
    ]
    made = reply(engine, messages)
    list(made.pieces())
    assert made.details()["dropped_messages"] > 0
    prompt = model.prompts[-1]
    assert "What do I ask last?" in prompt
    assert '"name": "look"' in prompt
    assert "result " * 30 in prompt


def test_chat_models_raise_as_before() -> None:
    """LangChain's users bound their histories themselves, and are told when they did not."""
    from langchain_ttt import ChatTTT

    assert not ChatTTT(model="anything")._trims_history()
