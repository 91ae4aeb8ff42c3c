"""The log tells of work that takes its time: loading and adapting, and nothing of what is read."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ttt_core import AdaptationConfig, ModelLoadError, TTTEngine

OWLS = "\n".join(f"the owl number {number} lives in tree {number * 7 % 10}" for number in range(5))
FORCED = AdaptationConfig(
    steps=1, gate=False, early_stopping=False, held_out=2, clozes_per_step=2, max_drift=1e9
)
SECONDS = r"\d+\.\d s"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, logger="ttt_core"):
        yield caplog
    assert "owl" not in caplog.text


def lines(log: pytest.LogCaptureFixture) -> list[str]:
    """What was said since the last time; the choice of attention is none of ours."""
    work = ("ttt_core.engine", "ttt_core.loading", "ttt_core.learning", "ttt_core.host")
    said = [record.getMessage() for record in log.records if record.name in work]
    log.clear()
    return said


def matches(said: list[str], *patterns: str) -> bool:
    pairs = zip(said, patterns, strict=False)
    return len(said) == len(patterns) and all(re.fullmatch(p, line) for line, p in pairs)


@pytest.mark.parametrize(
    ("recipe", "decision"), [(FORCED, "adapted"), (AdaptationConfig(steps=0), "kept_base")]
)
def test_an_adaptation_is_two_lines(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    log: pytest.LogCaptureFixture,
    recipe: AdaptationConfig,
    decision: str,
) -> None:
    with TTTEngine(model, tokenizer, adaptation=recipe, store=tmp_path) as engine:
        adapted = engine.adapt(OWLS)
        assert matches(
            lines(log),
            f"adapting to a document of {adapted.n_tokens} tokens",
            f"document {adapted.id}: {decision} in {SECONDS}",
        )


def test_what_is_at_hand_is_no_line(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    log: pytest.LogCaptureFixture,
) -> None:
    with TTTEngine(model, tokenizer, adaptation=FORCED, store=tmp_path) as engine:
        engine.adapt(OWLS)
        lines(log)
        assert engine.adapt(OWLS).source == "memory"
        engine.generate(engine.adapt(OWLS), "Where?", max_new_tokens=1)
        engine.reset()
        assert engine.adapt(OWLS).source == "store"
        engine.read(OWLS)
        assert lines(log) == []


def test_an_adaptation_that_fails_does_not_end(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no owl")

    monkeypatch.setattr("ttt_core.learning.adapt_queries", fail)
    with (
        TTTEngine(model, tokenizer, adaptation=FORCED, store=tmp_path) as engine,
        pytest.raises(RuntimeError),
    ):
        engine.adapt(OWLS)
    assert matches(lines(log), r"adapting to a document of \d+ tokens")


def test_loading_is_two_lines_once(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    log: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with TTTEngine.from_pretrained(folder, store=tmp_path / "store") as engine:
        assert lines(log) == []
        engine.count_tokens(OWLS)
        assert matches(lines(log), f"loading {folder}", f"loaded {folder} in {SECONDS}")
        engine.count_tokens(OWLS)
        assert lines(log) == []


def test_a_model_that_cannot_be_loaded_is_not_said_to_be(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    with (
        TTTEngine.from_pretrained("nobody/nothing", store=tmp_path) as engine,
        pytest.raises(ModelLoadError),
    ):
        engine.count_tokens(OWLS)
    assert lines(log) == ["loading nobody/nothing"]
