"""What arms answer and what they say it cost, on a random tiny model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.conftest import CHATML
from tests.evaluation.harness import QUICK, Rooms
from ttt_core import TTTEngine, flops
from ttt_core.errors import PromptTooLongError
from ttt_core.evaluation.arms import parse_arm
from ttt_core.evaluation.arms.adapting import describe
from ttt_core.evaluation.arms.base import ArmResult
from ttt_core.evaluation.arms.self_consistency import normalised
from ttt_core.evaluation.bench import Bench
from ttt_core.examples import Example
from ttt_core.report import AdaptationReport

THINKING = CHATML + "{# <think> </think> #}"


@pytest.fixture
def long_engine(
    make_model: Callable[..., PreTrainedModel],
    make_tokenizer: Callable[..., PreTrainedTokenizerFast],
    tmp_path: Path,
) -> Iterator[Callable[..., TTTEngine]]:
    """Makes engines with a window of 4,096 on a model that never ends an answer by itself."""
    engines = []

    def make(template: str = CHATML) -> TTTEngine:
        tokenizer = make_tokenizer(template)
        tokenizer.eos_token = None
        model = make_model("qwen3", max_position_embeddings=4096, eos_token_id=None)
        engines.append(TTTEngine(model, tokenizer, store=tmp_path / "long"))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def example(length: int = 4) -> Example:
    return next(Rooms().examples(length, split="score", seed=0, count=1))


def answer(engine: TTTEngine, spec: str, asked: Example | None = None) -> ArmResult:
    asked = asked or example()
    result = parse_arm(spec).run(Bench(engine, Rooms()), asked)
    assert len(result.replies) == len(asked.questions)
    return result


def texts(result: ArmResult) -> list[str]:
    return [one.text for one in result.replies]


def spent(engine: TTTEngine, recipe: str = QUICK) -> float:
    return answer(engine, f"qttt:{recipe}").document_flops["adapt"]


def test_in_context_is_what_the_engine_answers(engine: TTTEngine) -> None:
    found = answer(engine, "in-context")
    read = engine.read(example().document)
    questions = [question.text for question in example().questions]
    expected = engine.generate_batch(read, questions, max_new_tokens=4)
    assert texts(found) == [one.text for one in expected]
    assert found.n_tokens == read.n_tokens
    for one, reply in zip(expected, found.replies, strict=True):
        asked = one.usage.prompt_tokens - read.n_tokens
        assert reply.tokens == asked + one.usage.completion_tokens - 1 == one.usage.computed_tokens
        assert reply.generated_tokens == one.usage.completion_tokens


@pytest.mark.parametrize("parametrization", ["lora", "full"])
@pytest.mark.parametrize("name", ["qwen3", "phi3-fused-sliding", "gemma2-mixed-softcap"])
def test_learning_rate_zero_changes_nothing_at_all(
    name: str,
    parametrization: str,
    make_model: Callable[..., PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    with TTTEngine(make_model(name), tokenizer, store=tmp_path / "store") as engine:
        base = answer(engine, "in-context", example(8))
        zero = answer(engine, f"lr-zero:parametrization={parametrization}", example(8))
    assert texts(zero) == texts(base)
    assert [one.flops for one in zero.replies] == [one.flops for one in base.replies]


def test_adapting_goes_through_the_adapter(engine: TTTEngine) -> None:
    strong = "qttt:steps=8,learning_rate=0.3,gate=false,early_stopping=false"
    found = answer(engine, strong, example(12))
    assert found.details["decision"] == "adapted"
    assert texts(found) != texts(answer(engine, "in-context", example(12)))


def test_where_the_base_is_kept_answers_are_its_own_and_the_cost_is_counted(
    long_engine: Callable[..., TTTEngine],
) -> None:
    engine = long_engine()
    found = answer(engine, "qttt:steps=4,learning_rate=0.9,held_out=36", example(60))
    assert found.details["decision"] == "kept_base"
    assert texts(found) == texts(answer(engine, "in-context", example(60)))
    assert found.document_flops["adapt"] > 0


def test_a_recipe_for_each_question_is_charged_to_it(engine: TTTEngine) -> None:
    recipe = f"{QUICK},supervision=retrieved"
    warm = answer(engine, f"qttt:{recipe}")
    cold = answer(engine, f"qttt:{recipe},warm_start=false")
    base = answer(engine, "in-context")
    assert warm.document_flops["adapt"] == spent(engine)  # What it begins with.
    assert cold.document_flops["adapt"] == 0
    for one, plain in zip(cold.replies, base.replies, strict=True):
        assert one.flops > plain.flops
        assert one.details["decision"] == "adapted"


@pytest.mark.parametrize(("kept", "told"), [(False, "adapted"), (True, "kept_document")])
def test_a_question_whose_training_was_refused_did_not_adapt(kept: bool, told: str) -> None:
    report = AdaptationReport(
        decision="adapted",
        reasons=(),
        parametrization="lora",
        supervision="retrieved",
        document_tokens=3,
        kept_document=kept,
    )
    assert describe(report)["decision"] == told


def test_reading_costs_the_same_for_all(engine: TTTEngine) -> None:
    bench = Bench(engine, Rooms())
    expected = flops.prefill_flops(bench.architecture, bench.read(example()).n_tokens)
    for spec in ("in-context", "bm25", "lr-zero", "thinking:budget=2", f"qttt:{QUICK}"):
        assert answer(engine, spec).document_flops["read"] == expected
    assert bench.read_seconds(example()) > 0


@contextmanager
def metered(bench: Bench) -> Iterator[Counter[bool]]:
    """Count tokens that go through the first layer, by whether they are trained on."""
    seen: Counter[bool] = Counter()

    def count(module: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        hidden = given[0] if given else named["hidden_states"]  # (batch, tokens, hidden_size)
        seen[torch.is_grad_enabled()] += hidden.shape[0] * hidden.shape[1]

    model: Any = bench._loaded.runtime.model
    handle = model.model.layers[0].register_forward_pre_hook(count, with_kwargs=True)
    yield seen
    handle.remove()


@pytest.mark.parametrize(
    "spec", ["in-context", "bm25", "bm25-only", "self-consistency:n=3", "thinking:budget=5"]
)
def test_what_is_charged_is_what_went_through_the_model(spec: str, engine: TTTEngine) -> None:
    """And FLOPs follow from it, by hand: width 32, MLP of 48, so r = 1.5 and C_tok = 7 L d^2."""
    bench, asked = Bench(engine, Rooms()), example(8)
    read = bench.read(asked).n_tokens
    with metered(bench) as seen:
        found = parse_arm(spec).run(bench, asked)
    assert seen == {False: sum(one.tokens for one in found.replies)}
    if spec in ("in-context", "bm25"):
        for one in found.replies:
            n, layers = one.tokens, bench.architecture.n_layers
            attended = 2 * layers * 32 * (n * read + n * (n - 1) / 2)
            assert one.flops == pytest.approx(attended + 7 * layers * 32**2 * n)


def test_positions_are_the_tokens_that_were_trained_on(engine: TTTEngine) -> None:
    bench, asked = Bench(engine, Rooms()), example(8)
    bench.read(asked)
    with metered(bench) as seen:
        found = parse_arm(f"qttt:{QUICK}").run(bench, asked)
    assert seen[True] == found.details["positions"] > 0


@pytest.mark.parametrize("amortised", [False, True])
def test_thinking_costs_what_adapting_would_within_a_token(
    amortised: bool, long_engine: Callable[..., TTTEngine]
) -> None:
    engine = long_engine(THINKING)
    recipe = QUICK.replace("steps=3", "steps=1")
    found = answer(engine, f"thinking:{recipe},amortised={amortised}")
    architecture = Bench(engine, Rooms()).architecture
    budget = spent(engine, recipe) / (2 if amortised else 1)
    for one in found.replies:
        tokens = int(str(one.details["budget"]))
        assert tokens > 0
        assert flops.answer_flops(architecture, tokens, found.n_tokens) <= budget
        assert flops.answer_flops(architecture, tokens + 1, found.n_tokens) > budget
        # It never ends by itself, so all of it is thought; the tags are none of it.
        tags = sum(engine.count_tokens(tag) for tag in ("<think>", "</think>"))
        assert one.details["thought"] == tokens + tags
        assert one.generated_tokens == tokens + tags + Rooms.max_new_tokens
    assert found.details["way"] == "template"


def test_a_model_without_tags_thinks_on_a_scratchpad(
    long_engine: Callable[..., TTTEngine],
) -> None:
    found = answer(long_engine(), "thinking:budget=20")
    assert found.details["way"] == "scratchpad"
    for one in found.replies:
        assert one.generated_tokens == 20 + Rooms.max_new_tokens
        assert one.details["final"] is False


@pytest.mark.parametrize(
    ("said", "scored", "final"),
    [
        ("I wonder. Final: no. Final: room 3", "room 3", True),
        ("room 3", "room 3", False),
        ("room 3\nFinal:", "", True),
        ("Final:     return x\n", "    return x", True),  # Code begins with white space.
        ("Final:\n    return x", "    return x", True),
        ("    return x", "    return x", False),
    ],
)
def test_what_is_scored_stands_behind_final(
    said: str, scored: str, final: bool, engine: TTTEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask = Bench.ask

    def speak(self: Bench, document: Any, prompts: Any, rooms: Any, **options: Any) -> Any:
        asked.extend(prompts)
        return [replace(one, text=said) for one in ask(self, document, prompts, rooms, **options)]

    monkeypatch.setattr(Bench, "ask", speak)
    found = answer(engine, "thinking:budget=7")
    assert texts(found) == [scored] * 2
    assert [one.details["final"] for one in found.replies] == [final] * 2
    assert all("at most 7 tokens" in prompt and "'Final:'" in prompt for prompt in asked)


def test_a_budget_that_the_window_has_no_room_for_is_cut_and_said(engine: TTTEngine) -> None:
    found = answer(engine, "thinking:budget=5000", example(9))
    for one in found.replies:
        assert one.details["budget_wanted"] == 5000
        assert 0 < int(str(one.details["budget"])) < engine.window - found.n_tokens


def test_adapting_and_thinking_cost_both(long_engine: Callable[..., TTTEngine]) -> None:
    engine = long_engine(THINKING)
    found = answer(engine, f"qttt+thinking:{QUICK},budget=20")
    assert found.document_flops["adapt"] == spent(engine)
    assert found.details["decision"] == "adapted"
    assert all(int(str(one.details["thought"])) >= 20 for one in found.replies)


def test_samples_cost_what_adapting_would_within_a_sample(engine: TTTEngine) -> None:
    found = answer(engine, f"self-consistency:{QUICK},most=500")
    base = answer(engine, f"self-consistency:{QUICK},n=1")
    budget = spent(engine)
    for one, first in zip(found.replies, base.replies, strict=True):
        samples = int(str(one.details["samples"]))
        assert samples == 1 + int(budget / first.flops) == one.details["samples_paid"]
        assert 0 < float(str(one.details["agreement"])) <= 1


def test_samples_have_a_limit_and_say_so(engine: TTTEngine) -> None:
    found = answer(engine, f"self-consistency:{QUICK},most=2")
    assert [one.details["samples"] for one in found.replies] == [2, 2]
    assert all(int(str(one.details["samples_paid"])) > 2 for one in found.replies)


def test_samples_are_the_same_for_the_same_seed_and_differ_among_themselves(
    engine: TTTEngine,
) -> None:
    one, two = (answer(engine, "self-consistency:n=5,temperature=5") for _ in range(2))
    assert texts(one) == texts(two)
    assert all(float(str(reply.details["agreement"])) < 1 for reply in one.replies)


@pytest.mark.parametrize(
    ("said", "majority"),
    [
        (("B", "a.", "A", "b", "A!"), "a."),  # a: three; the first of them is `a.`
        (("x", "y"), "x"),
        (("", "", "yes"), ""),
        (("x", "})", "])", "])"), "])"),  # Without letters, too.
    ],
)
def test_the_majority_counts_and_of_equals_the_first(
    said: tuple[str, ...], majority: str, engine: TTTEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = iter(said)
    ask = Bench.ask

    def speak(self: Bench, document: Any, prompts: Any, rooms: Any, **options: Any) -> Any:
        text = next(turns)
        return [replace(one, text=text) for one in ask(self, document, prompts, rooms, **options)]

    monkeypatch.setattr(Bench, "ask", speak)
    assert texts(answer(engine, f"self-consistency:n={len(said)}")) == [majority] * 2


@pytest.mark.parametrize(
    "spec",
    [
        "in-context",
        "bm25",
        "bm25-only",
        "lr-zero:r=4",
        "self-consistency:n=2,temperature=0.1",
        f"qttt:{QUICK}",
        f"qttt:{QUICK},supervision=retrieved",
        "thinking:budget=7",
    ],
)
def test_each_answer_has_the_room_of_its_question(spec: str, engine: TTTEngine) -> None:
    one = example()
    rooms = (6, None, 2)
    asked = tuple(
        replace(one.questions[0], id=str(number), max_new_tokens=room)
        for number, room in enumerate(rooms)
    )
    found = answer(engine, spec, replace(one, questions=asked))
    # A random model does not end by itself.
    thought = 7 if "thinking" in spec else 0
    samples = int(str(found.replies[0].details.get("samples", 1)))
    expected = [samples * (thought + (room or Rooms.max_new_tokens)) for room in rooms]
    assert [reply.generated_tokens for reply in found.replies] == expected


def test_room_for_some_does_not_change_the_answers_of_others(engine: TTTEngine) -> None:
    one = example()
    first = replace(one.questions[0], max_new_tokens=9)
    mixed = answer(engine, "in-context", replace(one, questions=(first, one.questions[1])))
    plain = answer(engine, "in-context", one)
    assert mixed.replies[1] == replace(plain.replies[1], seconds=mixed.replies[1].seconds)
    assert texts(mixed)[0].startswith(texts(plain)[0].rstrip("\ufffd"))


@pytest.mark.parametrize("document", ["?! ...\n--- ***\n", "\u3002\u3002"])
def test_bm25_finds_nothing_in_a_document_without_words(document: str, engine: TTTEngine) -> None:
    one = replace(example(), document=document)
    for spec in ("bm25", "bm25-only"):
        assert [r.details["passages"] for r in answer(engine, spec, one).replies] == [0, 0]


@given(text=st.text(max_size=20))
def test_normalising_again_changes_nothing(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)
    assert normalised(f"  {text.upper()}. ") == normalised(text.upper())


def test_bm25_puts_the_right_passage_in_front_of_the_question(
    engine: TTTEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask = Bench.ask

    def listen(self: Bench, document: Any, prompts: Any, rooms: Any, **options: Any) -> Any:
        asked.extend(prompts)
        return ask(self, document, prompts, rooms, **options)

    monkeypatch.setattr(Bench, "ask", listen)
    document = "\n".join(f"the {key} is in room {i}." for i, key in enumerate("abcdefgh"))
    one = example()
    key = "zebra"
    lines = document.splitlines()
    lines[5] = f"the {key} is in room 77."
    questions = (replace(one.questions[0], text=f"where is {key}?"),)
    found = answer(
        engine, "bm25:top=1", replace(one, document="\n".join(lines), questions=questions)
    )
    [prompt] = asked
    assert f"the {key} is in room 77." in prompt
    assert prompt.endswith(f"\n\nwhere is {key}?")
    assert lines[0] not in prompt
    assert found.replies[0].details == {"passages": 1}


def test_without_a_common_word_nothing_is_put_in_front(engine: TTTEngine) -> None:
    one = example()
    strange = replace(one, questions=(replace(one.questions[0], text="xyzzy?"),))
    found = answer(engine, "bm25", strange)
    assert found.replies[0].details == {"passages": 0}
    assert texts(found) == texts(answer(engine, "in-context", strange))
    assert answer(engine, "bm25-only", strange).replies[0].details == {"passages": 0}


def test_bm25_only_reads_documents_that_the_window_has_no_room_for(engine: TTTEngine) -> None:
    found = answer(engine, "bm25-only:top=2", example(100))
    assert found.n_tokens > engine.window
    assert found.document_flops == {}
    assert all(0 < one.tokens < engine.window for one in found.replies)


def test_chance_asks_nobody(engine: TTTEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bench, "ask", None)
    found = answer(engine, "chance")
    assert [one.score for one in found.replies] == [0.25, 0.25]
    assert found.document_flops == {}


def test_a_question_that_does_not_fit_fails(engine: TTTEngine) -> None:
    one = example()
    long = replace(one, questions=(replace(one.questions[0], text="why? " * 200),))
    with pytest.raises(PromptTooLongError):
        answer(engine, "in-context", long)
    with pytest.raises(PromptTooLongError):
        answer(engine, "thinking:budget=5", long)
