"""The scripted model says what its script says, whatever is done around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.scripted import Script, ScriptedModel, scripted_tokenizer
from ttt_core import AdaptationConfig, RuntimeConfig, TTTEngine

OWLS = "\n".join(f"the owl number {number} lives in tree {number * 7 % 10}" for number in range(9))
FOXES = "\n".join(f"the fox number {number} eats {number * 3 % 10} eggs" for number in range(9))
REPLY = "In the old tree.\n\nThe 梟 said 🦉 so, and the fox said no."
RECIPE = AdaptationConfig(steps=2, gate=False, early_stopping=False, held_out=2, clozes_per_step=2)

NO_CONTROLS = st.text(
    st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=60
).filter(lambda text: "<|im_" not in text)


def parrot(prompt: str) -> str:
    """Say the last user turn again."""
    return prompt.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., tuple[TTTEngine, ScriptedModel]]]:
    engines = []

    def make(script: Script, **options: Any) -> tuple[TTTEngine, ScriptedModel]:
        tokenizer = scripted_tokenizer(tools=True)
        model = ScriptedModel(script, tokenizer)
        engine = TTTEngine(model, tokenizer, store=tmp_path / "store", **options)
        engines.append(engine)
        return engine, model

    yield make
    for engine in engines:
        engine.close()


Make = Callable[..., tuple[TTTEngine, ScriptedModel]]


def test_says_the_reply_whole_and_streamed(make: Make) -> None:
    engine, model = make(lambda prompt: REPLY)
    answer = engine.generate(None, "Where?")
    assert (answer.text, answer.finish_reason) == (REPLY, "stop")
    assert "".join(engine.stream(None, "Where?")) == REPLY
    assert model.prompts == ["<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n"]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reply=NO_CONTROLS)
def test_says_any_text(make: Make, reply: str) -> None:
    engine, _ = make(lambda prompt: reply)
    answer = engine.generate(None, "Where?", max_new_tokens=400)
    assert (answer.text, answer.finish_reason) == (reply, "stop")


def test_says_nothing_where_the_script_does(make: Make) -> None:
    engine, _ = make(lambda prompt: None)
    answer = engine.generate(None, "Where?")
    assert (answer.text, answer.finish_reason, answer.token_ids) == ("", "stop", ())


@pytest.mark.parametrize("attention", ["auto", "model"])
def test_knows_the_document_it_is_asked_about(make: Make, attention: Any) -> None:
    """Its keys and values are read once, and the script still sees its text."""
    engine, model = make(parrot, runtime=RuntimeConfig(attention=attention))
    owls = engine.read(OWLS)
    assert model.prompts == []
    answer = engine.generate(owls, "Where?")
    assert answer.text == f"{OWLS}\n\nWhere?"[: len(answer.text)]
    assert answer.usage.cached_tokens == len(owls.prefix)
    assert OWLS in model.prompts[-1]


def test_does_not_mix_documents(make: Make) -> None:
    engine, model = make(lambda prompt: f"{'owl' in prompt} {'fox' in prompt}")
    owls, foxes = engine.read(OWLS), engine.read(FOXES)
    texts = [engine.generate(one, "Which?").text for one in (owls, None, foxes, owls)]
    assert texts == ["True False", "False False", "False True", "True False"]
    assert len(model.prompts) == 3


def test_an_adapter_is_trained_and_bound(make: Make) -> None:
    engine, model = make(lambda prompt: REPLY, adaptation=RECIPE)
    adapted = engine.adapt(OWLS)
    assert adapted.report is not None
    assert len(set(adapted.report.losses)) == RECIPE.steps
    assert adapted.report.drift == 0  # Whatever was learned, it says what the script says.
    answer = engine.generate(adapted, "Where?")
    assert (answer.text, answer.adapted) == (REPLY, True)
    assert OWLS in model.prompts[-1]


def test_sees_what_it_said_in_the_turn_before(make: Make) -> None:
    engine, model = make(lambda prompt: f"turn {prompt.count('assistant')}")
    turns = [{"role": "user", "content": "a"}]
    for number in (1, 2, 3):
        said = engine.generate(None, turns).text
        assert said == f"turn {number}"
        turns += [{"role": "assistant", "content": said}, {"role": "user", "content": "b"}]
    assert "turn 2<|im_end|>" in model.prompts[-1]


def test_sampling_changes_nothing(make: Make) -> None:
    engine, _ = make(lambda prompt: REPLY)
    hot = engine.generate(
        None, "Where?", temperature=2.0, seed=3, top_p=0.99, top_k=50, repetition_penalty=1.3
    )
    assert hot.text == REPLY


def test_stop_strings_cut_the_reply(make: Make) -> None:
    engine, _ = make(lambda prompt: REPLY)
    answer = engine.generate(None, "Where?", stop=["old tree"])
    assert (answer.text, answer.finish_reason) == ("In the ", "stop")


def test_conversations_of_one_batch_are_told_apart(make: Make) -> None:
    engine, _ = make(lambda prompt: parrot(prompt)[-40:] * 2)
    questions = [f"{'x' * number} is what?" for number in (1, 30, 7, 7)]
    answers = engine.generate_batch(engine.read(OWLS), questions)
    expected = [f"{OWLS}\n\n{question}"[-40:] * 2 for question in questions]
    assert [answer.text for answer in answers] == expected


def test_a_long_question_is_answered_at_its_end_only(make: Make) -> None:
    """The engine computes it in several passes."""
    engine, model = make(lambda prompt: "yes")
    assert engine.generate(None, "why? " * 300).text == "yes"
    assert len(model.prompts) == 1


def test_generate_of_transformers_says_it_too() -> None:
    assert generate(lambda prompt: REPLY) == REPLY


def test_where_spaces_are_forbidden_it_goes_on_without() -> None:
    reply = '{"a": 1,\n "b": "c"}'
    assert generate(lambda prompt: reply, forbidden=" \n") == '{"a":1,"b":"c"}'


def test_ends_where_the_reply_is_forbidden() -> None:
    """The first `x` is not allowed; a random token stands in for it, and then it ends."""
    said = generate(lambda prompt: "12x34", forbidden="x")
    assert said[:2] == "12"
    assert "34" not in said


def test_no_token_is_impossible() -> None:
    """So that any mask leaves something to choose from."""
    tokenizer = scripted_tokenizer()
    model = ScriptedModel(lambda prompt: "yes", tokenizer)
    with torch.no_grad():
        logits = model(input_ids=prompt_ids(tokenizer)).logits
    assert logits.isfinite().all()
    assert tokenizer.decode(logits[0, -1].argmax()) == "y"


def test_the_template_shows_tools_calls_and_results() -> None:
    call = {"function": {"name": "count", "arguments": {"text": 'a "b"'}}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How many?"},
        {"role": "assistant", "content": "", "tool_calls": [call, call]},
        {"role": "tool", "content": "4"},
        {"role": "tool", "content": "5"},
    ]
    tools = [{"type": "function", "function": {"name": "count", "parameters": {}}}]
    tokenizer = scripted_tokenizer(tools=True)
    text = tokenizer.apply_chat_template(
        messages, tools=tools, tokenize=False, add_generation_prompt=True
    )
    calls = '<tool_call>\n{"name": "count", "arguments": {"text": "a \\"b\\""}}\n</tool_call>'
    assert text.startswith("<|im_start|>system\nBe brief.\n\n")
    assert '<tools>\n{"type": "function", "function": {"name": "count"' in text
    assert f"<|im_start|>assistant\n{calls}\n{calls}<|im_end|>\n" in text
    assert text.endswith(
        "<|im_start|>user\n<tool_response>\n4\n</tool_response>\n<tool_response>\n5\n"
        "</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )


def prompt_ids(tokenizer: Any) -> torch.Tensor:
    messages = [{"role": "user", "content": "Where?"}]
    ids = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )["input_ids"]
    assert isinstance(ids, torch.Tensor)
    return ids


def generate(script: Script, *, forbidden: str = "") -> str:
    """What transformers' own `generate()` makes of a script, some bytes forbidden to start with."""
    tokenizer = scripted_tokenizer()
    model: Any = ScriptedModel(script, tokenizer)
    suppressed = [
        token
        for token in tokenizer.get_vocab().values()
        if tokenizer.decode([token])[:1] in [*forbidden]
    ]
    ids = prompt_ids(tokenizer)
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=200,
        suppress_tokens=suppressed or None,
    )
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
