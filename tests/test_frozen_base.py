"""What supervisions may ask of the base model is what the model says without us."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.conftest import CHATML
from ttt_core import Progress, PromptTooLongError, TTTEngine
from ttt_core.frozen_base import FrozenBase

TEXT = "the cup is in room 1. the map is in room 2. the pen is in room 3."


@pytest.fixture
def stages() -> list[Progress]:
    return []


@pytest.fixture
def base(engine: TTTEngine, stages: list[Progress]) -> FrozenBase:
    read = engine.read(TEXT)
    loaded = engine.loaded
    return FrozenBase(loaded, read.prompt, read.prefix, chunk=7, on_progress=stages.append)


def test_losses_and_entropies_are_the_models(
    base: FrozenBase, engine: TTTEngine, model: PreTrainedModel, stages: list[Progress]
) -> None:
    ids = torch.tensor(engine.read(TEXT).prefix.input_ids)
    with torch.no_grad():
        log = model(ids[None]).logits[0].float().log_softmax(-1)
    losses = functional.nll_loss(log[:-1], ids[1:], reduction="none")
    entropies = -(log.exp() * log).sum(-1)[:-1]
    torch.testing.assert_close(base.token_losses()[:-1], losses, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(base.token_entropies()[:-1], entropies, atol=1e-4, rtol=1e-4)
    assert base.token_losses()[-1].isnan()
    assert base.token_entropies()[-1].isnan()
    assert base.computed_tokens == len(ids) - 1, "both come of one pass"
    assert stages[-1] == Progress("prepare", len(ids) - 1, len(ids) - 1)


def test_answers_are_the_engines(base: FrozenBase, engine: TTTEngine) -> None:
    prompts = ["where is the cup?", "and the map?"]
    read = engine.read(TEXT)
    expected = engine.generate_batch(read, prompts, max_new_tokens=9)
    assert base.answers(prompts, max_new_tokens=9) == [answer.text for answer in expected]
    assert base.computed_tokens == sum(answer.usage.computed_tokens for answer in expected)
    assert base.answers([], max_new_tokens=9) == []


def test_the_tail_is_what_stands_before_an_answer(
    base: FrozenBase, engine: TTTEngine, tokenizer: PreTrainedTokenizerFast
) -> None:
    prefix = engine.read(TEXT).prompt.input_ids
    whole = [*prefix, *base.chat_tail("where?")]
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": f"{TEXT}\n\nwhere?"}], add_generation_prompt=True
    )
    ids = expected["input_ids"] if not isinstance(expected, list) else expected
    assert tokenizer.decode(whole) == tokenizer.decode(ids)
    assert base.decode(base.encode("a cup")) == "a cup"


def test_a_prompt_that_does_not_fit_the_window_has_no_answer(
    base: FrozenBase, engine: TTTEngine
) -> None:
    long = "where is the cup? " * engine.window
    short = "where is the cup?"
    assert base.answers([long, short], max_new_tokens=4) == [
        "",
        engine.generate(engine.read(TEXT), short, max_new_tokens=4).text,
    ]
    with pytest.raises(PromptTooLongError):
        base.chat_tail(long)
    room = engine.window - len(engine.read(TEXT).prefix) - len(base.chat_tail("x"))
    filling = "x" * (room - 1)  # A token each: two are left for the answer.
    assert len(base.chat_tail(filling)) + len(engine.read(TEXT).prefix) == engine.window - 2
    [answer] = base.answers([filling], max_new_tokens=40)
    assert answer == engine.generate(engine.read(TEXT), filling, max_new_tokens=2).text


def test_who_hears_of_the_writing_may_end_it(engine: TTTEngine) -> None:
    read, heard = engine.read(TEXT), list[Progress]()

    def listen(progress: Progress) -> None:
        heard.append(progress)
        if progress.done > 2:
            raise KeyboardInterrupt

    base = FrozenBase(engine.loaded, read.prompt, read.prefix, chunk=7, on_progress=listen)
    with pytest.raises(KeyboardInterrupt):
        base.answers(["where is the cup?"], max_new_tokens=60)
    assert {progress.stage for progress in heard} == {"prepare"}
    assert 2 < heard[-1].done < 60
    assert engine.generate(read, "where is the cup?", max_new_tokens=4).usage.completion_tokens == 4


def test_models_that_always_think_answer_at_once(
    model: PreTrainedModel, make_tokenizer: Callable[..., PreTrainedTokenizerFast], tmp_path: Path
) -> None:
    opened = "{# </think> #}" + CHATML.replace(
        "assistant\n{% endif", "assistant\n<think>\n{% endif"
    )
    engine = TTTEngine(model, make_tokenizer(opened), store=tmp_path)
    read = engine.read(TEXT)
    base = FrozenBase(engine.loaded, read.prompt, read.prefix, chunk=7)
    assert base.decode(base.chat_tail("where?")).endswith("<think>\n\n</think>\n\n")
    answer = engine.generate(
        read, "where?", thinking_budget=0, max_new_tokens=9 + len(base.encode("</think>"))
    )
    [plain] = base.answers(["where?"], max_new_tokens=9)
    assert plain
    assert answer.reasoning == ""
