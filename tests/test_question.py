"""Adapting for one question: a key of its own, begun with what the document taught."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ttt_core import AdaptationConfig, ConfigError, TTTEngine
from ttt_core.gate import Verdict

KEYS = ["key", "cup", "map", "pen", "hat", "box", "jar", "net", "rug", "fan", "bag", "pot"]
TEXT = "\n".join(f"the {key} is in room {i}." for i, key in enumerate(KEYS))
QUESTION, ANOTHER = "where is the cup?", "where is the net?"
FORCED = AdaptationConfig(
    steps=3, learning_rate=3e-3, gate=False, r=4, clozes_per_step=4, supervision="retrieved"
)


@pytest.fixture
def engine(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> TTTEngine:
    return TTTEngine(model, tokenizer, adaptation=FORCED, store=tmp_path / "store")


def weights(engine: TTTEngine, config: AdaptationConfig, **options: Any) -> dict[str, torch.Tensor]:
    adapter = engine.adapt(TEXT, config=config, **options).adapter
    assert adapter is not None
    return adapter.state_dict()


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


def distance(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    return sum((left[name] - right[name]).square().sum().item() for name in left) ** 0.5


def test_each_question_has_its_own_adapter(engine: TTTEngine) -> None:
    first = engine.adapt(TEXT, question=QUESTION)
    other = engine.adapt(TEXT, question=ANOTHER)
    assert len({first.key, other.key, engine.adapt(TEXT, config=FORCED.for_document()).key}) == 3
    assert engine.adapt(TEXT, question=QUESTION).source == "memory"
    engine.reset()
    assert engine.adapt(TEXT, question=QUESTION).source == "store"


def test_keys_and_values_are_those_of_the_document(engine: TTTEngine) -> None:
    assert engine.adapt(TEXT, question=QUESTION).prefix is engine.read(TEXT).prefix


def test_it_begins_with_what_the_document_taught(engine: TTTEngine) -> None:
    cold = FORCED.model_copy(update={"warm_start": False})
    warm, fresh = (weights(engine, config, question=QUESTION) for config in (FORCED, cold))
    document = weights(engine, FORCED.for_document())
    assert not same(warm, document)
    assert distance(warm, document) < distance(fresh, document)


def test_refused_training_leaves_what_the_document_taught(
    engine: TTTEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = weights(engine, FORCED.for_document())
    monkeypatch.setattr("ttt_core.train.judge", lambda *_, **__: Verdict(False, ("refused",)))
    assert same(weights(engine, FORCED, question=QUESTION), document)
    cold = FORCED.model_copy(update={"warm_start": False})
    assert engine.adapt(TEXT, config=cold, question=QUESTION).adapter is None


def test_the_adapter_is_learned_again_if_memory_and_store_lost_it(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    engine = TTTEngine(model, tokenizer, adaptation=FORCED, store=tmp_path / "store")
    adapted = engine.adapt(TEXT, question=QUESTION)
    before = adapted.adapter
    assert before is not None
    engine.reset()
    for file in (tmp_path / "store").rglob("*.safetensors"):
        file.unlink()
    again = adapted.adapter
    assert again is not None
    assert again is not before
    assert same(again.state_dict(), before.state_dict())


@pytest.mark.parametrize("question", [None, "", "  \n"])
def test_a_recipe_for_a_question_needs_one(engine: TTTEngine, question: str | None) -> None:
    with pytest.raises(ConfigError, match=r"engine\.adapt\(document, question=\.\.\.\)"):
        engine.adapt(TEXT, question=question)
    with pytest.raises(ConfigError, match="pass it"):
        engine.adapt_many([TEXT])


def test_a_recipe_for_any_question_takes_none(engine: TTTEngine) -> None:
    with pytest.raises(ConfigError, match="one of 'evidence', 'retrieved', 'mixture'"):
        engine.adapt(TEXT, question=QUESTION, config=FORCED.for_document())


def test_attention_can_be_taught_where_to_look(engine: TTTEngine) -> None:
    config = FORCED.model_copy(update={"objective": "attention"})
    taught = engine.adapt(TEXT, question=QUESTION, config=config)
    assert taught.report is not None
    assert len(taught.report.losses) == 3
    assert taught.report.losses[-1] < taught.report.losses[0]


def test_attention_is_taught_for_questions_only() -> None:
    with pytest.raises(ValidationError, match="evidence or retrieved, not cloze"):
        AdaptationConfig(objective="attention")


def test_the_question_is_in_no_stored_file(engine: TTTEngine, tmp_path: Path) -> None:
    engine.adapt(TEXT, question="where is the zyzzyva?")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(b"zyzzyva" in path.read_bytes() or "zyzzyva" in path.name for path in files)
