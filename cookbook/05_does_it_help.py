"""Does adapting help? Two arms on the same questions, and a verdict: `ttt eval`, from Python.

    python cookbook/05_does_it_help.py
    python cookbook/05_does_it_help.py my.jsonl --documents 40 --model Qwen/Qwen3-4B

Without a file: six registries of 1,024 lines and the bundled toy model, under a minute in all.
A file has one document a line, with questions and the words that a right answer holds:
{"document": "...", "questions": [{"text": "Who signed it?", "answer": "Ada Moreau"}]}
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ttt_core import TTTEngine
from ttt_core.evaluation.arms import parse_arm
from ttt_core.evaluation.plan import Job, Plan
from ttt_core.evaluation.report import gather
from ttt_core.evaluation.results import Results
from ttt_core.evaluation.runner import Runner
from ttt_core.examples import Example, Question, Split
from ttt_core.sandbox.tasks import get_task


class MyDocuments:
    """Your questions. Yours to change: how they are read, and when an answer is right."""

    name = "my-documents"
    description = "My questions on my documents."
    unit = ""  # No length axis: documents are as long as they are.
    lengths: tuple[int, ...] = ()
    max_new_tokens = 64

    def __init__(self, path: Path) -> None:
        lines = path.read_text(encoding="utf-8").splitlines()
        self._rows = [json.loads(line) for line in lines if line.strip()]

    def examples(
        self, length: int | None, *, split: Split, seed: int, count: int
    ) -> Iterator[Example]:
        """The first two documents are for choosing settings; all others are scored."""
        rows = self._rows[:2] if split == "tune" else self._rows[2:]
        for number, row in enumerate(rows[:count]):
            questions = tuple(
                Question(str(i), asked["text"], (asked["answer"],))
                for i, asked in enumerate(row["questions"])
            )
            yield Example(f"{split}-{number}", row["document"], questions)

    def score(self, answer: str, question: Question) -> float:
        """Whether the answer holds the words. Too kind to long answers, perhaps, for yours."""
        return float(question.references[0].casefold() in answer.casefold())


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("file", nargs="?", type=Path, help="questions; without it, registries")
parser.add_argument("--documents", type=int, default=6, help="fewer than six are no evidence")
parser.add_argument("--model", help="a local folder or a Hub id; default: the bundled toy model")
parser.add_argument("--output", type=Path, help="keeps results; run again to go on")
options = parser.parse_args()

task = MyDocuments(options.file) if options.file else get_task("registry")
# The toy's rate and steps are fixed to be quick; plain "qttt" finds its own.
adapting = "qttt" if options.file else "qttt:learning_rate=0.003,steps=16"
arms = (parse_arm("in-context"), parse_arm(adapting))  # more: ttt eval --list
plan = Plan((Job(task, arms, lengths=(1024,)),), examples=options.documents)

results = Results(options.output or Path(tempfile.mkdtemp()))
engine = TTTEngine.from_pretrained(options.model)
Runner(engine, results, on_advance=lambda now: print(f"{now.done} of {now.total} done")).run(plan)
results.finish()  # sorts the files; what was done is on the disk already

[model] = gather(results.folder).summary.models
for row in model.rows:
    score = f"{row.score:.2f}" if row.score is not None else "failed"
    print(f"{row.arm:36} {score}  {row.questions} questions on {row.documents} documents")
print(model.verdict.sentence, *model.verdict.reasons, sep="\n")
print(f"The whole report: ttt eval --report-only --output {results.folder}")
