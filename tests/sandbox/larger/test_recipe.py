"""Training of the larger sandbox model at a tiny size: it learns, resumes exactly and loads."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from ttt_core import TTTEngine
from ttt_core.errors import ConfigError, ModelLoadError
from ttt_core.sandbox.larger import recipe
from ttt_core.sandbox.larger.config import LargerConfig, sized
from ttt_core.sandbox.larger.recipe import main, train
from ttt_core.sandbox.larger.rows import RowSource
from ttt_core.sandbox.larger.state import TrainState
from ttt_core.sandbox.larger.tokenizer import train_tokenizer
from ttt_core.sandbox.larger.trainer import LargerTrainer
from ttt_core.sandbox.recipe import batch_loss, build_model
from ttt_core.sandbox.rows import pad

CONFIG: LargerConfig = sized("tiny")
CPU = torch.device("cpu")


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(CONFIG)


@cache
def rows() -> RowSource:
    return RowSource(tokenizer(), CONFIG.data)


@pytest.fixture(autouse=True)
def _trained_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "train_tokenizer", lambda config: tokenizer())


def trainer(config: LargerConfig = CONFIG) -> LargerTrainer:
    model = build_model(tokenizer(), seed=0, shape=recipe._shape(config))
    return LargerTrainer(model, tokenizer(), config, say=lambda line: None)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_the_loss_falls_on_a_fixed_batch() -> None:
    training, batch = trainer(), rows().batch(0)
    losses = [training.step(batch) for _ in range(20)]
    assert losses[-1] < 0.7 * losses[0]


def test_parts_make_the_update_of_the_whole_batch() -> None:
    drawn = RowSource(tokenizer(), replace(CONFIG.data, batch_tokens=3000)).rows(0)
    assert len(drawn) > 3
    one, three = trainer(), trainer()
    one.step([pad(drawn)])
    three.step([pad(drawn[:2]), pad(drawn[2:3]), pad(drawn[3:])])
    for left, right in zip(one.model.parameters(), three.model.parameters(), strict=True):
        # The first update of AdamW is the gradient's sign: where that is 0 but for rounding, the
        # two differ by twice the rate, so gradients are compared.
        assert left.grad is not None
        assert right.grad is not None
        torch.testing.assert_close(left.grad, right.grad, atol=1e-5, rtol=1e-3)


def test_copying_comes_first_and_then_lessons_with_some_copying(tmp_path: Path) -> None:
    asked: list[int] = []
    config = replace(CONFIG, steps=14)
    training = trainer(config)

    def feed(index: int) -> list[object]:
        asked.append(index)
        return rows().batch(index)  # type: ignore[return-value]

    training.train(feed, seconds=1e9, save=lambda: None)  # type: ignore[arg-type]
    assert training.state.chat_from == config.periodic_steps == 3
    # Of the 11 steps behind the first phase, the 10th copies.
    assert asked == list(range(10))


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(CONFIG, tmp_path / "whole", device=CPU, seconds=1e9)
    _interrupt(monkeypatch, at_step=5, output=tmp_path / "cut")
    before = weights(sorted((tmp_path / "cut" / recipe.CHECKPOINTS).iterdir())[-1])
    train(CONFIG, tmp_path / "cut", device=CPU, seconds=1e9, resume=True)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert weights(tmp_path / "cut") != before


def _interrupt(monkeypatch: pytest.MonkeyPatch, *, at_step: int, output: Path) -> None:
    """Train with a checkpoint each step, and fail behind one."""
    step, real = LargerTrainer.step, LargerTrainer.train

    def failing(self: LargerTrainer, parts: list[object]) -> float:
        if self.state.steps == at_step:
            raise KeyboardInterrupt
        return step(self, parts)  # type: ignore[arg-type]

    def eager(self: LargerTrainer, *arguments: object, **options: object) -> None:
        real(self, *arguments, **{**options, "save_every": 0.0})  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(LargerTrainer, "step", failing)
        patch.setattr(LargerTrainer, "train", eager)
        with pytest.raises(KeyboardInterrupt):
            train(CONFIG, output, device=CPU, seconds=1e9)


def test_a_half_written_checkpoint_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / recipe.CHECKPOINTS / "step-00000009.partial").mkdir(parents=True)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match="leave out --resume"):
        train(CONFIG, tmp_path, device=CPU, seconds=1e9, resume=True)


def test_a_run_with_other_settings_is_not_resumed(tmp_path: Path) -> None:
    train(replace(CONFIG, steps=1), tmp_path, device=CPU, seconds=1e9)
    with pytest.raises(ConfigError, match="other settings"):
        train(CONFIG, tmp_path, device=CPU, seconds=1e9, resume=True)
    assert len(list((tmp_path / recipe.CHECKPOINTS).iterdir())) == 1


def test_time_over_stops_before_the_next_step_and_saves() -> None:
    training, saved = trainer(), list[int]()
    training.state.seconds = 10.0
    training.train(rows().batch, seconds=10.0, save=lambda: saved.append(training.state.steps))
    assert saved == [0]


def test_the_rate_rises_stays_and_falls() -> None:
    config = replace(CONFIG, steps=100, warmup_steps=4, learning_rate=1.0)
    state, rates = TrainState(), list[float]()
    for state.steps in range(100):
        state.plan(config, seconds=1e9)
        rates.append(state.rate(config))
    # Warm-up 1/4, 2/4, 3/4, 1; falls from step 70 on, to half of it at step 85.
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[70] == pytest.approx(1.0)
    assert rates[85] == pytest.approx(0.5)
    assert rates[99] < 0.01
    state.steps = 100
    assert state.finished()


def test_the_rate_falls_over_the_last_share_of_the_time() -> None:
    # 30 of 100 seconds are left, and a step takes half a second by now.
    state = TrainState(steps=500, seconds=70.0, step_seconds=0.5)
    state.plan(replace(CONFIG, steps=10_000), seconds=100.0)
    assert (state.decay_from, state.decay_steps) == (500, 60)
    state.seconds = 90.0
    state.plan(replace(CONFIG, steps=10_000), seconds=200.0)
    assert (state.decay_from, state.decay_steps) == (500, 60)


def test_what_a_step_takes_is_what_it_took_lately() -> None:
    state = TrainState()
    for state.steps in range(1, 101):
        state.tick(0.1 * state.steps)
        assert state.step_seconds == pytest.approx(0.1)
    for state.steps in range(101, 201):
        state.tick(10.0 + 2.0 * (state.steps - 100))
    # The mean of all is 1.05 seconds; of 0.1, 0.95 ** 100 or 0.6 % is left.
    assert state.step_seconds == pytest.approx(2.0, abs=0.02)
    assert state.seconds == 210.0


def test_the_command_writes_a_folder_that_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "CASES", (("registry", 8), ("transactions", 16)))
    main(["--output", str(tmp_path), "--size", "tiny", "--steps", "5", "--questions", "1"])
    printed = capsys.readouterr().out
    assert "314,112 parameters" in printed
    assert "16 operations" in printed
    table = json.loads((tmp_path / recipe.TABLE).read_text(encoding="utf-8"))
    assert [line["task"] for line in table] == ["registry", "transactions"]
    with TTTEngine.from_pretrained(tmp_path, store=tmp_path / "store") as engine:
        answer = engine.generate(engine.read("amber falcon: Oslo\n"), "Where is it?")
    assert answer.usage.completion_tokens >= 1


@pytest.mark.parametrize(("size", "least", "most"), [("base", 25, 40), ("small", 3, 5)])
def test_sizes_have_the_parameters_that_they_say(size: str, least: int, most: int) -> None:
    config = sized(size)  # type: ignore[arg-type]
    attention, inner = 4 * config.width**2, 3 * config.width * config.inner
    embeddings = 2 * config.vocabulary * config.width
    assert least * 10**6 < config.layers * (attention + inner) + embeddings < most * 10**6


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="tiny"):
        sized("tini")  # type: ignore[arg-type]


def test_a_batch_has_answers_in_every_part() -> None:
    """Without one, the accuracy of a part would be no number."""
    training = trainer()
    for part in rows().batch(1):
        loss, accuracy = batch_loss(training.model, part.with_mask())
        assert torch.isfinite(loss)
        assert 0.0 <= accuracy <= 1.0
