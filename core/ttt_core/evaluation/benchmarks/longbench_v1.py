"""LongBench v1 (arXiv 2308.14508, THUDM/LongBench): 21 data sets in English, Chinese and code.

Reads rows as published (`input, context, answers, length, dataset, language, all_classes, _id`),
put into the published prompts, and rows with the prompt ready made (`task, prompt, gold`, as in
MiniLongBench). Either way the prompt is taken apart at its data set's markers: the document is what
is read and adapted to, the question is the instruction in front of it followed by all that stands
behind it. Nothing but white space next to the document is lost.

Unlike the published runs, documents are never cut in the middle, few-shot and code tasks are asked
as a chat turn like all others, and samsum is not stopped at the first new line (only that line
counts, as there).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ttt_core.config import unknown_name
from ttt_core.errors import ConfigError
from ttt_core.evaluation.benchmarks.base import Benchmark, Record, records, source_of
from ttt_core.evaluation.benchmarks.longbench_v1_dataset import Dataset, Pieces, length_bucket
from ttt_core.evaluation.benchmarks.longbench_v1_datasets import DATASETS
from ttt_core.evaluation.data import HUB, Source, data_files
from ttt_core.examples import Example, Question

_E = "_e"
"""What LongBench-E adds to the names of data sets and files; its rows are partly the same."""

_PARAGRAPH = re.compile(r"^(?:Paragraph |段落)(\d+)[:\uff1a]", re.MULTILINE)


class LongBenchV1(Benchmark):
    """LongBench v1, all of it or one data set. Groups: dataset, language, length.

    The languages are en, zh and code; lengths are LongBench-E's buckets of the length in the row,
    or of the document's words (Chinese: characters). Chance is 1 / classes for trec and lsht,
    1 / paragraphs for passage_retrieval, and 0 elsewhere, also where an answer could be guessed
    (yes or no, small counts). Retrieval's paragraph is its question's needle.
    """

    name = "longbench-v1"
    description = "LongBench v1: 21 data sets of questions, summaries, few-shot learning and code."
    max_new_tokens = max(dataset.max_new_tokens for dataset in DATASETS.values())
    """The longest; each question has its data set's."""

    def __init__(self, source: Source, *, subset: str | None = None) -> None:
        """Read from `source`; nothing is read yet.

        Args:
            source: A file, a folder or `hub:owner/name`. Of a folder, LongBench-E's files (`*_e`)
                are left out; give such a file itself.
            subset: One data set, such as `hotpotqa`. None: the one that the file is called after,
                or all.

        Raises:
            ConfigError: There is no such data set.
        """
        super().__init__(source)
        if subset is not None and subset not in DATASETS:
            raise ConfigError(
                unknown_name("data set", subset, DATASETS, "LongBench v1's data sets are")
            )
        stem = "" if _on_hub(source) else Path(source).stem.removesuffix(_E)
        self.subset = subset or (stem if stem in DATASETS else None)

    def all_examples(self) -> Iterator[Example]:
        """Yield every example, in the files' order.

        Raises:
            DocumentError: The data are not there, or not as they should be.
        """
        for record in self._records():
            name = _dataset_of(record)
            if self.subset in (None, name):
                yield _example(record, name)

    def score(self, answer: str, question: Question) -> float:
        """Return the data set's metric, the best over the references.

        Raises:
            ConfigError: A library of the `eval` extra is not installed.
        """
        dataset = DATASETS[question.groups["dataset"]]
        return dataset.score(answer, question.references, question.choices)

    def _records(self) -> Iterator[Record]:
        if _on_hub(self.source):
            for name in (self.subset,) if self.subset else DATASETS:
                yield from records(self.source, split="test", name=name)
            return
        folder = Path(self.source).expanduser().is_dir()
        for file in data_files(self.source):
            if not (folder and file.stem.endswith(_E)):
                yield from records(file)


def _on_hub(source: Source) -> bool:
    return isinstance(source, str) and source.startswith(HUB)


def _dataset_of(record: Record) -> str:
    field = "task" if "task" in record.fields else "dataset"
    name = record.text(field).removesuffix(_E)
    if name not in DATASETS:
        raise record.wrong(field, f"one of {', '.join(DATASETS)}", "another name")
    return name


def _example(record: Record, name: str) -> Example:
    dataset = DATASETS[name]
    prompt = _prompt(record, dataset)
    pieces = dataset.pieces(prompt)
    if pieces is None:
        field = "prompt" if "prompt" in record.fields else "context"
        raise record.wrong(field, f"the prompt of {name}", "no instruction, document and request")
    return Example(
        id=f"{name}-{_id(record, prompt)}",
        document=pieces.document,
        questions=(_question(record, name, pieces),),
        source=source_of(pieces.document),  # Several questions may be about it.
    )


def _prompt(record: Record, dataset: Dataset) -> str:
    """Return the prompt that the row holds, or put its parts into the published one."""
    if "prompt" in record.fields:
        return record.text("prompt")
    asked = record.text("input") if "{input}" in dataset.prompt else ""
    return dataset.prompt.format(context=record.text("context"), input=asked)


def _id(record: Record, prompt: str) -> str:
    """Return the row's id; without one, a hash, which tells nothing of the text."""
    if record.fields.get("_id"):
        return record.text("_id")
    return source_of(prompt)


def _question(record: Record, name: str, pieces: Pieces) -> Question:
    dataset = DATASETS[name]
    references, classes = _gold(record, dataset)
    chance = 1 / len(classes) if classes else 0.0
    needles: tuple[str, ...] = ()
    if dataset.metric == "retrieval":
        chance, needles = _retrieval(record, references[0], pieces.document)
    return Question(
        id="0",
        text=pieces.question,
        references=references,
        chance=chance,
        needles=needles,
        choices=classes,
        groups=_groups(record, name, pieces.document),
        max_new_tokens=dataset.max_new_tokens,
    )


def _groups(record: Record, name: str, document: str) -> Mapping[str, str]:
    language = DATASETS[name].language
    length = record.integer("length") if record.fields.get("length") is not None else None
    bucket = length_bucket(document, length, characters=language == "zh")
    return {"dataset": name, "language": language, "length": bucket}


def _gold(record: Record, dataset: Dataset) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return right answers and classes, of a row as published or of one with `gold`."""
    gold = record.fields.get("gold")
    if isinstance(gold, Mapping):
        record = Record(f"{record.where}, field 'gold'", gold)
    answers = record.texts("gold" if "gold" in record.fields else "answers")
    if dataset.metric != "classification":
        return answers, ()
    classes = record.texts("all_classes")
    if not all(classes):  # Every answer would name it.
        raise record.wrong("all_classes", "names", "an empty one")
    return answers, classes


def _retrieval(record: Record, reference: str, document: str) -> tuple[float, tuple[str, ...]]:
    """Return the chance to hit the right paragraph, and that paragraph."""
    wanted, paragraphs = re.search(r"\d+", reference), _paragraphs(document)
    if wanted is None or wanted.group() not in paragraphs:
        field = "gold" if "gold" in record.fields else "answers"
        raise record.wrong(field, "the number of a paragraph in the document", "another text")
    return 1 / len(paragraphs), (paragraphs[wanted.group()],)


def _paragraphs(document: str) -> dict[str, str]:
    """Return the text of each numbered paragraph, its heading included."""
    starts = list(_PARAGRAPH.finditer(document))
    ends = [match.start() for match in starts[1:]] + [len(document)]
    return {
        match[1]: document[match.start() : end].strip()
        for match, end in zip(starts, ends, strict=True)
    }
