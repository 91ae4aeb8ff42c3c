"""Does what a plan asks for and the results do not have yet, alone or beside other processes.

A cell is written down as soon as it is done, so that who is stopped loses the one in work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import isclose
from typing import TYPE_CHECKING

from ttt_core.errors import ConfigError
from ttt_core.evaluation.bench import Bench
from ttt_core.evaluation.cells import evaluate
from ttt_core.evaluation.plan import Item, Plan, items, key_of

if TYPE_CHECKING:
    from ttt_core.engine import TTTEngine
    from ttt_core.evaluation.arms import Arm
    from ttt_core.evaluation.records import Cell, CellKey
    from ttt_core.evaluation.results import Results
    from ttt_core.examples import Task

_POLL = 0.5
"""Seconds between two looks at cells that other processes have in work."""


@dataclass(frozen=True)
class Advance:
    """How far a run is.

    Attributes:
        done: Cells that are in the results.
        total: Cells of the plan.
        failed: Of those done, cells without answers.
        key: The cell in work; None: none is, or other processes are waited for.
    """

    done: int
    total: int
    failed: int = 0
    key: CellKey | None = None


AdvanceCallback = Callable[[Advance], None]


def ignore_advance(advance: Advance) -> None:
    """Do nothing."""


class Runner:
    """Works through plans with one model.

    Args:
        engine: The model.
        results: Where cells are written.
        on_advance: Hears of each cell before and after it; an exception it raises stops the run.
        retry_failed: Try once more what failed in an earlier run.
    """

    def __init__(
        self,
        engine: TTTEngine,
        results: Results,
        *,
        on_advance: AdvanceCallback = ignore_advance,
        retry_failed: bool = False,
    ) -> None:
        self._engine = engine
        self._results = results
        self._on_advance = on_advance
        self._retry = retry_failed
        self._tried: set[str] = set()
        self._benches: dict[int, tuple[Task, Bench]] = {}
        self._planned: tuple[Plan | None, dict[str, CellKey]] = None, {}

    def run(self, plan: Plan) -> Advance:
        """Do all cells of a plan, and wait for those that other processes are doing.

        Raises:
            ConfigError: A plan that cannot be.
            DocumentError: A benchmark's data, or the results, are not as they should be.
            StoreError: The results cannot be written.
            ModelLoadError, UnsupportedModelError: See `TTTEngine`.
        """
        wanted = self.keys(plan)
        # First examples that nobody else works on: who shares one reads it twice.
        polite = True
        while len(self._missing(wanted)) > 0:
            if not self._pass(plan, wanted, polite=polite) and not polite:
                self._tell(wanted)
                time.sleep(_POLL)
            polite = False
        return self._tell(wanted)

    def keys(self, plan: Plan) -> dict[str, CellKey]:
        """All cells of a plan, by digest, in the order of work.

        Raises:
            ConfigError: A plan that cannot be; or what is there was scored in another way, or on
                the other split.
            DocumentError: See `run`.
        """
        if plan is not self._planned[0]:  # To make all examples may take a while.
            found, there = {}, self._results.by_digest()
            others = {
                (c.key.task, c.key.content) for c in there.values() if c.key.split != plan.split
            }
            for item in items(plan):
                for arm in item.job.arms:
                    key = self._key(plan, item, arm)
                    _check_split(key, others)
                    found[key.digest] = key
                    if key.digest in there:
                        self._check(item, there[key.digest])
            self._planned = plan, found
        return self._planned[1]

    def state(self, plan: Plan) -> Advance:
        """How far a plan is, without doing anything."""
        return self._advance(self.keys(plan))

    def _pass(self, plan: Plan, wanted: dict[str, CellKey], *, polite: bool) -> bool:
        """Go through the plan once; return whether anything was done."""
        worked = False
        missing = self._missing(wanted)
        places = {(k.task, k.length, k.seed) for digest, k in wanted.items() if digest in missing}
        for item in items(plan, places):
            bench = self._bench(item.job.task)
            keys = [(arm, self._key(plan, item, arm)) for arm in item.job.arms]
            for arm, key in keys:
                if key.digest not in missing:
                    continue
                done = self._claim(bench, item, arm, key, wanted)
                worked = worked or done
                if not done and polite:
                    break
            if any(key.digest in missing for _, key in keys):
                bench.forget()
                missing = self._missing(wanted)
        return worked

    def _claim(
        self, bench: Bench, item: Item, arm: Arm, key: CellKey, wanted: dict[str, CellKey]
    ) -> bool:
        """Do a cell, unless another process has it in work; return whether it was done here."""
        with self._results.claimed(key) as alone:
            if not alone:
                return False
            if key.digest not in self._missing({key.digest: key}):
                return True  # Done by somebody else between our look and our claim.
            self._tell(wanted, key)
            cell, timing = evaluate(bench, item.example, arm, key)
            self._results.add(cell, timing)
            self._tried.add(key.digest)
        self._tell(wanted)
        return True

    def _check(self, item: Item, cell: Cell) -> None:
        """Insist that the task still scores as it did: no key could notice that it does not."""
        task = item.job.task
        for question, one in zip(item.example.questions, cell.questions, strict=False):
            # Who says nothing, as `chance` does, may have a score of its own.
            score = task.score(one.text, question) if one.text else one.score
            if not (isclose(score, one.score, abs_tol=1e-9) and one.chance == question.chance):
                raise ConfigError(
                    f"task {task.name!r} scores answers in {self._results.folder} otherwise than "
                    f"when they were written there: it has changed. Use another output folder, "
                    f"or remove its lines from results.jsonl"
                )

    def _missing(self, wanted: dict[str, CellKey]) -> set[str]:
        there = self._results.by_digest()
        done = {
            digest
            for digest in wanted
            if digest in there
            and not (self._retry and there[digest].failure and digest not in self._tried)
        }
        return wanted.keys() - done

    def _advance(self, wanted: dict[str, CellKey], key: CellKey | None = None) -> Advance:
        there = self._results.by_digest()
        failed = sum(d in there and there[d].failure is not None for d in wanted)
        return Advance(len(wanted) - len(self._missing(wanted)), len(wanted), failed, key)

    def _tell(self, wanted: dict[str, CellKey], key: CellKey | None = None) -> Advance:
        advance = self._advance(wanted, key)
        self._on_advance(advance)
        return advance

    def _key(self, plan: Plan, item: Item, arm: Arm) -> CellKey:
        return key_of(self._bench(item.job.task), plan, item, arm)

    def _bench(self, task: Task) -> Bench:
        # With the task, so that no other one can get its id.
        return self._benches.setdefault(id(task), (task, Bench(self._engine, task)))[1]


def _check_split(key: CellKey, others: Collection[tuple[str, str]]) -> None:
    """Insist that nothing is scored on what options are chosen on, or the other way round."""
    if (key.task, key.content) in others:
        raise ConfigError(
            f"task {key.task!r} gives example {key.example!r} both for choosing options and for "
            f"scoring them, so its figures would say nothing. Mend its examples(), so that 'tune' "
            f"and 'score' share no document, and use another output folder"
        )
