"""The recipe's parts, on a handful of steps; no test trains the whole model."""

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM

from ttt_core.sandbox.recipe import (
    RecipeConfig,
    Trainer,
    batch_loss,
    build_model,
    main,
    train_periodic,
)
from ttt_core.sandbox.rows import (
    Batch,
    ChatRowConfig,
    ChatRows,
    growing_order,
    periodic_batch,
)
from ttt_core.sandbox.tokenizer import IM_END, SPECIAL_TOKENS, build_tokenizer

TOKENIZER = build_tokenizer(model_max_length=16384)


def chat_batch(seed: int, *, rows: int = 4, lines: int = 16) -> Batch:
    return ChatRows(TOKENIZER, ChatRowConfig(), seed=seed).batch(rows=rows, lines=lines)


@pytest.mark.parametrize("seed", range(3))
def test_periodic_rows_repeat_and_train_only_what_repeats(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    batch = periodic_batch(torch.arange(1000), rows=16, length=64, generator=generator)
    for ids, weights in zip(batch.input_ids, batch.weights, strict=True):
        period = int((weights == 0).sum())
        assert 4 <= period <= 32
        assert torch.equal(ids[period:], ids[:-period])
        assert weights[period:].all()


@pytest.mark.parametrize("seed", range(3))
def test_chat_rows_train_on_answers_that_the_document_gives(seed: int) -> None:
    batch = chat_batch(seed)
    for ids, weights in zip(batch.input_ids, batch.weights, strict=True):
        document = str(TOKENIZER.decode(ids[(weights > 0) & (weights < 1)]))
        taught = str(TOKENIZER.decode(ids[weights == 1]))
        assert document.count(": ") == document.count("\n")
        records = [line.split(": ") for line in document.splitlines()]
        for key, value in records:
            taught = taught.replace(f"{key}: {value}", "")
        assert ": " not in taught
        assert set(taught.split(IM_END)) <= {value for _, value in records} | {""}


@pytest.mark.parametrize("seed", range(8))
def test_positions_rise_but_where_a_conversation_starts_over(seed: int) -> None:
    steps = chat_batch(seed, rows=1, lines=64).position_ids[0].diff()
    assert int((steps < 1).sum()) == ChatRowConfig().branches


def test_positions_reach_far_and_stay_within_the_model() -> None:
    last = [int(chat_batch(seed, rows=1).position_ids.max()) for seed in range(64)]
    assert max(last) < ChatRowConfig().max_position
    assert max(last) > 10_000
    assert min(last) < 500


def test_conversations_see_the_document_and_themselves_only() -> None:
    batch = chat_batch(0, rows=1)
    mask = batch.mask[0, 0]
    trunk = int((~mask.tril()[-1]).nonzero()[0]) if not mask[-1].all() else len(mask)
    assert mask[:trunk, :trunk].equal(torch.ones(trunk, trunk, dtype=torch.bool).tril())
    assert mask[trunk:, :trunk].all()
    assert not mask.triu(1).any()
    restarts = (batch.position_ids[0].diff() < 0).nonzero()[:, 0] + 1
    assert len(restarts) == ChatRowConfig().branches
    for start in restarts.tolist():
        assert not mask[start:, trunk:start][0].any()


def test_a_packed_conversation_scores_as_if_alone() -> None:
    model = build_model(TOKENIZER, seed=0).eval()
    batch = chat_batch(0, rows=1)
    packed = forward(model, batch.input_ids, batch.position_ids, batch.mask)
    own = batch.mask[0, 0, -1]
    alone = forward(
        model,
        batch.input_ids[:, own],
        batch.position_ids[:, own],
        torch.ones(int(own.sum()), int(own.sum()), dtype=torch.bool).tril()[None, None],
    )
    torch.testing.assert_close(packed[0, -1], alone[0, -1])


@torch.no_grad()
def forward(model: Qwen3ForCausalLM, ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
    logits = model(ids, position_ids=positions, attention_mask=mask).logits
    assert isinstance(logits, Tensor)
    return logits


def test_growing_vocabulary_holds_every_plain_token_once() -> None:
    order = growing_order(TOKENIZER, random.Random(0))
    assert len(set(order)) == len(order) == len(TOKENIZER) - len(SPECIAL_TOKENS)
    assert order == growing_order(TOKENIZER, random.Random(0))


def test_copying_is_learned_within_a_few_steps() -> None:
    config = RecipeConfig(periodic_steps=20, warmup_steps=5)
    trainer = Trainer(build_model(TOKENIZER, seed=0), config)
    draw = train_periodic(trainer, TOKENIZER, config)
    with torch.no_grad():
        _, accuracy = batch_loss(trainer.model, draw())
    assert accuracy > 0.2


def test_recipe_writes_a_folder_that_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--output", str(tmp_path), "--steps", "2"])
    assert "16 lines" in capsys.readouterr().out
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.vocab_size == len(tokenizer)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 5_500_000
