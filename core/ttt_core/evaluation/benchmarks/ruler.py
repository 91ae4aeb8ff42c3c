"""RULER: files that its own scripts wrote, 13 tasks of retrieval, tracing, counting and answering.

Hsieh et al., arXiv 2404.06654, https://github.com/NVIDIA/RULER. Its metrics are those of
`scripts/eval/synthetic/constants.py`: all references for every task but questions on documents
(`qa`), where one suffices. Checked against copies of that file and of `scripts/data`'s templates
in public repositories that quote them; the originals were not at hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ttt_core.evaluation.benchmarks.base import Benchmark, Record, records
from ttt_core.evaluation.data import data_files
from ttt_core.examples import Example, Question
from ttt_core.sandbox.tasks.retrieval_scoring import string_match_all, string_match_part

# The last of the first kind that there is: variable tracking and common words show a solved example
# first, and --remove_newline_tab makes a space of the line end.
_ASKED = (
    re.compile(r"\sAnswer the question based on the given documents\."),
    re.compile(r"\s(?:What (?:is|are all) the special magic |Question: )"),
)
_TEMPLATES = re.compile(r"<\|\w+\|>|\[INST\]|<start_of_turn>|\[gMASK\]")
_SUBSETS = ("validation", "test", "train", "data")

_ROOMS = {
    "vt": 30,
    "variable_tracking": 30,
    "cwe": 120,
    "common_words": 120,
    "fwe": 50,
    "freq_words": 50,
    "qa": 32,
}
"""`tokens_to_generate` of `scripts/data/synthetic/constants.py`, by how a task is called."""


class Ruler(Benchmark):
    """Share of the references that an answer contains, by task and by length in tokens.

    Expects what `prepare.py --model_template_type base` writes: `TASK/validation.jsonl` with the
    fields `index, input, outputs, length`; the task is named by the file or else by its folder,
    and a folder such as 4096 above it may tell lengths apart. Each input is split where its
    question begins, and a blank line stands there (RULER has a line end). What stands in front
    belongs to the document. The beginning of an answer (`answer_prefix`, or the end of older
    inputs) closes the question, since a chat cannot be answered from within.

    Chance is stated as 0: numbers of 7 digits, UUIDs and names of 5 random letters cannot be
    guessed; for `cwe`, `fwe` and `qa` it is not known.
    """

    name = "ruler"
    description = "RULER: needles, variable tracking, frequent words and questions, by its files"
    max_new_tokens = 128
    """RULER's own for needles; questions of its other tasks have theirs."""

    def all_examples(self) -> Iterator[Example]:
        """Yield an example a row; see `Benchmark`."""
        files = data_files(self.source)
        for path in files:
            task = _task(path)
            prefix = task if len(files) == 1 else "-".join(_place(path, Path(self.source)))
            for number, row in enumerate(records(path), 1):
                index = str(row.integer("index")) if "index" in row.fields else str(number)
                yield _example(row, task, f"{prefix}/{index}")

    def score(self, answer: str, question: Question) -> float:
        """Return the share of references in the answer; for `qa_*`, whether there is one."""
        one_suffices = question.groups.get("task", "").startswith("qa")
        match = string_match_part if one_suffices else string_match_all
        return match(answer, question.references)


def split_input(text: str) -> tuple[str, str] | None:
    """Part an input into document and question, without the white space between them."""
    for kind in _ASKED:
        starts = [found.start() for found in kind.finditer(text)]
        if starts and text[: starts[-1]].strip():
            return text[: starts[-1]].rstrip(), text[starts[-1] :].strip()
    return None


def _task(path: Path) -> str:
    return path.parent.name if path.stem in _SUBSETS and path.parent.name else path.stem


def _place(path: Path, root: Path) -> tuple[str, ...]:
    return path.relative_to(root.expanduser()).with_suffix("").parts


def _example(row: Record, task: str, example_id: str) -> Example:
    text = row.text("input")
    if _TEMPLATES.search(text[:200]):
        raise row.wrong(
            "input", "no chat template (prepare with --model_template_type base)", "one"
        )
    parts = split_input(text)
    if parts is None:
        raise row.wrong("input", "a text and one of RULER's questions behind it", "another form")
    document, asked = parts
    if row.fields.get("answer_prefix"):
        asked = f"{asked} {row.text('answer_prefix').strip()}"
    references = row.texts("outputs")
    question = Question(
        id="1",
        text=asked,
        references=references,
        needles=tuple(_needles(document, references, task)),
        groups={"task": task, **_bucket(row)},
        max_new_tokens=_room(task),
    )
    return Example(id=example_id, document=document, questions=(question,))


def _room(task: str) -> int | None:
    """Return the room for an answer where it is not that for needles."""
    return next((room for name, room in _ROOMS.items() if task.startswith(name)), None)


def _bucket(row: Record) -> dict[str, str]:
    """Say up to which power of two the row's own count of tokens goes, if it has one."""
    if "length" not in row.fields:
        return {}
    length = max(1, row.integer("length"))
    return {"tokens": f"up to {1 << (length - 1).bit_length()}"}


def _needles(document: str, references: tuple[str, ...], task: str) -> Iterator[str]:
    """Find the sentences of needles and the lines of variables that hold the references."""
    for reference in references:
        part = re.escape(reference)
        if task.startswith("niah"):
            form = rf"[^.:\n]*special magic[^:\n]* is: {part}\."
        elif task.startswith(("vt", "variable_tracking")):
            form = rf"VAR {part} = (?:VAR )?\w+"
        else:
            return
        yield from (found[0].strip() for found in re.finditer(form, document))
