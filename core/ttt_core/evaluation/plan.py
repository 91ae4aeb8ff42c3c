"""What is to be evaluated: tasks, the arms for each, lengths, seeds; and the examples it takes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ttt_core.errors import ConfigError
from ttt_core.evaluation.records import CellKey, content_hash

if TYPE_CHECKING:
    from ttt_core.evaluation.arms import Arm
    from ttt_core.evaluation.bench import Bench
    from ttt_core.examples import Example, Split, Task


@dataclass(frozen=True)
class Job:
    """One task and the arms that are tried on it.

    Attributes:
        task: The task.
        arms: In the order of work.
        lengths: In the task's unit; empty: the task's own. Ignored where it has no length axis.
    """

    task: Task
    arms: tuple[Arm, ...]
    lengths: tuple[int, ...] = ()

    @property
    def axis(self) -> tuple[int | None, ...]:
        """The lengths to ask the task for."""
        return (self.lengths or self.task.lengths) if self.task.unit else (None,)


@dataclass(frozen=True)
class Plan:
    """All jobs, and on how many examples of each length.

    Attributes:
        jobs: The tasks.
        seeds: Each gives other documents.
        examples: Of each task, length and seed.
        split: Which examples; `tune` is for choosing settings.
    """

    jobs: tuple[Job, ...]
    seeds: tuple[int, ...] = (0,)
    examples: int = 4
    split: Split = "score"


@dataclass(frozen=True)
class Item:
    """An example, and where it comes from."""

    job: Job
    length: int | None
    seed: int
    example: Example


Place: TypeAlias = "tuple[str, int | None, int]"
"""A task's name, a length and a seed: what one call of `Task.examples` is about."""


def items(plan: Plan, only: Collection[Place] | None = None) -> Iterator[Item]:
    """Yield the examples of a plan in the order of work, made anew each time.

    Args:
        plan: The plan.
        only: Places; others are left out, since to make examples can take longer than to look
            that nothing is to be done with them. None: all.

    Raises:
        ConfigError: A task has no documents of some length, or examples or questions that cannot
            be told apart.
        DocumentError: A benchmark's data are not there, or not as they should be.
    """
    seen: set[tuple[Place, str]] = set()
    for job in plan.jobs:
        for length in job.axis:
            for seed in plan.seeds:
                if only is not None and (job.task.name, length, seed) not in only:
                    continue
                try:
                    for example in job.task.examples(
                        length, split=plan.split, seed=seed, count=plan.examples
                    ):
                        place = (job.task.name, length, seed)
                        _check(example, place, seen)
                        yield Item(job, length, seed, example)
                except ValueError as error:
                    if type(error) is not ValueError:  # Ours say already what is the matter.
                        raise
                    raise ConfigError(
                        f"task {job.task.name!r} has no documents of {length} {job.task.unit}: "
                        f"{error}"
                    ) from error


def _check(example: Example, place: Place, seen: set[tuple[Place, str]]) -> None:
    """Insist on ids: results are told apart and paired by them."""
    task, length, seed = place
    at = f"task {task!r}, length {length}, seed {seed}"
    if (place, example.id) in seen:
        raise ConfigError(
            f"{at}: two examples are called {example.id!r}. Name each task once; for another data "
            f"set of the same benchmark use another output folder"
        )
    seen.add((place, example.id))
    ids = [question.id for question in example.questions]
    if not ids or len(set(ids)) < len(ids):
        raise ConfigError(
            f"{at}, example {example.id!r}: expected at least one question, each with an id of its "
            f"own; found {len(ids)} questions with {len(set(ids))} ids"
        )


def key_of(bench: Bench, plan: Plan, item: Item, arm: Arm) -> CellKey:
    """Return the identity of an arm's cell."""
    return CellKey(
        model=bench.model_name,
        weights=bench.weights,
        task=item.job.task.name,
        length=item.length,
        split=plan.split,
        seed=item.seed,
        example=item.example.id,
        content=content_hash(item.example),
        arm=arm.name,
        settings=arm.settings,
    )
