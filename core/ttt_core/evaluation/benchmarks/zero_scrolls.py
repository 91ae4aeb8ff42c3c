"""ZeroScrolls (arXiv 2305.14196, tau/zero_scrolls): ten tasks on long English texts.

A row holds the whole prompt (`input`) and says where document and query are. As published for chat
models, the header of the answer at the end ("Answer:") is left out, and "Do not provide any
explanation." joins the instruction of tasks that are not summaries. The document, its heading
included, is what is read; the question is the instruction followed by the query.

Fields and the format for chat models were read in the data set's card and in
tau-nlp/zero_scrolls (`experiments/api`), metrics in the data set's `metrics` folder and the paper.
No row of the real data was at hand: what stands between the indices is as those sources say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ttt_core.config import unknown_name
from ttt_core.errors import ConfigError, DocumentError
from ttt_core.evaluation.benchmarks.base import Benchmark, Record, kind, records, source_of
from ttt_core.evaluation.benchmarks.longbench_v1_dataset import length_bucket
from ttt_core.evaluation.benchmarks.zero_scrolls_subsets import SUBSETS, clean
from ttt_core.evaluation.data import HUB, Source, data_files
from ttt_core.examples import Example, Question

NO_EXPLANATION = "Do not provide any explanation."

START = 1000
"""Characters of a document that tell it from others; none is cut shorter."""


class ZeroScrolls(Benchmark):
    """ZeroScrolls, all of it or one of its tasks. Groups: dataset, language, length.

    Lengths are LongBench-E's buckets of the document's words. Chance is the score of the paper's
    naive baseline where that looks at no document: 1/4 for quality, 1/2 for book_sum_sort (also
    that of a random order), "50%" for space_digest, "unanswerable" for musique; 0 elsewhere.
    """

    name = "zero-scrolls"
    description = "ZeroScrolls: summaries, questions and aggregation over long texts, zero-shot."
    max_new_tokens = max(one.max_new_tokens for one in SUBSETS.values())
    """The longest; each question has its task's."""

    def __init__(
        self,
        source: Source,
        *,
        subset: str | None = None,
        part: str = "validation",
        max_characters: int | None = None,
    ) -> None:
        """Read from `source`; nothing is read yet.

        Args:
            source: A .jsonl file called after its task or in a folder that is
                (`qasper/validation.jsonl`), a folder of them, or `hub:owner/name`.
            subset: One task, such as `qasper`. None: the one that the file's path names, or all.
            part: Of folders and the Hub, `validation` (about 20 rows a task) or `test`, whose
                answers were not published with the benchmark.
            max_characters: Longer documents end there, with the row's own note that the rest is
                left out. (The published runs cut at a number of tokens.)

        Raises:
            ConfigError: There is no such task, or too little room for a document.
        """
        super().__init__(source)
        if subset is not None and subset not in SUBSETS:
            raise ConfigError(unknown_name("task", subset, SUBSETS, "ZeroScrolls' tasks are"))
        if max_characters is not None and max_characters < START:
            raise ConfigError(f"max_characters must be at least {START:,}, got {max_characters:,}")
        self.subset = subset or _named_by(Path(source))
        self.part = part
        self._max_characters = max_characters

    def all_examples(self) -> Iterator[Example]:
        """Yield every example: rows with the same id are one, with several right answers.

        Raises:
            DocumentError: The data are not there, or not as they should be.
        """
        for subset, rows in self._tasks():
            together: dict[str, list[Record]] = {}
            for record in rows:
                together.setdefault(record.text("id"), []).append(record)
            for same in together.values():
                yield self._example(subset, same)

    def score(self, answer: str, question: Question) -> float:
        """Return the task's metric of the cleaned answer.

        Raises:
            ConfigError: A library of the `eval` extra is not installed.
        """
        subset = SUBSETS[question.groups["dataset"]]
        return subset.score(clean(answer), question.references)

    def _tasks(self) -> Iterator[tuple[str, Iterator[Record]]]:
        """Yield each task with its rows."""
        wanted = (self.subset,) if self.subset else tuple(SUBSETS)
        if isinstance(self.source, str) and self.source.startswith(HUB):
            for subset in wanted:
                yield subset, records(self.source, split=self.part, name=subset)
            return
        found = False
        for file in data_files(self.source, split=self.part):
            named = _named_by(file) or self.subset
            if named in wanted:
                found = True
                yield named, records(file)
        if not found:
            raise DocumentError(
                f"no file of {self.source} is called after a task of ZeroScrolls, or lies in a "
                f"folder that is; expected one such as qasper/{self.part}.jsonl, or name the subset"
            )

    def _example(self, subset: str, rows: list[Record]) -> Example:
        first = rows[0]
        instruction, document, query = _taken_apart(first)
        if SUBSETS[subset].metric != "rouge":
            instruction = f"{instruction} {NO_EXPLANATION}"
        bucket = length_bucket(document)
        references = tuple(dict.fromkeys(_output(row) for row in rows))
        question = Question(
            id="0",
            text=f"{instruction}\n\n{query}".strip(),
            references=references,
            chance=_chance(subset, references, first),
            choices=("A", "B", "C", "D") if SUBSETS[subset].metric == "accuracy" else (),
            groups={"dataset": subset, "language": "en", "length": bucket},
            max_new_tokens=SUBSETS[subset].max_new_tokens,
        )
        return Example(
            id=f"{subset}-{first.text('id')}",
            document=self._shortened(document, first),
            questions=(question,),
            # By how it starts: several questions may be about it, cut or whole.
            source=source_of(document[:START]),
        )

    def _shortened(self, document: str, record: Record) -> str:
        if self._max_characters is None or len(document) <= self._max_characters:
            return document
        return document[: self._max_characters] + record.text("truncation_seperator")


def _named_by(path: Path) -> str | None:
    """Return the task that a file or a folder is called after, or else one of the two above it."""
    for part in (path.stem, *(folder.name for folder in list(path.parents)[:2])):
        for subset in SUBSETS:
            if re.match(rf"{subset}([-_.]|$)", part):
                return subset
    return None


def _taken_apart(record: Record) -> tuple[str, str, str]:
    """Return instruction, document and query, without white space around them."""
    prompt = record.text("input")
    start, end = record.integer("document_start_index"), record.integer("document_end_index")
    last = record.integer("query_end_index")
    if not 0 < start < end <= last <= len(prompt):
        raise record.wrong(
            "document_start_index",
            "0 < document_start_index < document_end_index <= query_end_index <= characters",
            f"{start}, {end}, {last}, {len(prompt)}",
        )
    # The instruction is the first paragraph; a heading ("Report:") belongs to what it heads.
    blank = prompt.find("\n\n")
    start = blank if 0 <= blank < start else start
    return prompt[:start].strip(), prompt[start:end].strip(), prompt[end:last].strip()


def _chance(subset: str, references: tuple[str, ...], record: Record) -> float:
    try:
        return SUBSETS[subset].chance(references)
    except DocumentError as error:
        raise DocumentError(f"{record.where}, field 'output': {error}") from None


def _output(record: Record) -> str:
    output = record.fields.get("output")
    if not isinstance(output, str) or not output.strip():
        raise record.wrong(
            "output", "a right answer (the test part was published without)", kind(output)
        )
    return output
