"""Advice: what a result means for somebody who reads nothing else, and what to do next."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

from tests.evaluation.made_cells import ARMS, make_cell, make_cells
from ttt_core.evaluation.analysis.comparing import between, correct
from ttt_core.evaluation.analysis.power import fewest_documents
from ttt_core.evaluation.analysis.summary import summarise
from ttt_core.evaluation.records import Cell
from ttt_core.evaluation.report import advise

Score = Callable[[str, int, int], float]


def advice(cells: list[Cell]) -> list[str]:
    [model] = summarise(cells).models
    return list(advise(model))


def scores(**by_arm: float) -> Score:
    return lambda arm, document, question: by_arm.get(arm.replace("-", "_"), 0.5)


def test_adapting_that_helps_is_said_with_its_price() -> None:
    said = advice(make_cells(scores(qttt=0.75, bm25=0.5), documents=10))
    # (4e6 + 6e6 + 10 x 1e6) / (4e6 + 10 x 1e6) = 20 / 14
    assert said[0] == (
        "In plain words: adapting (qttt) helps: 75 points of 100 with it, 50 without, for 1.4 "
        "times the compute (one document and 10 questions)."
    )
    assert said[1].startswith("Next: adapt to documents like these (ttt ask, ttt adapt); ")
    assert len(said) == 2


def test_what_does_nearly_as_well_for_less_is_named() -> None:
    arms = (*ARMS, "bm25-only", "self-consistency")
    said = advice(make_cells(scores(qttt=0.75, bm25_only=0.7, bm25=0.55), arms=arms, documents=10))
    [weigh] = [one for one in said if one.startswith("Weigh")]
    assert weigh.startswith("Weigh it against bm25-only, which does not adapt: +20 ")
    assert "for 0.70 times its compute" in weigh  # 14 / 20


def test_what_helps_where_adapting_does_not_is_named() -> None:
    said = advice(make_cells(scores(qttt=0.25, bm25=0.75), documents=10))
    assert said[0] == (
        "In plain words: adapting (qttt) brings nothing worth having here: 25 points of 100 with "
        "it, 50 without."
    )
    assert said[1].startswith("What does help, without adapting: bm25, +25 ")
    assert "--no-adapt" in said[2]


def test_no_difference_at_all_is_no_interval() -> None:
    said = advice(make_cells(scores(), documents=10))
    assert said[0].startswith("In plain words: adapting (qttt) changed no score, ")


def test_nothing_left_to_gain_asks_for_harder_questions() -> None:
    said = advice(make_cells(lambda arm, document, question: 1.0, documents=5))
    assert said[-1].startswith("Next: longer documents or harder questions")


def test_a_broken_evaluation_gets_no_advice() -> None:
    cells = make_cells(scores(qttt=0.75, lr_zero=0.25), documents=10)
    said = advice(cells)
    assert len(said) == 1
    assert said[0].startswith("Next: please report this as a bug")


def test_too_few_documents_are_told_how_many_it_takes() -> None:
    said = advice(make_cells(scores(qttt=0.75), documents=5))
    assert said[0].startswith("In plain words: this cannot tell whether adapting (qttt) helps")
    assert "With 5 no result can be significant when 2 arms are compared; it takes 7" in said[-1]


@pytest.mark.parametrize("comparisons", [1, 2, 3, 10])
def test_fewest_documents_is_where_significance_begins(comparisons: int) -> None:
    """With every document a win, one document less is never significant."""

    def significant(documents: int) -> bool:
        mine, theirs = (
            [make_cell(arm, [score], example=str(n)) for n in range(documents)]
            for arm, score in (("qttt", 1.0), ("in-context", 0.0))
        )
        first = correct([between(mine, theirs)] * comparisons)[0]
        return first is not None and first.significant

    fewest = fewest_documents(comparisons)
    assert (significant(fewest - 1), significant(fewest)) == (False, True)


def test_an_undecided_result_says_how_many_documents_would_do() -> None:
    def luck(arm: str, document: int, question: int) -> float:
        return float((document * 7 + question * 3) % 5 < 2 + (arm == "qttt" and document % 3 != 0))

    cells = make_cells(luck, arms=["in-context", "qttt"], documents=12, questions=2)
    flipped = [
        c.model_copy(
            update={
                "questions": tuple(q.model_copy(update={"score": 1 - q.score}) for q in c.questions)
            }
        )
        if c.key.arm == "qttt" and int(c.key.example) % 2
        else c
        for c in cells
    ]
    [model] = summarise(flipped).models
    assert model.verdict.decision == "not enough evidence"
    assert advise(model)[-1].startswith("Next: more documents (--seeds, --examples)")


def test_arms_without_any_answer_are_named() -> None:
    cells = make_cells(scores(), arms=["qttt", "chance"])
    cells.append(make_cell("in-context", [], failed="DocumentTooLongError"))
    assert "in-context has no answer at all" in advice(cells)[0]


@pytest.mark.parametrize(
    ("arms", "missing"), [(["in-context", "bm25"], "--arm qttt"), (["qttt"], "--arm in-context")]
)
def test_an_arm_that_should_be_there_is_asked_for(arms: list[str], missing: str) -> None:
    [said] = advice(make_cells(scores(), arms=arms))
    assert missing in said


def test_every_kind_of_result_gets_a_next_step() -> None:
    for qttt, bm25, documents in product((0.25, 0.5, 0.75), (0.25, 0.75), (1, 6, 10)):
        said = advice(make_cells(scores(qttt=qttt, bm25=bm25), documents=documents))
        assert said[0].startswith("In plain words: ")
        assert said[-1].startswith("Next: ")


def test_what_was_seen_without_significance_is_no_range_of_the_effect() -> None:
    """It would read as a gain for certain, which is just what could not be shown."""
    arms = ["in-context", "qttt", "qttt:r=1", "qttt:r=4"]
    cells = make_cells(scores(qttt=0.75), arms=arms, documents=6)
    assert "(qttt) helps: 6 documents cannot show it." in advice(cells)[0]

    # Ten of twelve documents are won: the interval is above 0, and p = 0.039 is not after Holm.
    def mostly(arm: str, document: int, question: int) -> float:
        return 0.5 if arm == "in-context" else 0.9 if document % 6 else 0.1

    undecided = advice(make_cells(mostly, arms=arms, documents=12, questions=1))[0]
    assert "(qttt) helps: what was seen, +27 [" in undecided
    assert undecided.endswith("may still be chance.")


def test_documents_for_an_effect_are_said_of_the_effect_they_are_for() -> None:
    def luck(arm: str, document: int, question: int) -> float:
        swing = 0.31 if document % 2 else -0.3  # On average half a point.
        return 0.5 + (swing if arm == "qttt" else 0.0)

    cells = make_cells(luck, arms=["in-context", "qttt"], documents=40, questions=1)
    assert "would do for an effect of 2 points" in advice(cells)[-1]
    assert "anything from \N{MINUS SIGN}" in advice(cells)[0]


def test_one_arm_is_compared() -> None:
    cells = make_cells(scores(qttt=0.75), arms=["in-context", "qttt"], documents=5)
    assert "when 1 arm is compared" in advice(cells)[-1]
