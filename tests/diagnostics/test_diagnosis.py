"""A whole diagnosis: what is measured, what is said of it, and what comes out as JSON and page."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import build_model, build_tokenizer
from ttt_core import AdaptationConfig, AdaptedDocument, TTTEngine
from ttt_core.diagnostics import Diagnosis, check, diagnose
from ttt_core.diagnostics.as_json import diagnosis_json
from ttt_core.diagnostics.findings import findings
from ttt_core.diagnostics.heads import HeadSide, all_heads
from ttt_core.diagnostics.lemmas import demanded_lead
from ttt_core.diagnostics.needle import needle_tokens
from ttt_core.diagnostics.page import diagnosis_page
from ttt_core.errors import (
    ConfigError,
    DocumentError,
    PromptTooLongError,
    UnsupportedModelError,
)
from ttt_core.sandbox import Registry, make_registry

SHORT = AdaptationConfig(gate=False, steps=4, learning_rate=1e-3)
REGISTRY = make_registry(128, seed=3, questions=6)


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TTTEngine]:
    with TTTEngine.from_pretrained(store=tmp_path_factory.mktemp("store")) as engine:
        yield engine


@pytest.fixture(scope="module")
def adapted(bundled: TTTEngine) -> AdaptedDocument:
    return bundled.adapt(REGISTRY.text, config=SHORT)


@pytest.fixture(scope="module")
def found(bundled: TTTEngine, adapted: AdaptedDocument) -> Diagnosis:
    question = REGISTRY.questions[0]
    return diagnose(
        bundled, adapted, question.text, needles=[question.answer], answer=question.answer
    )


def right_before(engine: TTTEngine, document: AdaptedDocument, registry: Registry) -> list[float]:
    """The most mass of any head on the asked line, where the value is predicted."""
    masses = []
    for q in registry.questions:
        d = diagnose(engine, document, q.text, needles=[q.answer], answer=q.answer, dilution=False)
        masses.append(d.before.grid("mass", len(d.answer_tokens) - 1).max().item())
    return masses


def test_a_model_that_can_answer_looks_at_the_line_asked_for(
    bundled: TTTEngine, adapted: AdaptedDocument
) -> None:
    assert min(right_before(bundled, adapted, REGISTRY)) > 0.5


def test_another_line_has_next_to_no_mass(bundled: TTTEngine, adapted: AdaptedDocument) -> None:
    asked, other = REGISTRY.questions[0], REGISTRY.questions[1]
    d = diagnose(
        bundled, adapted, asked.text, needles=[other.answer], answer=asked.answer, dilution=False
    )
    assert d.before.grid("mass", d.peak).max() < 0.2


def test_the_last_dilution_point_is_the_document_itself(found: Diagnosis) -> None:
    lengths = [point.n_tokens for point in found.dilution]
    assert lengths == sorted(lengths)
    assert len(lengths) >= 3
    assert found.dilution[-1].n_tokens == found.adapted.n_tokens
    assert found.dilution[-1].before is found.before
    assert all(p.before.rivals < q.before.rivals
               for p, q in zip(found.dilution, found.dilution[1:], strict=False))  # fmt: skip


def test_sections_and_needle_lie_over_each_other(found: Diagnosis) -> None:
    [place] = found.needles[0].places
    [section] = [section for section in found.strip if section.is_needle]
    assert section.start <= place[0] < place[1] <= section.end
    assert found.n_needle_tokens == place[1] - place[0]
    needle = needle_tokens(found.needles)
    mass = sum(found.before.by_token()[token].item() for token in needle)
    assert mass == pytest.approx(found.before.grid("mass").mean().item(), rel=1e-4)
    assert section.before >= mass - 1e-6


def test_heads_are_ordered_and_say_what_the_grids_say(found: Diagnosis) -> None:
    heads = all_heads(found.before, found.after, found.peak)
    assert [h.most for h in heads] == sorted((h.most for h in heads), reverse=True)
    assert {(h.layer, h.head) for h in heads} == {(i, j) for i in range(3) for j in range(4)}
    top = heads[0]
    assert found.after is not None
    assert top.after is not None
    cell = (top.layer, top.head)
    assert top.before.mass == pytest.approx(found.before.grid("mass", found.peak)[cell].item())
    assert top.after.lead == pytest.approx(found.after.grid("lead", found.peak)[cell].item())


def test_rivals_like_the_best_by_hand() -> None:
    """Lead 3 and margin 1: the rivals together weigh e^2 like the best one."""
    assert HeadSide(0.7, 1.0, 3.0).like_best == pytest.approx(math.exp(2))
    assert math.isnan(HeadSide(0.0, -math.inf, -math.inf).like_best)


def test_json_is_json_and_holds_every_figure(found: Diagnosis) -> None:
    value = json.loads(json.dumps(diagnosis_json(found), allow_nan=False))
    attention = value["attention"]
    assert torch.tensor(attention["after"]["mean"]["mass"]).shape == (3, 4)
    assert attention["demanded_lead"]["0.1"] == pytest.approx(
        demanded_lead(found.before.rivals, 0.1)
    )
    assert attention["needed_margin"] == {"0.5": 0.0, "0.1": pytest.approx(math.log(9))}
    assert value["needles"][0]["guessed"] is False
    assert len(value["dilution"]) == len(found.dilution)
    assert value["findings"] == findings(found)
    assert len(attention["before"]["losses"]) == len(value["true_answer"]["tokens"])


def test_the_page_stands_alone_and_shows_everything(found: Diagnosis) -> None:
    page = diagnosis_page(found, model="a <model> & co")
    assert "a &lt;model&gt; &amp; co" in page
    assert not re.search(r"(?:src|href)=\"(?!#)", page)
    text = unescape(re.sub(r"<[^>]+>", " ", page))
    for sentence in findings(found):
        assert sentence in text
    for part in ("Layers and heads", "Dilution", "The document", "The adaptation", "after minus"):
        assert part in text
    # Heat maps of three kinds, before, after and their difference; 2 of dilution; 3 strips; losses.
    assert page.count("<figure>") == 9 + 2 + 3 + 1


def test_the_models_own_answer_counts_if_the_needle_holds_it(
    bundled: TTTEngine, adapted: AdaptedDocument, found: Diagnosis
) -> None:
    question = REGISTRY.questions[0]
    own = diagnose(bundled, adapted, question.text, needles=[question.answer], dilution=False)
    assert own.true_answer == question.answer
    assert not own.answer_given
    torch.testing.assert_close(own.before.grid("mass"), found.before.grid("mass"))
    assert "the model's own" in " ".join(findings(own))


def test_an_unknown_answer_leaves_the_last_token_before_it(
    bundled: TTTEngine, adapted: AdaptedDocument
) -> None:
    question, other = REGISTRY.questions[0], REGISTRY.questions[1]
    d = diagnose(bundled, adapted, question.text, needles=[other.answer], dilution=False)
    assert (d.true_answer, d.answer_tokens, d.before.losses, d.peak) == ("", (), (), 0)
    assert d.before.grid("mass").shape == (3, 4)
    assert "--answer" in " ".join(findings(d))


def test_without_a_needle_it_is_guessed_and_said(
    bundled: TTTEngine, adapted: AdaptedDocument
) -> None:
    question = REGISTRY.questions[0]
    d = diagnose(bundled, adapted, question.text, dilution=False)
    assert d.guessed
    assert d.needles[0].text == question.answer
    assert d.true_answer == ""  # Guess upon guess would look like knowledge.
    assert "guess" in findings(d)[0]
    assert diagnosis_json(d)["needles"][0]["guessed"] is True


def test_without_an_adapter_there_is_only_before(bundled: TTTEngine) -> None:
    question = REGISTRY.questions[0]
    read = bundled.read(REGISTRY.text)
    d = diagnose(bundled, read, question.text, needles=[question.answer])
    assert d.after is None
    assert d.answer_after is None
    assert len(d.dilution) >= 3
    value = diagnosis_json(d)
    assert value["attention"]["after"] is None
    assert value["dilution"][0]["after"] is None
    assert "no adapter" in " ".join(findings(d))
    page = diagnosis_page(replace(d, dilution=()), model="m")
    assert "after minus before" not in page
    assert "The adaptation" not in page
    assert "Dilution" not in page


def test_an_adapter_that_changes_nothing_changes_nothing_measured(bundled: TTTEngine) -> None:
    from ttt_core.adapter import QueryAdapter

    read = bundled.read(REGISTRY.text)
    projections = bundled._resident().model.runtime.architecture.projections
    untrained = QueryAdapter.create(projections, AdaptationConfig())
    bound = read.replace(adapter=lambda: untrained)
    question = REGISTRY.questions[0]
    d = diagnose(bundled, bound, question.text, needles=[question.answer], dilution=False)
    assert d.after is not None
    for name in ("mass", "margin", "lead", "own"):
        assert torch.equal(d.before.grid(name), d.after.grid(name))
    assert d.before.losses == d.after.losses


def test_several_places_all_count(bundled: TTTEngine) -> None:
    lines = REGISTRY.text.splitlines()
    twice = bundled.read("\n".join([lines[0], *lines[1:60], lines[0], *lines[60:]]))
    d = diagnose(bundled, twice, "Where is it?", needles=[lines[0]])
    assert len(d.needles[0].places) == 2
    assert "2 places" in findings(d)[0]
    assert "how often it stands there" in findings(d)[-1]
    assert d.dilution[0].n_tokens < d.needles[0].places[1].start, "the second is not in it"
    assert "how often" not in " ".join(findings(replace(d, dilution=())))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"question": "  "}, ConfigError, "question is empty"),
        ({"needles": [" "]}, ConfigError, "needle is empty"),
        ({"answer": ""}, ConfigError, "answer is empty"),
        ({"needles": ["no such line"]}, DocumentError, "not in the document"),
        ({"answer": "Oslo " * 16384}, PromptTooLongError, "window"),
        ({"question": "why? " * 16384}, PromptTooLongError, "window"),
    ],
    ids=["question", "needle", "answer", "missing", "long answer", "long question"],
)
def test_bad_input_is_refused(
    bundled: TTTEngine,
    adapted: AdaptedDocument,
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    question = REGISTRY.questions[0]
    arguments = {"question": question.text, "needles": [question.answer], **changes}
    with pytest.raises(error, match=message):
        diagnose(bundled, adapted, dilution=False, **arguments)


def test_models_that_cannot_be_looked_into_say_so(tmp_path: Path) -> None:
    model, tokenizer = build_model("deepseek-v3-mla"), build_tokenizer()
    with TTTEngine(model, tokenizer, store=tmp_path) as engine:
        read = engine.read("red fox: Oslo\nold hen: Bern")
        with pytest.raises(UnsupportedModelError, match="looked into"):
            diagnose(engine, read, "Where?", needles=["old hen"], answer="Bern")
        with pytest.raises(UnsupportedModelError, match="looked into"):  # Before adapting, too.
            check(engine, read, "Where?", ["old hen"])


@pytest.mark.parametrize("name", ["mistral-sliding", "gpt-oss-sinks"])
def test_a_needle_out_of_sight_has_no_mass_and_is_null_in_json(name: str, tmp_path: Path) -> None:
    """A window of 7 tokens ends long before the first line of some hundred bytes."""
    text = "red fox: Oslo\n" + "\n".join(f"old hen {i}: Bern" for i in range(9))
    with TTTEngine(build_model(name), build_tokenizer(), store=tmp_path) as engine:
        d = diagnose(engine, engine.read(text), "Where?", needles=["red fox: Oslo"], answer="Oslo")
        first = d.before.layers[0]
        assert first.mass.abs().max() == 0
        value = json.loads(json.dumps(diagnosis_json(d), allow_nan=False))
        assert value["attention"]["before"]["mean"]["margin"][0] == [None] * 4
