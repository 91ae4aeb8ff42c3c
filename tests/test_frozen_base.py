"""What supervisions may ask of the base model is what the model says without us."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ttt_core import Progress, TTTEngine
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
