"""What several seeds draw from one file, and what shares a story, is counted once."""

from __future__ import annotations

from pathlib import Path

from tests.evaluation.harness import run
from ttt_core import TTTEngine
from ttt_core.evaluation.analysis.pairing import count_documents, scores
from ttt_core.evaluation.arms import parse_arm
from ttt_core.evaluation.benchmarks.babi import Babi
from ttt_core.evaluation.plan import Job, Plan

STORY = (
    "1 Ann went to the attic.\n2 Where is Ann?\tattic\t1\n"
    "3 Bo went to the cellar.\n4 Where is Bo?\tcellar\t3\n"
)


def test_seeds_that_draw_the_same_examples_add_no_documents(
    engine: TTTEngine, tmp_path: Path
) -> None:
    path = tmp_path / "qa1_test.txt"
    path.write_text("".join(STORY.replace("Ann", f"Ann{n}") for n in range(8)))
    everything = list(Babi(path).examples(None, split="score", seed=0, count=99))
    stories = {example.source for example in everything}
    assert len(everything) == 2 * len(stories) > 2
    job = Job(Babi(path), (parse_arm("chance"),))
    cells = run(engine, tmp_path / "out", Plan((job,), seeds=(0, 1, 2), examples=99)).cells()
    assert len(cells) == 3 * len(everything)
    assert count_documents(cells) == len(stories)
    [documents] = scores(cells)
    assert [len(values) for values in documents] == [6] * len(stories)
