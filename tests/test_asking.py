"""Questions with tools, schemas and limits, through the engine on random weights."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import build_model
from tests.scripted import CHATML_TOOLS, scripted_tokenizer
from ttt_core import AdaptationConfig, ConfigError, PromptTooLongError, TTTEngine
from ttt_core.asking import expected, make_rows
from ttt_core.config import GenerationConfig
from ttt_core.errors import AnswerTimeoutError
from ttt_core.generate import Answer, Row
from ttt_core.tools import ToolCallDelta

RECIPE = AdaptationConfig(
    steps=2, learning_rate=0.01, gate=False, early_stopping=False, held_out=2, clozes_per_step=2,
    max_drift=1e9,
)  # fmt: skip
WINDOW = 4096
OWLS = "\n".join(f"the owl number {number} lives in tree {number * 7 % 10}" for number in range(5))
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "legs": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "legs"],
}
FORM = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
TOOLS = [
    {"type": "function", "function": {
        "name": "add", "description": "Add a number.", "parameters": {
            "type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}}},
    {"type": "function", "function": {"name": "stop", "description": "Stop."}},
]  # fmt: skip
TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": "What is three and one?"},
    {"role": "assistant", "content": "", "tool_calls": [
        {"id": "abcdefgh1", "type": "function",
         "function": {"name": "add", "arguments": {"x": 3}}}]},
    {"role": "tool", "tool_call_id": "abcdefgh1", "name": "add", "content": "4"},
]  # fmt: skip
ASKED: list[dict[str, Any]] = [
    {},
    {"tools": TOOLS},
    {"tools": TOOLS, "tool_choice": "required"},
    {"tools": TOOLS, "tool_choice": "stop"},
    {"tools": TOOLS, "tool_choice": "none"},
    {"tools": TOOLS, "response_format": FORM},
    {"response_format": FORM},
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "text"}},
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TTTEngine]:
    model = build_model("qwen3", max_position_embeddings=WINDOW)
    tokenizer = scripted_tokenizer(CHATML_TOOLS)
    store = tmp_path_factory.mktemp("asking")
    with TTTEngine(model, tokenizer, adaptation=RECIPE, store=store) as engine:
        yield engine


def said(answer: Answer) -> tuple[Any, ...]:
    """All but times and random ids."""
    calls = [(call.name, call.arguments) for call in answer.tool_calls]
    return answer.text, answer.reasoning, calls, answer.token_ids, answer.finish_reason


# What is asked for


def test_what_is_expected_of_an_answer() -> None:
    form = expected(GenerationConfig(tools=tuple(TOOLS)))
    assert [tool.name for tool in form.tools] == ["add", "stop"]
    assert (form.schema, form.strict) == (None, True)
    form = expected(GenerationConfig(tools=tuple(TOOLS), tool_choice="none"))
    assert form.tools == ()
    assert expected(GenerationConfig(response_format={"type": "json_object"})).schema is True
    about = {"schema": SCHEMA, "strict": False}
    form = expected(GenerationConfig(response_format={"type": "json_schema", "json_schema": about}))
    assert (form.schema, form.strict) == (SCHEMA, False)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tool_choice": "required"}, "goes with tools"),
        ({"tool_choice": "add"}, "goes with tools"),
        ({"tools": TOOLS, "tool_choice": "sub"}, "add, stop"),
        ({"tools": [*TOOLS, TOOLS[0]]}, "two tools"),
        ({"tools": [{"type": "web_search"}]}, "web_search"),
        ({"tools": [{}]}, "function with a name"),
        ({"response_format": {"type": "xml"}}, "json_schema"),
        ({"response_format": {"type": "json_schema"}}, "json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "json_schema"),
        ({"response_format": {"type": "json_schema", "schema": SCHEMA}}, "json_schema"),
    ],
)
def test_what_cannot_be_is_refused(engine: TTTEngine, options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        engine.generate(None, "?", **options)
    with pytest.raises(ConfigError, match=named):
        engine.count_prompt_tokens("?", **options)


@pytest.mark.parametrize("schema", [3, "x", None, [1]])
def test_a_schema_that_is_none_is_refused(engine: TTTEngine, schema: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    with pytest.raises(ConfigError):
        engine.generate(None, "?", response_format=form)


# The prompt


@pytest.mark.parametrize("options", ASKED)
@pytest.mark.parametrize("turns", [TURNS[:1], TURNS, [{"role": "system", "content": "a"}, *TURNS]])
def test_counted_tokens_are_those_of_the_answer(
    engine: TTTEngine, options: dict[str, Any], turns: Any
) -> None:
    answer = engine.generate(None, turns, max_new_tokens=80, **options)
    assert engine.count_prompt_tokens(turns, **options) == answer.usage.prompt_tokens
    stream = engine.stream(None, turns, max_new_tokens=80, **options)
    list(stream)
    assert stream.answer.usage == answer.usage
    told = answer.usage.completion_tokens - len(answer.token_ids)
    assert told == (answer.finish_reason != "length")


def test_one_document_serves_all_tools_and_schemas(engine: TTTEngine) -> None:
    adapted = engine.adapt(OWLS)
    usages = [
        engine.generate(adapted, TURNS, max_new_tokens=80, **options).usage for options in ASKED
    ]
    assert {usage.cached_tokens for usage in usages} == {len(adapted.prefix)}
    assert len({usage.prompt_tokens for usage in usages}) > 3
    assert engine.adapt(OWLS).key == adapted.key
    assert engine.adapt(OWLS).source == "memory"
    for usage in usages:
        assert usage.computed_tokens <= usage.total_tokens - usage.cached_tokens


# The answer


@pytest.mark.parametrize("options", ASKED[1:])
@pytest.mark.parametrize("documents", [None, OWLS])
def test_random_answers_are_what_was_asked_for(
    engine: TTTEngine, options: dict[str, Any], documents: str | None
) -> None:
    adapted = engine.adapt(documents) if documents else None
    for seed in range(3):
        answer = engine.generate(
            adapted, "Go!", temperature=1.0, seed=seed, max_new_tokens=100, **options
        )
        check(answer, options)


def check(answer: Answer, options: dict[str, Any]) -> None:
    choice = options.get("tool_choice", "auto")
    assert answer.invalid_tool_calls == ()
    for call in answer.tool_calls:
        assert call.name in ("add", "stop")
        assert call.arguments.keys() == ({"x"} if call.name == "add" else set())
        assert isinstance(call.arguments.get("x", 0), int)
    if choice == "required":
        assert answer.tool_calls
        assert answer.text == ""
    if choice == "stop":
        assert [call.name for call in answer.tool_calls] == ["stop"]
    if choice == "none" or not options.get("tools"):
        assert not answer.tool_calls
    form = options.get("response_format", {}).get("type")
    if form == "json_object":
        assert isinstance(json.loads(answer.text), dict)
    if form == "json_schema" and not answer.tool_calls:
        value = json.loads(answer.text)
        assert value.keys() == {"name", "legs"}
        assert 1 <= len(value["name"]) <= 8
        assert 0 <= value["legs"] <= 99
    assert (answer.finish_reason == "tool_calls") == bool(answer.tool_calls)


def test_one_call_where_several_are_not_wanted(engine: TTTEngine) -> None:
    for seed in range(6):
        answer = engine.generate(
            None, "Go!", tools=TOOLS, tool_choice="required", parallel_tool_calls=False,
            temperature=1.0, seed=seed, max_new_tokens=300,
        )  # fmt: skip
        assert len(answer.tool_calls) == 1


@pytest.mark.parametrize("options", ASKED)
def test_streams_say_what_answers_say(engine: TTTEngine, options: dict[str, Any]) -> None:
    settings = {**options, "temperature": 1.0, "seed": 3, "max_new_tokens": 100}
    whole = engine.generate(None, "Go!", **settings)
    stream = engine.stream(None, "Go!", **settings)
    pieces = list(stream.pieces())
    assert said(stream.answer) == said(whole)
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == whole.text
    deltas = [piece for piece in pieces if isinstance(piece, ToolCallDelta)]
    merged: dict[int, str] = {}
    for delta in deltas:
        merged[delta.index] = merged.get(delta.index, "") + delta.arguments
    assert [json.loads(text) for text in merged.values()] == [
        call.arguments for call in whole.tool_calls
    ]
    named = [delta for delta in deltas if delta.id is not None]
    assert [delta.id for delta in named] == [call.id for call in stream.answer.tool_calls]


def test_ids_of_calls_are_unique(engine: TTTEngine) -> None:
    answers = engine.generate_batch(
        None, ["a", "b", "c"], tools=TOOLS, tool_choice="required", max_new_tokens=200
    )
    ids = [call.id for answer in answers for call in answer.tool_calls]
    assert len(set(ids)) == len(ids) >= 3


def test_a_batch_answers_as_one_by_one(engine: TTTEngine) -> None:
    questions = ["Go!", "Where is the owl that lives in the tree?", "?"]
    for options in ASKED[:3] + ASKED[5:7]:
        settings = {**options, "temperature": 1.0, "seed": 5, "max_new_tokens": 80}
        single = [said(engine.generate(None, question, **settings)) for question in questions]
        batch = engine.generate_batch(None, questions, **settings)
        assert [said(answer) for answer in batch] == single


def test_what_does_not_fit_the_tokens_is_refused(engine: TTTEngine) -> None:
    with pytest.raises(ConfigError, match=r"takes \d+ tokens, and max_tokens is 5"):
        engine.generate(None, "Go!", response_format=FORM, max_new_tokens=5)
    for least in range(20, 60):  # The message says how many are enough, and they are.
        try:
            answer = engine.generate(None, "Go!", response_format=FORM, max_new_tokens=least)
        except ConfigError:
            continue
        assert json.loads(answer.text).keys() == {"name", "legs"}
        break
    else:
        pytest.fail("a small object does not fit 60 tokens")


def test_an_error_of_one_caller_leaves_the_others(engine: TTTEngine) -> None:
    alone = said(engine.generate(None, "Go!", response_format=FORM, max_new_tokens=60))
    stream = engine.stream(None, "Go!", response_format=FORM, max_new_tokens=60)
    pieces = stream.pieces()
    next(pieces)
    with pytest.raises(ConfigError, match="shortest value"):
        engine.generate(None, "Go!", response_format=FORM, max_new_tokens=5)
    list(pieces)
    assert said(stream.answer) == alone


def test_callers_in_threads_with_grammars_of_their_own(engine: TTTEngine) -> None:
    settings = [{**options, "max_new_tokens": 80, "temperature": 1.0, "seed": 2}
                for options in ASKED]  # fmt: skip
    alone = [said(engine.generate(None, "Go!", **each)) for each in settings]
    found: dict[int, Any] = {}

    def ask(number: int) -> None:
        found[number] = said(engine.generate(None, "Go!", **settings[number]))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(settings))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [found[number] for number in range(len(settings))] == alone


def test_stop_strings_do_not_end_what_is_enforced(engine: TTTEngine) -> None:
    """The form says where the answer ends; half of it would be of no use to anybody."""
    whole = engine.generate(None, "Go!", response_format=FORM)
    answer = engine.generate(None, "Go!", response_format=FORM, stop=['"legs"'])
    assert '"legs"' in answer.text == whole.text


def test_logprobs_are_of_the_tokens_of_the_answer(engine: TTTEngine) -> None:
    answer = engine.generate(None, "Go!", max_new_tokens=8, logprobs=True, top_logprobs=3)
    assert answer.logprobs is not None
    assert [entry.token for entry in answer.logprobs] == list(answer.token_ids)
    for entry in answer.logprobs:
        assert entry.logprob == entry.top[0][1] <= 0
        assert [value for _, value in entry.top] == sorted(
            (value for _, value in entry.top), reverse=True
        )
    enforced = engine.generate(
        None, "Go!", max_new_tokens=60, logprobs=True, top_logprobs=1, response_format=FORM
    )
    assert enforced.logprobs is not None
    assert len(enforced.logprobs) == len(enforced.token_ids)
    assert all(-torch.inf < entry.logprob <= entry.top[0][1] for entry in enforced.logprobs)


# Time


@pytest.mark.parametrize("options", ASKED[:4])
def test_what_takes_too_long_is_given_up(engine: TTTEngine, options: dict[str, Any]) -> None:
    with pytest.raises(AnswerTimeoutError, match="no whole answer"):
        engine.generate(None, "Go!", timeout=1e-9, **options)
    with pytest.raises(AnswerTimeoutError):
        list(engine.stream(None, "Go!", timeout=1e-9, **options))
    assert engine.generate(None, "Go!", timeout=1e9, max_new_tokens=40).text


def test_time_runs_for_each_caller(engine: TTTEngine) -> None:
    alone = said(engine.generate(None, "Go!", max_new_tokens=30))
    stream = engine.stream(None, "Go!", max_new_tokens=30)
    pieces = stream.pieces()
    next(pieces)
    with pytest.raises(AnswerTimeoutError):
        engine.generate(None, "Why?", timeout=1e-9)
    list(pieces)
    assert said(stream.answer) == alone


# The window


@pytest.mark.parametrize("documents", [None, OWLS])
def test_tools_count_against_the_window(engine: TTTEngine, documents: str | None) -> None:
    adapted = engine.adapt(documents) if documents else None
    used = len(adapted.prefix) if adapted else 0
    fitting = "y" * (WINDOW - used - engine.count_prompt_tokens("y") - 20)
    assert engine.generate(adapted, fitting).usage.prompt_tokens <= WINDOW
    with pytest.raises(PromptTooLongError):
        engine.generate(adapted, fitting, tools=TOOLS)


# Interrupts


def rows_of(engine: TTTEngine, **options: Any) -> Callable[[], Row]:
    loaded = engine._resident().model
    config = GenerationConfig(**options)

    def make() -> Row:
        return make_rows(loaded, None, None, ["Go!"], config, waited=0.0)[0]

    return make


def finish(row: Row, logits: Sequence[torch.Tensor]) -> Answer:
    while row.finish_reason is None:
        row.push(logits[len(row.ids)])
    return row.whole_answer()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    options=st.sampled_from(ASKED),
    seed=st.integers(0, 1000),
    length=st.integers(75, 100),
    at=st.sets(st.integers(0, 80), min_size=1, max_size=4),
    where=st.sampled_from(["mask", "choose", "accept", "append"]),
)
def test_a_row_that_was_torn_is_answered_as_if_it_was_not(
    engine: TTTEngine,
    options: dict[str, Any],
    seed: int,
    length: int,
    at: set[int],
    where: str,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(300, generator=generator) * 3 for _ in range(length)]
    make = rows_of(engine, max_new_tokens=length, logprobs=True, **options)
    expected_answer = finish(make(), logits)
    torn = make()
    for number in itertools.count():
        if torn.finish_reason is not None:
            break
        if number in at:
            broken_push(torn, logits[len(torn.ids)], where)
            if torn.finish_reason is None:  # What has ended is not begun again.
                torn.restore()
        if torn.finish_reason is None:
            torn.push(logits[len(torn.ids)])
    answer = torn.whole_answer()
    assert said(answer) == said(expected_answer)
    assert answer.logprobs == expected_answer.logprobs
    assert answer.usage == expected_answer.usage


def broken_push(row: Row, logits: torch.Tensor, where: str) -> None:
    """Interrupt a push behind one of its steps."""
    owner: Any = {"choose": row._sampler, "append": row}.get(where, row.guide)
    if owner is None:
        return
    name = "_append" if where == "append" else where
    whole = getattr(owner, name)

    def step(*args: Any) -> None:
        whole(*args)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, step)
        try:
            row.push(logits)
        except KeyboardInterrupt:
            return
        assert where == "append", "the end token is not appended"


def test_a_path_is_not_needed(tmp_path: Path) -> None:
    """Without tools and schemas nothing of llguidance is imported."""
    import subprocess
    import sys

    code = (
        "import sys; from ttt_core.asking import expected; "
        "from ttt_core.config import GenerationConfig; expected(GenerationConfig()); "
        "print('llguidance' in sys.modules, 'jsonschema' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout == "False False\n"
