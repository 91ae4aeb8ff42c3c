"""A plan is done once, whatever happens meanwhile; what fails is a result, too."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.evaluation.harness import ARMS, Rooms, quick_plan, run
from tests.plays import Give, giving
from ttt_core import RuntimeConfig, TTTEngine
from ttt_core.errors import ConfigError, MissingLibraryError, OutOfMemoryError, StoreError
from ttt_core.evaluation import runner as runner_module
from ttt_core.evaluation.arms import parse_arm
from ttt_core.evaluation.bench import Bench
from ttt_core.evaluation.cells import run_record
from ttt_core.evaluation.plan import Job, Plan
from ttt_core.evaluation.results import Results
from ttt_core.evaluation.runner import Advance, Runner
from ttt_core.examples import Example, Question, Task


@pytest.fixture(scope="module")
def give() -> Iterator[Give]:
    """Gives a play of `plays.py` in a folder."""
    with giving("tests.evaluation.plays") as give:
        yield give


def test_every_cell_of_a_plan_is_there_once(engine: TTTEngine, tmp_path: Path) -> None:
    results = run(engine, tmp_path / "out", quick_plan())
    cells = results.cells()
    assert len(cells) == 8 * len(ARMS)  # Two lengths, two seeds, two examples.
    assert {c.key.arm for c in cells} == {*ARMS}
    assert {(c.key.length, c.key.seed) for c in cells} == {(4, 0), (4, 1), (8, 0), (8, 1)}
    assert all(c.failure is None and len(c.questions) == 2 for c in cells)
    assert set(results.timings()) == {c.key.digest for c in cells}
    task = Rooms()
    asked = {q.id: q for e in task.examples(4, split="score", seed=0, count=1) for q in e.questions}
    for cell in cells:
        for one in cell.questions:
            guessed = cell.key.arm == "chance"
            assert one.score == (0.25 if guessed else task.score(one.text, asked[one.id]))
            assert one.chance == 0.25


def test_cells_say_what_was_read_and_what_it_cost(engine: TTTEngine, tmp_path: Path) -> None:
    results = run(engine, tmp_path / "out", quick_plan(lengths=(4,)))
    cells = {(c.key.example, c.key.arm): c for c in results.cells()}
    document = next(Rooms().examples(4, split="score", seed=0, count=1)).document
    read = engine.read(document)
    in_context, qttt = cells["0-0", ARMS[0]], cells["0-0", ARMS[1]]
    assert in_context.n_tokens == qttt.n_tokens == read.n_tokens
    assert set(in_context.document_flops) == {"read"}
    assert in_context.document_flops["read"] == qttt.document_flops["read"] > 0
    assert qttt.document_flops["adapt"] > 0
    assert qttt.details["decision"] == "adapted"
    assert qttt.details["steps"] == 3
    assert cells["0-0", "chance"].flops(1) == 0
    timing = results.timings()[qttt.key.digest]
    assert set(timing.document_seconds) == {"read", "adapt"}
    assert set(timing.question_seconds) == {"q0", "q1"}


def test_nothing_is_done_twice(
    engine: TTTEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = quick_plan("in-context", "chance", lengths=(4,))
    before = run(engine, tmp_path / "out", plan).cells()
    monkeypatch.setattr(runner_module, "evaluate", None)
    assert run(engine, tmp_path / "out", plan).cells() == before


def test_more_of_a_plan_adds_to_what_is_there(engine: TTTEngine, tmp_path: Path) -> None:
    run(engine, tmp_path / "a", quick_plan("in-context", lengths=(4,)))
    grown = run(engine, tmp_path / "a", quick_plan("in-context", "chance"))
    at_once = run(engine, tmp_path / "b", quick_plan("chance", "in-context"))
    assert grown.cells() == at_once.cells()


def test_changed_options_are_another_cell(engine: TTTEngine, tmp_path: Path) -> None:
    run(engine, tmp_path, quick_plan("self-consistency:n=2", lengths=(4,)))
    results = run(engine, tmp_path, quick_plan("self-consistency:n=2,seed=5", lengths=(4,)))
    assert len(results.cells()) == 8


def test_another_model_is_another_cell(
    engine: TTTEngine,
    make_model: Callable[..., PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    run(engine, tmp_path / "out", quick_plan("in-context", lengths=(4,)))
    with TTTEngine(make_model("qwen3", seed=1), tokenizer, store=tmp_path / "store") as other:
        results = run(other, tmp_path / "out", quick_plan("in-context", lengths=(4,)))
    assert len({c.key.weights for c in results.cells()}) == 2
    assert len({c.key.model for c in results.cells()}) == 1


def test_progress_counts_up_to_the_end(engine: TTTEngine, tmp_path: Path) -> None:
    told: list[Advance] = []
    plan = quick_plan("in-context", "chance", lengths=(4,))
    runner = Runner(engine, Results(tmp_path), on_advance=told.append)
    assert runner.state(plan) == Advance(0, 8)
    assert runner.run(plan) == Advance(8, 8)
    assert [one.done for one in told] == sorted(one.done for one in told)
    assert [one.key is None for one in told[:4]] == [False, True, False, True]
    assert runner.state(plan) == told[-1]


def test_who_is_stopped_keeps_all_but_the_cell_in_work(engine: TTTEngine, tmp_path: Path) -> None:
    plan = quick_plan("in-context", "chance", lengths=(4,))

    def stop(advance: Advance) -> None:
        if advance.key is not None and advance.done == 3:
            raise KeyboardInterrupt

    results = Results(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        Runner(engine, results, on_advance=stop).run(plan)
    assert len(results.cells()) == 3
    assert not list(tmp_path.rglob("*.lock"))
    assert run(engine, tmp_path, plan).cells() == run(engine, tmp_path / "b", plan).cells()


def test_a_document_too_long_is_a_result(engine: TTTEngine, tmp_path: Path) -> None:
    plan = quick_plan("in-context", "chance", lengths=(4, 100))
    results = Results(tmp_path)
    assert Runner(engine, results).run(plan) == Advance(16, 16, failed=4)
    failed = [c for c in results.cells() if c.failure]
    assert {(c.key.length, c.key.arm) for c in failed} == {(100, "in-context")}
    failure = failed[0].failure
    assert failure is not None
    assert failure.kind == "DocumentTooLongError"
    assert "tokens" in failure.message
    assert "room" not in failure.message.replace("room for", "")  # Nothing of the text.
    assert failed[0].score is None


def test_what_failed_is_tried_again_if_asked_for(
    engine: TTTEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OutOfMemoryError("full")

    plan, results = quick_plan("in-context", lengths=(4,)), Results(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Bench, "ask", full)
        assert Runner(engine, results).run(plan).failed == 4
        assert Runner(engine, results, retry_failed=True).run(plan).failed == 4  # And it ends.
    assert Runner(engine, results).run(plan).failed == 4
    assert Runner(engine, results, retry_failed=True).run(plan) == Advance(4, 4)
    assert all(c.failure is None for c in results.cells())


def test_what_is_no_cells_fault_ends_the_run(
    engine: TTTEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise StoreError("no space")

    monkeypatch.setattr(Bench, "ask", full)
    results = Results(tmp_path)
    with pytest.raises(StoreError):
        Runner(engine, results).run(quick_plan("in-context", lengths=(4,)))
    assert results.cells() == []


def test_a_library_that_is_missing_ends_the_run_and_is_no_result(
    engine: TTTEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MissingLibraryError, match=r"pip install 'context-ttt\[eval\]'"):
        run(engine, tmp_path, quick_plan("in-context", "bm25"))
    assert [cell.key.arm for cell in Results(tmp_path).cells()] == ["in-context"]


def test_a_length_that_no_task_has_is_named(engine: TTTEngine, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'rooms' has no documents of 500 lines"):
        run(engine, tmp_path, quick_plan("chance", lengths=(500,)))


class Odd(Rooms):
    """Rooms with something about them that cannot be."""

    def __init__(self, **changes: Any) -> None:
        self._changes = changes

    def examples(self, *args: Any, **options: Any) -> Iterator[Example]:
        for one in super().examples(*args, **options):
            yield replace(one, **self._changes)


def odd_plan(task: Task, *specs: str) -> Plan:
    arms = tuple(map(parse_arm, specs or ("chance",)))
    return Plan((Job(task, arms, (4,)),), seeds=(0,), examples=2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": "same"}, "two examples are called 'same'"),
        ({"questions": ()}, "found 0 questions"),
        ({"questions": (Question("q", "a?", ("b",)),) * 2}, "found 2 questions with 1 ids"),
        ({"questions": (Question("q", "a?", ("b",), chance=1.5),)}, "found 1.5 and 1.5"),
    ],
)
def test_examples_that_cannot_be_told_apart_are_refused(
    changes: dict[str, Any], said: str, engine: TTTEngine, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        run(engine, tmp_path, odd_plan(Odd(**changes)))
    assert Results(tmp_path).cells() == []


def test_one_task_twice_is_refused(engine: TTTEngine, tmp_path: Path) -> None:
    [job] = odd_plan(Rooms()).jobs
    with pytest.raises(ConfigError, match="Name each task once"):
        run(engine, tmp_path, Plan((job, Job(Rooms(), job.arms, (4,)))))


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -0.1, 2.0])
def test_a_score_that_is_none_ends_the_run(
    score: float, engine: TTTEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rooms, "score", lambda *_: score)
    with pytest.raises(ConfigError, match="a score and a chance from 0 to 1, found"):
        run(engine, tmp_path, odd_plan(Rooms(), "in-context"))
    assert Results(tmp_path).cells() == []


def test_a_task_that_scores_otherwise_than_before_is_noticed(
    engine: TTTEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = odd_plan(Rooms(), "in-context", "chance")
    run(engine, tmp_path, plan)
    run(engine, tmp_path, odd_plan(Rooms(), "in-context", "chance"))  # It did not change.
    monkeypatch.setattr(Rooms, "score", lambda *_: 0.123)
    with pytest.raises(ConfigError, match=r"scores answers in .* otherwise"):
        run(engine, tmp_path, odd_plan(Rooms(), "in-context"))


def test_a_smaller_plan_changes_nothing_and_a_larger_one_adds(
    engine: TTTEngine, tmp_path: Path
) -> None:
    plan = odd_plan(Rooms(), "in-context")
    larger = replace(plan, seeds=(0, 1), examples=3)
    cells = run(engine, tmp_path, larger).cells()
    assert len(cells) == 6
    assert run(engine, tmp_path, plan).cells() == cells
    assert run(engine, tmp_path, replace(larger, seeds=(0, 1, 2))).cells()[:6] == cells


def test_cells_say_what_their_example_shares_with_others(engine: TTTEngine, tmp_path: Path) -> None:
    run(engine, tmp_path, odd_plan(Odd(source="story"), "chance"))
    too_long = replace(odd_plan(Odd(source="story"), "in-context").jobs[0], lengths=(100,))
    cells = run(engine, tmp_path, Plan((too_long,), examples=1)).cells()
    assert [(c.source, c.failure is None) for c in cells] == [("story", True)] * 2 + [
        ("story", False)
    ]


def test_engines_that_cut_documents_are_refused(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    runtime = RuntimeConfig(on_overflow="keep_end")
    with (
        TTTEngine(model, tokenizer, runtime=runtime, store=tmp_path / "store") as engine,
        pytest.raises(ConfigError, match="whole documents"),
    ):
        run(engine, tmp_path, quick_plan("chance"))


def test_a_run_says_who_it_was(engine: TTTEngine) -> None:
    record = run_record(engine, "ttt eval")
    assert record.device == "cpu"
    assert set(record.versions) == {"context-ttt", "python", "torch", "transformers"}


@pytest.mark.skipif(os.name == "nt", reason="fork and SIGKILL")
def test_a_run_that_was_killed_goes_on_to_the_same_file(give: Give, tmp_path: Path) -> None:
    give("killed", tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="fork and SIGKILL")
def test_processes_share_the_work_and_do_nothing_twice(give: Give, tmp_path: Path) -> None:
    give("together", tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="fork and SIGKILL")
def test_processes_with_plans_of_their_own_share_a_folder(give: Give, tmp_path: Path) -> None:
    give("overlapping", tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="fork and SIGKILL")
def test_the_work_of_one_that_is_killed_is_taken_over(give: Give, tmp_path: Path) -> None:
    give("taken_over", tmp_path)
