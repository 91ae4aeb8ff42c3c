"""Options of arms that are chosen by score, and only on examples that are never scored.

`qttt:learning_rate=1e-4/1e-3` names the values to choose from, `qttt:learning_rate=tuned` takes
those that are usual. Each task has its own choice, over all its lengths: published figures with a
learning rate chosen by the data they are made of say nothing (`Choice` records what this one did).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ttt_core.errors import ConfigError
from ttt_core.evaluation.arms import Arm, make_arm
from ttt_core.evaluation.arms.options import split_spec
from ttt_core.evaluation.plan import Job, Plan
from ttt_core.evaluation.records import Cell, Choice

if TYPE_CHECKING:
    from pydantic import JsonValue

    from ttt_core.evaluation.arms.base import ArmResult
    from ttt_core.evaluation.bench import Bench
    from ttt_core.evaluation.results import Results
    from ttt_core.evaluation.runner import Runner
    from ttt_core.examples import Example

TUNED = "tuned"
SEPARATOR = "/"

LEARNING_RATES = {
    "lora": ("1e-4", "1e-3", "3e-3", "1e-2"),
    "full": ("1e-6", "1e-5", "1e-4", "1e-3"),
}
"""The paper's plateau (full: 1e-6 .. 1e-5), EASE-TTT's rate (LoRA: 1e-4), the sandbox's best."""


@dataclass(frozen=True)
class Tunable:
    """An arm with one option left open.

    Attributes:
        name: As typed.
        arm: The arm's plain name.
        option: The open option.
        values: What to choose from, as typed.
        rest: The other options, as typed.
    """

    name: str
    arm: str
    option: str
    values: tuple[str, ...]
    rest: dict[str, str]

    def at(self, value: str) -> Arm:
        """Return the arm with the option at a value.

        Raises:
            ConfigError: See `parse_arm`.
        """
        return make_arm(self.arm, {**self.rest, self.option: value})


@dataclass(frozen=True)
class TunedArm:
    """An arm whose option was chosen; it goes by the name it was typed by."""

    name: str
    inner: Arm

    @property
    def description(self) -> str:
        """See `Arm`."""
        return self.inner.description

    @property
    def settings(self) -> dict[str, JsonValue]:
        """See `Arm`; with what was chosen."""
        return self.inner.settings

    def run(self, bench: Bench, example: Example) -> ArmResult:
        """See `Arm`."""
        return self.inner.run(bench, example)


def parse(spec: str) -> Arm | Tunable:
    """Read an arm as it is typed; a `Tunable` where an option has several values.

    Raises:
        ConfigError: See `parse_arm`; or more than one option is open.
    """
    name, given = split_spec(spec)
    open_ = [o for o, value in given.items() if value == TUNED or SEPARATOR in value]
    if not open_:
        return make_arm(name, given)
    if len(open_) > 1:
        raise ConfigError(
            f"arm {name!r} leaves {' and '.join(open_)} open; one option at a time can be tuned"
        )
    [option] = open_
    rest = {other: value for other, value in given.items() if other != option}
    values = _values(name, option, given[option], rest)
    tunable = Tunable(spec.strip(), name, option, values, rest)
    for value in values:
        tunable.at(value)  # A value that cannot be should fail before any work is done.
    return tunable


def choose(tunable: Tunable, job: Job, runner: Runner, results: Results, *, plan: Plan) -> TunedArm:
    """Try all values on tuning examples of a task, and write down which one is best.

    Args:
        tunable: What is open.
        job: The task and its lengths; its arms do not matter.
        runner: Does what is not there yet.
        results: Where tuning cells and the choice are written.
        plan: Seeds and the number of examples; its split has to be `tune`.

    Raises:
        ConfigError: The plan is about scored examples; or every value failed.
    """
    if plan.split != "tune":
        raise ConfigError("options are chosen on the split 'tune'; 'score' is for the figures")
    arms = {value: tunable.at(value) for value in tunable.values}
    trial = replace(plan, jobs=(replace(job, arms=tuple(arms.values())),))
    runner.run(trial)
    there, keys = results.by_digest(), runner.keys(trial)
    cells = [there[digest] for digest in keys]
    choice = _choice(tunable, job, arms, cells)
    results.add_choice(choice)
    return TunedArm(tunable.name, arms[choice.chosen])


def _choice(tunable: Tunable, job: Job, arms: dict[str, Arm], cells: Sequence[Cell]) -> Choice:
    """Compare means over the examples that no value failed on."""
    failed = {cell.key.pair for cell in cells if cell.failure}
    fair = [cell for cell in cells if cell.key.pair not in failed]
    if not fair:
        raise ConfigError(
            f"{tunable.name} cannot be tuned on task {job.task.name!r}: of {len(cells)} tuning "
            f"cells none has an answer for each value; see the failures in the results"
        )
    scores = {
        value: _mean([c for c in fair if c.key.arm == arm.name]) for value, arm in arms.items()
    }
    return Choice(
        model=cells[0].key.model,
        weights=cells[0].key.weights,
        task=job.task.name,
        arm=tunable.name,
        option=tunable.option,
        scores=scores,
        examples=len({cell.key.pair for cell in fair}),
        questions=sum(len(cell.questions) for cell in fair) // len(arms),
        chosen=max(scores, key=lambda value: scores[value]),
        cells=tuple(sorted(cell.key.digest for cell in cells)),
    )


def _mean(cells: Sequence[Cell]) -> float:
    scores = [cell.score or 0.0 for cell in cells]
    return sum(scores) / len(scores)


def _values(arm: str, option: str, text: str, rest: dict[str, Any]) -> tuple[str, ...]:
    if text != TUNED:
        return tuple(dict.fromkeys(value.strip() for value in text.split(SEPARATOR)))
    if option != "learning_rate":
        raise ConfigError(
            f"arm {arm!r}: {option}={TUNED} needs values to choose from, such as "
            f"{option}=A{SEPARATOR}B; only learning_rate has usual ones"
        )
    return LEARNING_RATES["full" if rest.get("parametrization") == "full" else "lora"]
