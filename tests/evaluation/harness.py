"""A tiny task and quick arms, for evaluations of random models in memory."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from ttt_core import TTTEngine
from ttt_core.evaluation.arms import parse_arm
from ttt_core.evaluation.plan import Job, Plan
from ttt_core.evaluation.results import Results
from ttt_core.evaluation.runner import Runner
from ttt_core.examples import Example, Question, Split

QUICK = "r=4,steps=3,clozes_per_step=4,learning_rate=0.003,gate=false,early_stopping=false"
ARMS = ("in-context", f"qttt:{QUICK}", "lr-zero:r=4", "chance")

_KEYS = ("key", "cup", "map", "pen", "hat", "box", "jar", "net", "rug", "fan", "bag", "pot")


class Rooms:
    """Where is what, in documents of some twenty tokens a line under the test tokenizer.

    A random model knows no rooms, so an answer is worth how often it says `e` in four letters:
    scores that differ from answer to answer.
    """

    name = "rooms"
    description = "Where is it?"
    unit = "lines"
    lengths: tuple[int, ...] = (4, 8)
    max_new_tokens = 4

    def examples(
        self, length: int | None, *, split: Split, seed: int, count: int
    ) -> Iterator[Example]:
        assert length is not None
        if length > 400:
            raise ValueError("there are not so many rooms")
        for index in range(count):
            drawn = random.Random(f"{split} {seed} {index}")
            lines = [f"the {drawn.choice(_KEYS)} is in room {i}." for i in range(length)]
            yield Example(
                id=f"{seed}-{index}",
                document="\n".join(lines),
                questions=tuple(
                    Question(f"q{i}", f"where is the {_KEYS[i]}?", (f"room {i}",), chance=0.25)
                    for i in range(2)
                ),
                length=length,
            )

    def score(self, answer: str, question: Question) -> float:
        return min(answer.count("e") + (len(answer) % 3) / 4, 1.0)


def quick_plan(*specs: str, lengths: tuple[int, ...] = (), split: Split = "score") -> Plan:
    """Eight cells for each arm: two lengths, two seeds, two examples; less if `lengths` says so."""
    arms = tuple(parse_arm(spec) for spec in specs or ARMS)
    return Plan((Job(Rooms(), arms, lengths),), seeds=(0, 1), examples=2, split=split)


def run(engine: TTTEngine, folder: Path, plan: Plan) -> Results:
    """Do all of a plan."""
    results = Results(folder)
    Runner(engine, results).run(plan)
    results.finish()
    return results
