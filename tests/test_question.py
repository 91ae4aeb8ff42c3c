"""Adapting for one question: a key of its own, begun with what the document taught."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.conftest import build_model
from ttt_core import (
    AdaptationConfig,
    AdaptedDocument,
    ConfigError,
    Namespace,
    OutOfMemoryError,
    Progress,
    PromptTooLongError,
    RuntimeConfig,
    TTTEngine,
    UnsupportedModelError,
)
from ttt_core.gate import Verdict
from ttt_core.probe import ClozeScores
from ttt_core.progress import ignore_progress

KEYS = ["key", "cup", "map", "pen", "hat", "box", "jar", "net", "rug", "fan", "bag", "pot"]
TEXT = "\n".join(f"the {key} is in room {i}." for i, key in enumerate(KEYS))
QUESTION, ANOTHER = "where is the cup?", "where is the net?"
FORCED = AdaptationConfig(
    steps=3, learning_rate=3e-3, gate=False, r=4, clozes_per_step=4, supervision="retrieved"
)


@pytest.fixture
def engine(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> TTTEngine:
    return TTTEngine(model, tokenizer, adaptation=FORCED, store=tmp_path / "store")


def weights(
    engine: TTTEngine, config: AdaptationConfig, *, text: str = TEXT, **options: Any
) -> dict[str, torch.Tensor]:
    adapter = engine.adapt(text, config=config, **options).adapter
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


def test_no_steps_leave_what_the_document_taught(engine: TTTEngine) -> None:
    document = engine.adapt(TEXT, config=FORCED.for_document())
    idle = FORCED.model_copy(update={"steps": 0})
    learner = engine._learner()
    key = learner.identity(document.prompt, idle, QUESTION).key(engine.namespace)
    adapter, report, _ = learner.learn(
        key,
        document.prompt,
        document.prefix,
        idle,
        ignore_progress,
        question=QUESTION,
        start=document.adapter,
    )
    assert adapter is not None
    assert document.adapter is not None
    assert adapter is not document.adapter
    assert same(adapter.state_dict(), document.adapter.state_dict())
    assert report.kept_document


def test_a_question_never_changes_what_the_document_taught(
    engine: TTTEngine, tmp_path: Path
) -> None:
    document = engine.adapt(TEXT, config=FORCED.for_document())
    assert document.adapter is not None
    before = {name: weight.clone() for name, weight in document.adapter.state_dict().items()}
    files = {path: path.read_bytes() for path in tmp_path.rglob(f"*{document.key}*")}
    assert files
    engine.adapt(TEXT, question=QUESTION)
    assert same(document.adapter.state_dict(), before)
    assert {path: path.read_bytes() for path in files} == files


def test_who_cancels_a_questions_training_keeps_the_documents(
    engine: TTTEngine, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """And training it again begins where it began before."""
    stages: list[str] = []

    def cancel(progress: Progress) -> None:
        stages.append(progress.stage)
        if stages.count("train") > 6:  # Three steps of the document's, and its end.
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.adapt(TEXT, question=QUESTION, on_progress=cancel)
    engine.reset()
    assert engine.adapt(TEXT, config=FORCED.for_document()).source == "store"
    again = engine.adapt(TEXT, question=QUESTION)
    assert again.source == "trained"
    assert again.adapter is not None
    undisturbed = TTTEngine(model, tokenizer, adaptation=FORCED, store=tmp_path / "other")
    expected = weights(undisturbed, FORCED, question=QUESTION)
    assert same(again.adapter.state_dict(), expected)


def test_refused_training_leaves_what_the_document_taught(
    engine: TTTEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = weights(engine, FORCED.for_document())
    monkeypatch.setattr("ttt_core.train.judge", lambda *_, **__: Verdict(False, ("refused",)))
    assert same(weights(engine, FORCED, question=QUESTION), document)
    cold = FORCED.model_copy(update={"warm_start": False})
    assert engine.adapt(TEXT, config=cold, question=QUESTION).adapter is None


def test_who_unlearns_to_quote_is_refused_though_the_loss_is_no_worse(
    engine: TTTEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scores(*given: Any) -> ClozeScores:
        clozes, adapter = given[-2:]
        right = torch.ones(len(clozes)) if adapter is None else torch.zeros(len(clozes))
        return ClozeScores(torch.ones(len(clozes)), right)

    monkeypatch.setattr("ttt_core.train.score_clozes", scores)
    text = "\n".join(f"{key} {n}{i}." for n in "xyz" for i, key in enumerate(KEYS))
    config = FORCED.model_copy(update={"gate": True, "warm_start": False})
    refused = engine.adapt(text, config=config, question=QUESTION)
    assert refused.adapter is None
    assert refused.report is not None
    assert "100% before, 0% after, significantly fewer" in refused.report.reasons[-1]


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


@pytest.mark.parametrize("warm", [True, False])
def test_what_no_window_reaches_cannot_be_taught_and_is_not_adopted(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, warm: bool
) -> None:
    """Every layer sees 7 tokens back, and what is selected ends before the last line."""
    text = f"{TEXT}\n" + "and nothing more of it. " * 3
    config = FORCED.model_copy(update={"objective": "attention", "warm_start": warm})
    engine = TTTEngine(build_model("mistral-sliding"), tokenizer, store=tmp_path)
    taught = engine.adapt(text, question=QUESTION, config=config)
    report = taught.report
    assert report is not None
    assert not report.losses
    assert "sliding window of layer 1" in report.reasons[0]
    assert report.decision == ("adapted" if warm else "kept_base")
    assert report.kept_document is warm
    if warm:
        document = weights(engine, FORCED.for_document(), text=text)
        assert taught.adapter is not None
        assert same(taught.adapter.state_dict(), document)
    else:
        assert taught.adapter is None


def test_a_passage_in_a_windows_reach_is_taught(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    config = FORCED.model_copy(update={"objective": "attention"})
    engine = TTTEngine(build_model("mistral-sliding"), tokenizer, store=tmp_path)
    taught = engine.adapt(TEXT, question="where is the pot?", config=config)
    assert taught.report is not None
    assert taught.report.losses[-1] < taught.report.losses[0]


def test_attention_is_taught_for_questions_only() -> None:
    with pytest.raises(ValidationError, match="evidence or retrieved, not cloze"):
        AdaptationConfig(objective="attention")


def test_the_question_is_in_no_stored_file(engine: TTTEngine, tmp_path: Path) -> None:
    engine.adapt(TEXT, question="where is the zyzzyva?")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(b"zyzzyva" in path.read_bytes() or "zyzzyva" in path.name for path in files)


def test_questions_at_once_share_the_documents_adapter_and_learn_each_once(
    engine: TTTEngine,
) -> None:
    asked = [QUESTION, ANOTHER, QUESTION, QUESTION]
    learned: list[AdaptedDocument] = []
    trained: list[str] = []

    def listen(progress: Progress) -> None:
        trained.extend([progress.stage] * (progress.stage == "train" and progress.done == 1))

    def adapt(question: str) -> None:
        learned.append(engine.adapt(TEXT, question=question, on_progress=listen))

    threads = [threading.Thread(target=adapt, args=(question,)) for question in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(one.source for one in learned) == ["memory", "memory", "trained", "trained"]
    assert len({one.key for one in learned}) == 2
    assert len(trained) == 3, "the document, and each of two questions"


def test_releasing_a_question_leaves_the_documents_own_handle_in_use(engine: TTTEngine) -> None:
    document = engine.adapt(TEXT, config=FORCED.for_document())
    expected = engine.generate(document, "where?", max_new_tokens=5).text
    engine.adapt(TEXT, question=QUESTION).release()
    assert engine.generate(document, "where?", max_new_tokens=5).text == expected
    assert engine.adapt(TEXT, question=QUESTION).source == "store"


def test_who_cancels_while_the_model_prepares_leaves_nothing(engine: TTTEngine) -> None:
    config = FORCED.model_copy(update={"supervision": "evidence", "warm_start": False})

    def cancel(progress: Progress) -> None:
        if progress.stage == "prepare" and progress.done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.adapt(TEXT, question=QUESTION, config=config, on_progress=cancel)
    assert engine.adapt(TEXT, question=QUESTION, config=config).source == "trained"


def test_a_device_that_is_full_while_the_model_prepares_is_said(
    engine: TTTEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    config = FORCED.model_copy(update={"supervision": "high_loss"})
    with monkeypatch.context() as patch:
        patch.setattr("ttt_core.frozen_base.functional.cross_entropy", full)
        with pytest.raises(OutOfMemoryError):
            engine.adapt(TEXT, config=config)
    assert engine.adapt(TEXT, config=config).source == "trained"


def test_a_secret_hides_the_question_too(engine: TTTEngine) -> None:
    prompt = engine.read(TEXT).prompt

    def hashed(namespace: Namespace) -> str:
        return engine.loaded.identity(prompt, FORCED, namespace, QUESTION).question

    open_, other = hashed(Namespace()), hashed(Namespace("other"))
    sealed = {hashed(Namespace("acme", secret * 16)) for secret in (b"a", b"b")}
    assert open_ == other
    assert len({open_, *sealed}) == 3


def test_a_question_beyond_the_window_cannot_be_taught(engine: TTTEngine) -> None:
    config = FORCED.model_copy(update={"objective": "attention"})
    with pytest.raises(PromptTooLongError):
        engine.adapt(TEXT, question=f"{QUESTION} " * 60, config=config)


def test_a_question_that_cannot_be_asked_is_refused_before_any_work(engine: TTTEngine) -> None:
    stages: list[Progress] = []
    with pytest.raises(PromptTooLongError):
        engine.adapt(TEXT, question="why? " * 500, on_progress=stages.append)
    assert not {stage.stage for stage in stages} - {"load"}


def test_a_question_is_a_text(engine: TTTEngine) -> None:
    anything: Any = ["where?"]
    with pytest.raises(ConfigError, match="question is a text, not list"):
        engine.adapt(TEXT, question=anything)


def test_attention_that_cannot_be_looked_into_is_refused_before_any_work(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    config = FORCED.model_copy(update={"objective": "attention"})
    runtime, stages = RuntimeConfig(attention="model"), list[Progress]()
    engine = TTTEngine(model, tokenizer, adaptation=config, runtime=runtime, store=tmp_path)
    with pytest.raises(UnsupportedModelError, match="can be looked into"):
        engine.adapt(TEXT, question=QUESTION, on_progress=stages.append)
    assert not {stage.stage for stage in stages} - {"load"}
