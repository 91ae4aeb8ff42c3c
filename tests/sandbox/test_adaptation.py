"""The whole method on the bundled model: it mends what dilution broke, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ttt_core import AdaptedDocument, TTTEngine
from ttt_core.sandbox import Registry, is_correct, make_registry


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TTTEngine]:
    store: Path = tmp_path_factory.mktemp("store")
    with TTTEngine.from_pretrained(store=store) as engine:
        yield engine


def accuracy(engine: TTTEngine, document: AdaptedDocument, registry: Registry) -> float:
    questions = registry.questions
    answers = engine.generate_batch(document, [q.text for q in questions], max_new_tokens=16)
    pairs = zip(answers, questions, strict=True)
    return sum(is_correct(answer.text, question) for answer, question in pairs) / len(questions)


def test_a_long_registry_is_answered_better_after_adaptation(bundled: TTTEngine) -> None:
    registry = make_registry(768, seed=5, questions=64)
    adapted = bundled.adapt(registry.text)
    assert adapted.report is not None
    assert adapted.report.decision == "adapted", adapted.report.reasons
    before = accuracy(bundled, adapted.without_adapter(), registry)
    assert accuracy(bundled, adapted, registry) >= before + 0.1


def test_at_training_length_nothing_is_trained_and_nothing_lost(bundled: TTTEngine) -> None:
    registry = make_registry(64, seed=5)
    adapted = bundled.adapt(registry.text)
    assert adapted.report is not None
    assert adapted.report.decision == "kept_base"
    assert adapted.report.steps_run == 0
    assert "exactly" in adapted.report.reasons[0]
    assert accuracy(bundled, adapted, registry) >= 0.9
