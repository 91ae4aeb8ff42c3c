"""Options are chosen by score, on data that are not scored, and the choice is written down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.harness import Rooms, quick_plan
from ttt_core import TTTEngine
from ttt_core.errors import ConfigError, OutOfMemoryError
from ttt_core.evaluation import runner as runner_module
from ttt_core.evaluation.arms import Arm, parse_arm
from ttt_core.evaluation.arms.base import ArmResult, Reply
from ttt_core.evaluation.arms.in_context import InContext
from ttt_core.evaluation.bench import Bench
from ttt_core.evaluation.plan import Job, Plan
from ttt_core.evaluation.results import Results
from ttt_core.evaluation.runner import Runner
from ttt_core.evaluation.tuning import LEARNING_RATES, Tunable, choose, parse
from ttt_core.examples import Example, Split

JOB = Job(Rooms(), (), (4,))
PLAN = quick_plan("in-context", lengths=(4,), split="tune")
SPEC = "self-consistency:n=1/2/3"


def tunable(spec: str = SPEC) -> Tunable:
    found = parse(spec)
    assert isinstance(found, Tunable)
    return found


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> dict[str, float | None]:
    """Scores of arms by name, in place of running them; None: it fails."""
    scores: dict[str, float | None] = {}

    def run(self: Arm, bench: Bench, example: Example) -> ArmResult:
        score = scores[self.name]
        if score is None and example.id == "0-0":
            raise OutOfMemoryError("full")
        asked = example.questions
        return ArmResult(1, tuple(Reply("", score=score or 0.9) for _ in asked))

    from ttt_core.evaluation.arms.self_consistency import SelfConsistency

    monkeypatch.setattr(SelfConsistency, "run", run)
    return scores


def test_the_best_value_is_chosen_and_recorded(
    engine: TTTEngine, tmp_path: Path, scored: dict[str, Any]
) -> None:
    scored.update({f"self-consistency:n={n}": s for n, s in ((1, 0.2), (2, 0.7), (3, 0.5))})
    results = Results(tmp_path)
    arm = choose(tunable(), JOB, Runner(engine, results), results, plan=PLAN)
    assert arm.name == SPEC
    assert arm.settings["n"] == 2
    [choice] = results.choices()
    assert (choice.task, choice.option, choice.chosen) == ("rooms", "n", "2")
    bench = Bench(engine, Rooms())
    assert (choice.model, choice.weights) == (bench.model_name, bench.weights)
    assert choice.scores == pytest.approx({"1": 0.2, "2": 0.7, "3": 0.5})
    assert (choice.examples, choice.questions) == (4, 8)
    assert {c.key.split for c in results.cells()} == {"tune"}
    assert choice.cells == tuple(sorted(c.key.digest for c in results.cells()))


def test_of_equals_the_first_is_chosen(
    engine: TTTEngine, tmp_path: Path, scored: dict[str, Any]
) -> None:
    scored.update({f"self-consistency:n={n}": s for n, s in ((1, 0.2), (2, 0.7), (3, 0.7))})
    results = Results(tmp_path)
    runner = Runner(engine, results)
    assert choose(tunable(), JOB, runner, results, plan=PLAN).settings["n"] == 2
    other = tunable("self-consistency:n=3/2/1")
    assert choose(other, JOB, runner, results, plan=PLAN).settings["n"] == 3


def test_examples_that_a_value_failed_on_count_for_none(
    engine: TTTEngine, tmp_path: Path, scored: dict[str, Any]
) -> None:
    scored.update({f"self-consistency:n={n}": s for n, s in ((1, 0.2), (2, None), (3, 0.5))})
    results = Results(tmp_path)
    arm = choose(tunable(), JOB, Runner(engine, results), results, plan=PLAN)
    [choice] = results.choices()
    assert choice.examples == 3
    assert choice.scores == pytest.approx({"1": 0.2, "2": 0.9, "3": 0.5})
    assert arm.settings["n"] == 2


def test_where_all_fail_nothing_is_chosen(engine: TTTEngine, tmp_path: Path) -> None:
    results = Results(tmp_path)
    too_long = replace(JOB, lengths=(100,))
    with pytest.raises(ConfigError, match="cannot be tuned on task 'rooms'"):
        choose(tunable(), too_long, Runner(engine, results), results, plan=PLAN)
    assert results.choices() == []


def test_scored_examples_are_never_chosen_on(engine: TTTEngine, tmp_path: Path) -> None:
    results = Results(tmp_path)
    plan = replace(PLAN, split="score")
    with pytest.raises(ConfigError, match="split 'tune'"):
        choose(tunable(), JOB, Runner(engine, results), results, plan=plan)
    assert results.cells() == []


class Careless(Rooms):
    """A task that knows no splits."""

    def examples(
        self, length: int | None, *, split: Split, seed: int, count: int
    ) -> Iterator[Example]:
        return super().examples(length, split="score", seed=seed, count=count)


@pytest.mark.parametrize("first", ["tune", "score"])
def test_a_task_that_scores_what_was_chosen_on_is_refused(
    first: Split, engine: TTTEngine, tmp_path: Path
) -> None:
    def plan(task: Rooms, split: Split) -> Plan:
        return replace(PLAN, jobs=(Job(task, (parse_arm("chance"),), (4,)),), split=split)

    second: Split = "score" if first == "tune" else "tune"
    for name, task in (("careful", Rooms()), ("careless", Careless())):
        runner = Runner(engine, Results(tmp_path / name))
        runner.run(plan(task, first))
        if name == "careful":
            runner.run(plan(task, second))
            continue
        with pytest.raises(ConfigError, match="'0-0' both for choosing options and for scoring"):
            runner.run(plan(task, second))


def test_choosing_again_computes_nothing(
    engine: TTTEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Results(tmp_path)
    first = choose(tunable(), JOB, Runner(engine, results), results, plan=PLAN)
    monkeypatch.setattr(runner_module, "evaluate", None)
    again = choose(tunable(), JOB, Runner(engine, results), results, plan=PLAN)
    assert again.settings == first.settings
    assert (tmp_path / "choices.jsonl").read_bytes().count(b"\n") == 1


def test_a_tuned_arm_answers_as_the_one_that_was_chosen(engine: TTTEngine, tmp_path: Path) -> None:
    results = Results(tmp_path)
    found = tunable("self-consistency:n=2/2")
    arm = choose(found, JOB, Runner(engine, results), results, plan=PLAN)
    example = next(Rooms().examples(4, split="score", seed=0, count=1))
    bench = Bench(engine, Rooms())
    mine, its = arm.run(bench, example), found.at("2").run(bench, example)
    assert mine.replies == its.replies
    assert arm.description == found.at("2").description


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        ("qttt:learning_rate=tuned", LEARNING_RATES["lora"]),
        ("qttt:parametrization=full,learning_rate=tuned", LEARNING_RATES["full"]),
        ("qttt:learning_rate=1e-4/1e-3/1e-4", ("1e-4", "1e-3")),
        ("bm25:top=1/4", ("1", "4")),
    ],
)
def test_values_are_read(spec: str, values: tuple[str, ...]) -> None:
    assert tunable(spec).values == values


def test_closed_arms_are_arms() -> None:
    assert isinstance(parse("in-context"), InContext)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("qttt:steps=tuned", "steps=tuned needs values"),
        ("qttt:steps=3/4,r=2/4", "leaves steps and r open"),
        ("qttt:steps=3/x", "arm 'qttt': steps"),
        ("qttt:step=3/4", "did you mean 'steps'"),
        ("rag:top=3/4", "did you mean 'bm25'"),
    ],
)
def test_what_cannot_be_tuned_is_named(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(spec)
