"""Plays in which processes work on one folder of results at once, or are killed; run as a script.

A parent that has everything imported forks the actors, reads from its input which play to give
where, and answers `null`, or what went wrong, as JSON.
"""

from __future__ import annotations

import random
import select
from collections.abc import Callable
from pathlib import Path

from tests.evaluation.harness import QUICK, Rooms, run
from tests.faults.actors import Hook, stage
from tests.faults.engines import make_engine, warm_up
from tests.plays import serve
from ttt_core.evaluation.arms import parse_arm
from ttt_core.evaluation.plan import Job, Plan
from ttt_core.evaluation.results import Results
from ttt_core.evaluation.runner import Advance, Runner

_ARMS = tuple(parse_arm(spec) for spec in ("in-context", f"qttt:{QUICK}", "chance"))
PLAN = Plan((Job(Rooms(), _ARMS, (4,)),), seeds=(0, 1, 2), examples=1)
CELLS = 9
"""Three seeds, three arms."""


def evaluates(folder: Path, *, plan: Plan = PLAN, holds: bool = False) -> Callable[[Hook], None]:
    """Do a plan; tell of each cell that is begun here, and wait for a cue if it `holds`."""

    def role(hook: Hook) -> None:
        def tell(advance: Advance) -> None:
            if advance.key is not None:
                hook.tell(advance.key.digest)
                if holds:
                    hook.wait_for_cue()

        engine = make_engine(folder / "adapters")
        results = Results(folder)
        hook.wait_for_cue()
        Runner(engine, results, on_advance=tell).run(plan)
        results.finish()

    return role


def whole(folder: Path) -> bytes:
    """What a run in one go writes, in a folder of its own."""
    run(make_engine(folder / "adapters"), folder, PLAN)
    return (folder / "results.jsonl").read_bytes()


def killed(folder: Path) -> None:
    """Killed at random moments, a run goes on and writes what a run in one go writes."""
    expected = whole(folder / "whole")
    for seed in range(3):
        drawn, place = random.Random(seed), folder / str(seed)
        with stage(evaluates(place)) as (actor,):
            actor.cue()
            told = sum(actor.says() != "" for _ in range(drawn.randint(1, CELLS - 1)))
            # Not for luck: whatever the moment is, the outcome has to be the same.
            select.select([], [], [], drawn.random() * 0.1)
            actor.kill()
        assert len(Results(place).cells()) >= told - 1
        with stage(evaluates(place)) as (actor,):
            actor.cue()
            actor.last()
        assert (place / "results.jsonl").read_bytes() == expected, seed
        # Who was killed while it sorted leaves a temporary file, which is swept when it is old.
        check_left_over(place, ".lock")
    assert len(Results(folder / "whole").cells()) == CELLS


def together(folder: Path) -> None:
    """Two at once do each cell once, and write what one would have written."""
    expected, place = whole(folder / "whole"), folder / "together"
    begun = []
    with stage(*[evaluates(place)] * 2) as actors:
        for actor in actors:
            actor.cue()
        for actor in actors:
            while digest := actor.says():
                begun.append(digest)
    assert len(begun) == len(set(begun)) == CELLS, len(begun)
    assert (place / "results.jsonl").read_bytes() == expected
    assert len(Results(place).timings()) == CELLS
    check_left_over(place)


def overlapping(folder: Path) -> None:
    """Two at once with plans of their own, which share some cells, write what both would write."""
    plans = [
        Plan((Job(Rooms(), arms, (4,)),), seeds=seeds, examples=1)
        for arms, seeds in ((_ARMS[:2], (0, 1)), (_ARMS[1:], (1, 2)))
    ]
    for plan in plans:
        run(make_engine(folder / "whole" / "adapters"), folder / "whole", plan)
    expected, place = (folder / "whole" / "results.jsonl").read_bytes(), folder / "together"
    begun = []
    with stage(*(evaluates(place, plan=plan) for plan in plans)) as actors:
        for actor in actors:
            actor.cue()
        for actor in actors:
            while digest := actor.says():
                begun.append(digest)
    assert len(begun) == len(set(begun)) == 7, len(begun)  # Four each, one in common.
    assert (place / "results.jsonl").read_bytes() == expected
    check_left_over(place)


def taken_over(folder: Path) -> None:
    """The cell of one that is killed is done by another, who waits for it."""
    expected, place = whole(folder / "whole"), folder / "taken"
    with stage(evaluates(place, holds=True), evaluates(place)) as (first, second):
        first.cue()
        begun = first.says()
        second.cue()
        theirs = [second.says() for _ in range(CELLS - 1)]
        assert begun not in theirs
        first.kill()
        while digest := second.says():
            theirs.append(digest)
    assert begun in theirs
    assert (place / "results.jsonl").read_bytes() == expected


def check_left_over(folder: Path, *suffixes: str) -> None:
    ends = suffixes or (".lock", ".tmp")
    left = [str(file) for file in folder.rglob("*") if file.suffix in ends]
    left = [file for file in left if "adapters" not in file]  # The store sweeps its own.
    assert not left, left


if __name__ == "__main__":
    warm_up()
    serve(killed, together, overlapping, taken_over)
