"""From cells to figures: hand-made cells whose figures can be computed in the head."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.made_cells import make_cell, make_cells, make_timing
from ttt_core.evaluation.analysis.pairing import arm_order, count_documents, pair, scores
from ttt_core.evaluation.analysis.summary import Average, ModelSummary, Row, Summary, summarise
from ttt_core.evaluation.analysis.verdict import Verdict
from ttt_core.evaluation.records import Cell, Failure


def only(cells: list[Cell]) -> ModelSummary:
    (model,) = summarise(cells).models
    return model


def row_of(model: ModelSummary, arm: str, length: int | None = 64) -> Row:
    (found,) = [row for row in model.rows if (row.arm, row.length) == (arm, length)]
    return found


def average_of(model: ModelSummary, arm: str) -> Average:
    (found,) = [one for one in model.averages if one.arm == arm]
    return found


def better_by(gain: float, arm: str = "qttt") -> Callable[[str, int, int], float]:
    """Scores of a half, and of one arm more than that."""
    return lambda who, document, question: 0.5 + (gain if who == arm else 0.0)


def test_rows_by_hand() -> None:
    cells = [
        make_cell("in-context", [0, 1, 0, 1], example="0"),
        make_cell("in-context", [1, 1], example="1"),
        make_cell("qttt", [1, 1, 0, 0], example="0"),
        make_cell("qttt", [1, 1], example="1"),
    ]
    timings = {cell.key.digest: make_timing(cell) for cell in cells[2:]}
    (model,) = summarise(cells, timings).models
    row = row_of(model, "qttt")
    assert row.score == pytest.approx(4 / 6)
    assert row.above_chance == pytest.approx((4 / 6 - 0.1) / 0.9)
    assert (row.questions, row.documents, row.tokens, row.adapted) == (6, 2, 328, 1.0)
    assert row.versus is not None
    assert (row.versus.wins, row.versus.losses, row.versus.difference) == (1, 1, 0.0)
    costs = row.costs
    assert costs is not None
    assert (costs.flops_read, costs.flops_adapt, costs.flops_question) == (4e6, 6e6, 1e6)
    assert (costs.flops_one, costs.flops_many) == (11e6, 20e6)
    # 1 s of reading, 1 s of adapting, a fifth of a second for each question.
    assert (costs.seconds_document, costs.seconds_one, costs.seconds_many) == (2.0, 2.2, 4.0)
    reference = row_of(model, "in-context")
    assert reference.versus is None
    assert reference.costs is not None
    assert reference.costs.seconds_document is None
    assert (reference.costs.timed, reference.adapted) == (0, None)


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_order_of_cells_says_nothing(seed: int, shuffle: random.Random) -> None:
    generator = random.Random(seed)
    cells = make_cells(lambda *_: float(generator.random() < 0.5), documents=3, questions=2)
    before = summarise(cells)
    shuffle.shuffle(cells)
    assert summarise(cells) == before


def test_examples_for_tuning_are_no_evidence() -> None:
    cells = make_cells(better_by(0.0))
    tuning = [make_cell("qttt", [1.0] * 4, example=f"t{i}", split="tune") for i in range(9)]
    assert summarise([*cells, *tuning]) == summarise(cells)
    assert summarise(tuning) == Summary(models=())


def test_pairs_of_which_one_is_missing_are_left_out_and_counted() -> None:
    cells = [
        make_cell("in-context", [0.0], example="0"),
        make_cell("in-context", [0.0], example="1"),
        make_cell("qttt", [1.0], example="0"),
        make_cell("qttt", [], example="1", failed="OutOfMemoryError"),
        make_cell("qttt", [0.0], example="2"),
    ]
    model = only(cells)
    row = row_of(model, "qttt")
    assert row.score == 0.5  # Of what it answered.
    assert row.versus is not None
    assert (row.versus.difference, row.versus.questions, row.versus.unpaired) == (1.0, 1, 2)
    assert row.failures == {"OutOfMemoryError": 1}
    assert model.missing == (
        "in-context: 1 of 3 cells are not there (registry)",
        "qttt: 1 of 3 cells failed",
    )


def test_questions_are_paired_by_name_and_not_by_place() -> None:
    mine, theirs = make_cell("qttt", [1.0, 0.0]), make_cell("in-context", [1.0, 0.0, 0.5])
    turned = theirs.model_copy(update={"questions": theirs.questions[::-1]})
    assert pair([mine], [turned]).strata == [[[0.0, 0.0]]]


def test_lengths_of_an_example_are_one_document() -> None:
    cells = [make_cell("in-context", [1.0], length=n) for n in (64, 128)]
    assert scores(cells) == [[[1.0, 1.0]]]
    assert count_documents(cells) == 1


def test_one_document_drawn_by_two_seeds_is_one_document() -> None:
    cells = [make_cell("in-context", [1.0], seed=s, length=None, content="same") for s in (0, 1)]
    cells.append(make_cell("in-context", [0.0], seed=1, example="1", length=None, content="other"))
    assert scores(cells) == [[[1.0, 1.0], [0.0]]]
    assert count_documents(cells) == 2


def test_averages_are_over_tasks() -> None:
    cells = make_cells(lambda *_: 1.0, task="a", arms=["in-context"], questions=9)
    cells += make_cells(lambda *_: 0.0, task="b", arms=["in-context"], questions=1)
    average = average_of(only(cells), "in-context")
    assert (average.score, average.tasks) == (0.5, ("a", "b"))


def test_controls_take_no_share_of_the_correction() -> None:
    row = row_of(only(make_cells(better_by(0.1))), "qttt")
    assert row.versus is not None
    assert row.versus.comparisons == 2  # qttt and bm25
    # All eight documents differ the same way: 2 of 256 signs; times 2 by Holm.
    assert (row.versus.p_value, row.versus.p_corrected) == (2 / 256, 4 / 256)


def test_groups_are_broken_down() -> None:
    cells = []
    for arm in ("in-context", "qttt"):
        for number in range(6):
            deep = 1.0 if arm == "qttt" else 0.0
            cells.append(make_cell(arm, [0.5, deep], example=str(number), groups=["front", "back"]))
    rows = {(row.value, row.arm): row for row in only(cells).groups}
    assert rows["back", "qttt"].score == 1.0
    there, same = rows["back", "qttt"].versus, rows["front", "qttt"].versus
    assert there is not None
    assert same is not None
    assert (there.difference, there.p_corrected) == (1.0, 2 * 2 / 64)
    assert (same.difference, same.p_corrected, same.significant) == (0.0, 1.0, False)


def test_models_of_one_name_and_other_weights_are_told_apart() -> None:
    cells = make_cells(better_by(0.0), arms=["in-context"])
    others = [
        c.model_copy(update={"key": c.key.model_copy(update={"weights": "cd" * 32})}) for c in cells
    ]
    names = [model.model for model in summarise([*cells, *others]).models]
    assert names == ["tiny (abababab)", "tiny (cdcdcdcd)"]


def test_arms_of_one_name_and_other_settings_are_told_apart() -> None:
    cells = [make_cell("qttt", [float(n)], settings=n) for n in (0, 1)]
    rows = only(cells).rows
    assert [row.score for row in sorted(rows, key=lambda row: row.score or 0.0)] == [0.0, 1.0]
    assert len({row.arm for row in rows}) == 2
    assert all(row.arm.startswith("qttt #") for row in rows)


@pytest.mark.parametrize(
    ("text", "said"),
    [("said 0.5", "answered all 4 questions exactly"), ("else", "4 of 4 questions unlike")],
)
def test_lr_zero_is_held_against_the_reference(text: str, said: str) -> None:
    cells = make_cells(better_by(0.0), arms=["in-context", "lr-zero"], documents=1)
    (zero,) = [cell for cell in cells if cell.key.arm == "lr-zero"]
    answers = tuple(q.model_copy(update={"text": text}) for q in zero.questions)
    others = [cell for cell in cells if cell is not zero]
    assert said in only([*others, zero.model_copy(update={"questions": answers})]).lr_zero


def test_arms_stand_in_the_order_of_reading() -> None:
    arms = ["chance", "qttt", "lr-zero", "bm25", "in-context"]
    assert sorted(arms, key=arm_order) == ["in-context", "bm25", "qttt", "lr-zero", "chance"]


def verdict_of(cells: list[Cell]) -> Verdict:
    return only(cells).verdict


def test_verdict_adapt_names_places_and_numbers() -> None:
    cells = make_cells(better_by(0.25)) + make_cells(better_by(0.25), length=128)
    verdict = verdict_of(cells)
    assert (verdict.decision, verdict.arm, verdict.better) == ("adapt", "qttt", ())
    assert verdict.sentence.startswith("For tiny and these documents: adapt (qttt against")
    assert "+25 [+25, +25] points" in verdict.sentence
    assert "64 questions on 8 documents" in verdict.sentence
    assert any("registry at length 64, registry at length 128" in r for r in verdict.reasons)


def test_verdict_says_in_the_same_sentence_that_something_else_is_better() -> None:
    gains = {"qttt": 0.1, "bm25": 0.3}
    verdict = verdict_of(make_cells(lambda arm, *_: 0.5 + gains.get(arm, 0.0)))
    assert (verdict.decision, verdict.better) == ("adapt", ("bm25",))
    assert "without adapting, bm25 (+20 [+20, +20] points) is significantly" in verdict.sentence


def test_verdict_on_few_documents_is_not_enough_evidence_however_large() -> None:
    verdict = verdict_of(make_cells(better_by(0.5), documents=5, questions=50))
    assert verdict.decision == "not enough evidence"
    assert any("at least 6 are needed" in reason for reason in verdict.reasons)


@pytest.mark.parametrize("gain", [0.01, -0.25])
def test_verdict_against_adapting_needs_a_bound_on_the_gain(gain: float) -> None:
    # All documents agree: at +0.01 it is significant, and so to adapt; the rule says so.
    decision = verdict_of(make_cells(better_by(gain))).decision
    assert decision == ("adapt" if gain > 0 else "don't adapt")


def test_verdict_of_an_interval_without_width_says_no_more_than_the_documents() -> None:
    # 1 - 0.05^(1/8) = 0.312 of all documents may differ, by at most the half that is left: 16.
    verdict = verdict_of(make_cells(better_by(0.0)))
    assert verdict.decision == "not enough evidence"
    assert any("room for a gain of up to 16 points" in reason for reason in verdict.reasons)
    # 1 - 0.05^(1/80) = 0.0368; half of it is less than two points.
    assert verdict_of(make_cells(better_by(0.0), documents=80)).decision == "don't adapt"


def test_verdict_where_the_reference_is_always_right_says_so() -> None:
    verdict = verdict_of(make_cells(lambda *_: 1.0))
    assert verdict.decision == "don't adapt"
    assert any("right on every question" in reason for reason in verdict.reasons)


def test_verdict_tells_of_documents_that_one_arm_failed_on() -> None:
    cells = make_cells(better_by(0.25), documents=12)
    failing = [
        c.model_copy(update={"questions": (), "failure": Failure(kind="E", message="no")})
        if c.key.arm == "qttt" and c.key.seed == 2
        else c
        for c in cells
    ]
    verdict = verdict_of(failing)
    assert any(reason.startswith("4 documents (each length counted)") for reason in verdict.reasons)
    assert not any("each length counted" in reason for reason in verdict_of(cells).reasons)


def test_verdict_relies_on_nothing_where_learning_rate_zero_changes_answers() -> None:
    cells = make_cells(better_by(0.25), arms=["in-context", "qttt", "lr-zero", "lr-zero:r=4"])
    assert verdict_of(cells).decision == "adapt"
    broken = [
        c.model_copy(
            update={"questions": tuple(q.model_copy(update={"text": "x"}) for q in c.questions)}
        )
        if c.key.arm == "lr-zero:r=4"
        else c
        for c in cells
    ]
    verdict = verdict_of(broken)
    assert verdict.decision == "not enough evidence"
    assert "lr-zero:r=4 answered 32 of 32 questions unlike in-context" in verdict.sentence
    assert "no figure here can be relied on" in verdict.sentence


def test_arms_adapt_by_what_they_record_and_not_by_their_names() -> None:
    def named(cells: list[Cell], old: str, new: str) -> list[Cell]:
        renamed = {old: new}
        return [
            c.model_copy(
                update={"key": c.key.model_copy(update={"arm": renamed.get(c.key.arm, c.key.arm)})}
            )
            for c in cells
        ]

    cells = make_cells(better_by(0.25), arms=["in-context", "qttt"])
    assert verdict_of(named(cells, "qttt", "mine")).arm == "mine"
    others = make_cells(better_by(0.25, "bm25"), arms=["in-context", "bm25"])
    assert "no arm that adapts" in verdict_of(named(others, "bm25", "qttt-like")).sentence
    # A recipe for each question says it there.
    each = [
        c.model_copy(
            update={
                "details": {},
                "questions": tuple(
                    q.model_copy(update={"details": c.details}) for q in c.questions
                ),
            }
        )
        for c in cells
    ]
    assert verdict_of(each).arm == "qttt"


def test_examples_of_one_source_are_one_document() -> None:
    def cells(arm: str, gain: float, source: str | None) -> list[Cell]:
        return [
            make_cell(arm, [0.5 + gain], example=str(n), length=None, source=source)
            for n in range(8)
        ]

    story = [*cells("in-context", 0, "story"), *cells("qttt", 0.5, "story")]
    assert count_documents(story) == 1
    assert verdict_of(story).decision == "not enough evidence"
    apart = [*cells("in-context", 0, None), *cells("qttt", 0.5, None)]
    assert count_documents(apart) == 8
    assert verdict_of(apart).decision == "adapt"


def test_what_is_linked_by_source_or_content_is_one_document_whatever_the_order() -> None:
    # 0 and 1 share a source, 1 and 2 (another seed's draw) the content, 2 and 3 a source.
    linked = [
        make_cell("a", [1.0], example="0", content="w", source="x"),
        make_cell("a", [1.0], example="1", content="c", source="x"),
        make_cell("a", [1.0], example="2", content="c", source="y", seed=1),
        make_cell("a", [1.0], example="3", content="z", source="y", seed=1),
        make_cell("a", [1.0], example="4", content="v"),
        make_cell("a", [1.0], example="4", content="u", task="other", source="x"),
    ]
    for order in permutations(linked):
        assert count_documents(order) == 3


def test_arms_whose_settings_changed_between_runs_are_told_apart() -> None:
    # No document was answered twice, and still these are two arms.
    cells = [make_cell("qttt", [float(n)], example=str(n), settings=n) for n in (0, 1)]
    assert [row.score for row in only(cells).rows if row.score is not None] in ([0, 1], [1, 0])
    # A tuned option may well have another value for another task.
    tuned = [make_cell("qttt", [1.0], task=t, settings=n) for n, t in enumerate("ab")]
    assert {row.arm for row in only(tuned).rows} == {"qttt"}


def test_data_that_changed_between_runs_are_told_of() -> None:
    cells = make_cells(better_by(0.0), documents=2)
    changed = [make_cell("in-context", [1.0] * 4, example="0", content="new")]
    assert only(cells).missing == ()
    [*_, note] = only([*cells, *changed]).missing
    assert note.startswith("registry: 1 examples are there in several versions")


def test_verdict_on_noise_is_not_enough_evidence() -> None:
    generator = random.Random(0)
    arms = ("in-context", "qttt", "bm25")
    cells = make_cells(lambda *_: float(generator.random() < 0.5), arms=arms, documents=12)
    verdict = verdict_of(cells)
    assert verdict.decision == "not enough evidence"
    assert any("would probably not have been" in reason for reason in verdict.reasons)


def test_verdict_is_corrected_for_the_number_of_arms() -> None:
    """Six wins of six are p = 0.03; one lucky arm among three is no evidence."""
    arms = ["in-context", "qttt", "qttt:r=4", "qttt:r=8"]
    alone = make_cells(better_by(0.5), arms=arms[:2], documents=6, questions=1)
    assert verdict_of(alone).decision == "adapt"
    more = make_cells(better_by(0.5), arms=arms, documents=6, questions=1)
    assert verdict_of(more).decision == "not enough evidence"


@pytest.mark.parametrize(
    ("arms", "said"),
    [(["in-context", "bm25"], "no arm that adapts"), (["qttt"], "no in-context arm")],
)
def test_verdict_without_the_arms_for_it(arms: list[str], said: str) -> None:
    verdict = verdict_of(make_cells(better_by(0.0), arms=arms))
    assert verdict.decision == "not enough evidence"
    assert said in verdict.sentence


def test_what_so_few_documents_can_never_find_is_not_promised() -> None:
    """With seven documents and twelve arms no p-value survives the correction."""
    arms = ["in-context", "qttt", *(f"qttt:r={rank}" for rank in range(1, 12))]

    def varied(arm: str, document: int, question: int) -> float:
        return 0.5 if arm == "in-context" else 0.6 + document % 3 / 10

    few = only(make_cells(varied, arms=arms, documents=7))
    assert {row.versus.detectable for row in few.rows if row.versus} == {None}
    assert not any("80 % power" in reason for reason in few.verdict.reasons)
    enough = only(make_cells(varied, arms=arms, documents=9))
    assert all(row.versus.detectable for row in enough.rows if row.versus)


def test_verdict_of_losses_alone_says_no_more_than_the_documents() -> None:
    """One loss among ties bounds the gain no better than ties alone do."""

    def lost(arm: str, document: int, question: int) -> float:
        return 0.0 if arm == "qttt" and document == 0 else 0.5

    verdict = verdict_of(make_cells(lost, questions=1))
    assert verdict.decision == "not enough evidence"
    # 1 - 0.05^(1/8) = 0.312 of the 0.5 that is left; and 0.0368 of it with 80 documents.
    assert any("room for a gain of up to 16 points" in reason for reason in verdict.reasons)
    assert verdict_of(make_cells(lost, documents=80, questions=1)).decision == "don't adapt"


def test_verdict_says_that_the_best_of_several_arms_was_picked() -> None:
    gains = {"qttt": 0.2, "qttt:r=4": 0.3}
    arms = ["in-context", "qttt", "qttt:r=4"]
    verdict = verdict_of(make_cells(lambda arm, *_: 0.5 + gains.get(arm, 0.0), arms=arms))
    assert any("picked as the best of 2 arms" in reason for reason in verdict.reasons)
    alone = verdict_of(make_cells(lambda arm, *_: 0.5 + gains.get(arm, 0.0), arms=arms[:2]))
    assert not any("picked" in reason for reason in alone.reasons)


@pytest.mark.parametrize(
    ("documents", "said"),
    [(1, "1 question on 1 document)"), (2, "2 questions on 2 documents)")],
)
def test_verdict_counts_in_words_that_agree(documents: int, said: str) -> None:
    verdict = verdict_of(make_cells(better_by(0.5), documents=documents, questions=1))
    assert said in verdict.sentence


@pytest.mark.parametrize(
    ("refused", "kept"),
    [("kept_base", "the base"), ("kept_document", "what the document alone had taught")],
)
def test_verdict_says_what_the_gate_kept(refused: str, kept: str) -> None:
    cells = [
        cell.model_copy(update={"details": {"decision": refused}})
        if cell.details and cell.key.example == "0"
        else cell
        for cell in make_cells(better_by(0.25))
    ]
    said = f"qttt decided to adapt in 75 % of the cases, else it kept {kept}."
    assert said in verdict_of(cells).reasons
