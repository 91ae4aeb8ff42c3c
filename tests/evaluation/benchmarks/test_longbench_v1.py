# ruff: noqa: RUF001  (full-width punctuation of Chinese prompts)
"""LongBench v1: prompts are taken apart without loss, and every data set has its metric."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ttt_core.errors import ConfigError, DocumentError
from ttt_core.evaluation.benchmarks import get_benchmark
from ttt_core.evaluation.benchmarks.longbench_v1 import LongBenchV1
from ttt_core.evaluation.benchmarks.longbench_v1_dataset import length_bucket
from ttt_core.evaluation.benchmarks.longbench_v1_datasets import DATASETS
from ttt_core.evaluation.data import read_rows
from ttt_core.examples import Example, Task

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*rows: Mapping[str, Any], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


CONTEXTS = {
    "trec": "Question: What is rice ?\nType: Food\nQuestion: When is May ?\nType: Date",
    "triviaqa": "Passage:\nRome is old.\nQuestion:\nHow is Rome?\nAnswer:\nold\n",
    "samsum": "Dialogue: A: hi\nSummary: A says hi.\n",
    "lsht": "新闻内容：\n小麦\n类别：农业",
    "passage_retrieval_en": "Paragraph 1: Rome.\n\nParagraph 2: Paris.\nOn the Seine.",
    "passage_retrieval_zh": "段落1：罗马。\n\n段落2：巴黎。",
    "lcc": "def f():\n",
    "repobench-p": "# a.py\nx = 1\n",
}
INPUTS = {
    "trec": "Question: Who is Ann ?\nType:",
    "triviaqa": "Passage:\nParis is big.\nQuestion:\nHow is Paris?\nAnswer:\n",
    "samsum": "Dialogue: B: bye\nSummary: ",
    "lsht": "新闻内容：\n足球\n类别：",
    "repobench-p": "def g():\n",
}
ANSWERS = {
    "trec": ["Individual"],
    "lsht": ["体育"],
    "passage_count": ["12"],
    "passage_retrieval_en": ["Paragraph 2"],
    "passage_retrieval_zh": ["段落2"],
    "lcc": ["    return 1"],
    "repobench-p": ["    return x"],
}
CLASSES = {"trec": ["Food", "Date", "Individual", "City"], "lsht": ["体育", "农业"]}


def published(name: str, **changes: Any) -> dict[str, Any]:
    """A row as LongBench publishes them; ours, of no real content."""
    row = {
        "input": INPUTS.get(name, "What is it?"),
        "context": CONTEXTS.get(name, "Line one.\n\nLine two {braces}."),
        "answers": ANSWERS.get(name, ["the right words", "其他答案"]),
        "length": 4001,
        "dataset": name,
        "language": "en",
        "all_classes": CLASSES.get(name),
        "_id": f"id{name}",
    }
    return row | changes


def only(benchmark: LongBenchV1) -> Example:
    (example,) = benchmark.all_examples()
    return example


@pytest.mark.parametrize("name", DATASETS)
def test_a_published_row_becomes_a_document_and_a_question(name: str, write: Write) -> None:
    row = published(name)
    benchmark = LongBenchV1(write(row))
    example = only(benchmark)
    (question,) = example.questions
    prompt = DATASETS[name].prompt.format(context=row["context"], input=row["input"])
    pieces = DATASETS[name].pieces(prompt)
    assert pieces is not None
    assert pieces.instruction + pieces.document + pieces.request == prompt
    assert row["context"].strip() in pieces.document == example.document
    assert question.text == f"{pieces.instruction.strip()}\n\n{pieces.request.lstrip()}"
    assert example.id == f"{name}-id{name}"
    assert question.groups == {
        "dataset": name,
        "language": DATASETS[name].language,
        "length": "4-8k",
    }
    assert all(benchmark.score(one, question) > 1 - 1e-8 for one in question.references)
    assert benchmark.score("", question) == 0


def test_few_shot_examples_are_read_and_the_last_item_is_asked_about(write: Write) -> None:
    trec = only(LongBenchV1(write(published("trec"))))
    assert trec.document == CONTEXTS["trec"]
    assert trec.questions[0].text.endswith("of questions.\n\nQuestion: Who is Ann ?\nType:")
    # The passage that triviaqa asks about is read too.
    trivia = only(LongBenchV1(write(published("triviaqa"))))
    assert trivia.document.endswith("\n\nPassage:\nParis is big.")
    assert trivia.questions[0].text.endswith("\n\nQuestion:\nHow is Paris?\nAnswer:\n")


def test_chance_counts_classes_and_paragraphs(write: Write) -> None:
    chances = {
        name: only(LongBenchV1(write(published(name)))).questions[0].chance for name in DATASETS
    }
    known = {"trec": 1 / 4, "lsht": 1 / 2, "passage_retrieval_en": 1 / 2}
    assert chances == dict.fromkeys(DATASETS, 0.0) | known | {"passage_retrieval_zh": 1 / 2}


def test_the_paragraph_to_find_is_the_needle(write: Write) -> None:
    example = only(LongBenchV1(write(published("passage_retrieval_en"))))
    assert example.questions[0].needles == ("Paragraph 2: Paris.\nOn the Seine.",)
    assert example.questions[0].needles[0] in example.document


def test_only_few_shot_answers_are_cut_to_their_first_line(write: Write) -> None:
    benchmark = LongBenchV1(write(published("trec"), published("hotpotqa", answers=["Rome"])))
    trec, hotpot = (example.questions[0] for example in benchmark.all_examples())
    assert benchmark.score("\nIndividual\nQuestion: When ?\nType: Date", trec) == 1
    assert benchmark.score("Individual or Date", trec) == 0.5
    # Rome / rome paris: P = 1/2, R = 1: 2/3.
    assert benchmark.score("Rome\nParis", hotpot) == pytest.approx(2 / 3)


def test_length_buckets_are_those_of_longbench_e() -> None:
    assert [length_bucket("", n) for n in (3999, 4000, 7999, 8000)] == [
        "0-4k", "4-8k", "4-8k", "8k+"
    ]  # fmt: skip
    assert length_bucket("字" * 4000) == "0-4k"  # One word.
    assert length_bucket("字" * 4000, characters=True) == "4-8k"


def test_a_prompt_that_is_ready_gives_the_same_example(write: Write) -> None:
    row = published("hotpotqa")
    prompt = DATASETS["hotpotqa"].prompt.format(context=row["context"], input=row["input"])
    ready = {"task": "hotpotqa", "prompt": prompt, "gold": row["answers"]}
    one, other = only(LongBenchV1(write(row))), only(LongBenchV1(write(ready)))
    assert (one.document, one.questions[0].text) == (other.document, other.questions[0].text)
    assert re.fullmatch(r"hotpotqa-[0-9a-f]{16}", other.id)


def test_one_data_set_has_its_own_room_for_answers(write: Write) -> None:
    rows = [published("hotpotqa"), published("gov_report")]
    whole = LongBenchV1(write(*rows))
    assert [one.questions[0].max_new_tokens for one in whole.all_examples()] == [32, 512]
    assert whole.max_new_tokens == 512
    chosen = LongBenchV1(write(*rows), subset="hotpotqa")
    assert [example.id for example in chosen.all_examples()] == ["hotpotqa-idhotpotqa"]
    assert LongBenchV1(write(published("trec_e"), name="trec_e.jsonl")).subset == "trec"
    with pytest.raises(ConfigError, match="hotpotqa"):
        LongBenchV1(write(*rows), subset="hotpot")


def test_a_folder_is_read_without_longbench_e(write: Write, tmp_path: Path) -> None:
    write(published("hotpotqa"), name="hotpotqa.jsonl")
    write(published("hotpotqa"), name="hotpotqa_e.jsonl")
    write(published("qmsum"), name="qmsum.jsonl")
    ids = [example.id for example in LongBenchV1(tmp_path).all_examples()]
    assert ids == ["hotpotqa-idhotpotqa", "qmsum-idqmsum"]


def test_splits_share_no_document_and_seeds_change_the_order_only(write: Write) -> None:
    # Two questions on each of 60 documents.
    rows = [
        published("hotpotqa", _id=f"{number}{half}", context=f"Document {number}")
        for number in range(60)
        for half in "ab"
    ]
    task: Task = LongBenchV1(write(*rows))
    tune = list(task.examples(None, split="tune", seed=0, count=200))
    score, again = (
        list(task.examples(None, split="score", seed=seed, count=200)) for seed in (0, 1)
    )
    assert not {one.document for one in tune} & {one.document for one in score}
    assert len(tune) + len(score) == 120
    assert 0 < len(tune) < 30
    assert {one.id for one in score} == {one.id for one in again}
    assert [one.id for one in score] != [one.id for one in again]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "poems"}, "field 'dataset': expected one of narrativeqa"),
        ({"context": None}, "field 'context': expected text, found nothing"),
        ({"answers": []}, "field 'answers'"),
        ({"length": "long"}, "field 'length': expected a whole number"),
    ],
)
def test_a_bad_row_is_named_without_its_text(
    changes: dict[str, Any], message: str, write: Write
) -> None:
    path = write(published("qmsum"), published("qmsum", **changes))
    with pytest.raises(DocumentError, match=message) as caught:
        list(LongBenchV1(path).all_examples())
    assert "row 2" in str(caught.value)
    assert "Line one" not in str(caught.value)


def test_what_cannot_be_asked_or_scored_is_refused(write: Write) -> None:
    no_markers = {"task": "qmsum", "prompt": "Sum it up: secret", "gold": ["x"]}
    with pytest.raises(DocumentError, match="no instruction, document and request") as caught:
        only(LongBenchV1(write(no_markers)))
    assert "secret" not in str(caught.value)
    with pytest.raises(DocumentError, match="number of a paragraph"):
        only(LongBenchV1(write(published("passage_retrieval_en", answers=["Paragraph 9"]))))
    with pytest.raises(DocumentError, match="all_classes"):
        only(LongBenchV1(write(published("trec", all_classes=None))))


def test_the_registry_knows_it(write: Write) -> None:
    assert isinstance(get_benchmark("longbench-v1", write(published("lcc"))), LongBenchV1)


def test_the_real_sample_loads_and_its_gold_scores_full(data: Path) -> None:
    path = data / "longbench_v1_sample.jsonl"
    rows, benchmark = list(read_rows(path)), LongBenchV1(path)
    examples = list(benchmark.all_examples())
    assert len(rows) == len(examples) == len({example.id for example in examples}) == 82
    counts = Counter(example.questions[0].groups["dataset"] for example in examples)
    assert counts == dict.fromkeys(DATASETS, 4) | {"narrativeqa": 2}
    for row, example in zip(rows, examples, strict=True):
        (question,) = example.questions
        pieces = DATASETS[row["task"]].pieces(row["prompt"])
        assert pieces is not None
        # The whole prompt is there, in the order instruction, document, request.
        assert pieces.instruction + pieces.document + pieces.request == row["prompt"]
        assert example.document == pieces.document
        assert question.text == f"{pieces.instruction.strip()}\n\n{pieces.request.lstrip()}"
        assert len(question.text) < len(example.document) / 2
        assert all(needle in example.document for needle in question.needles)
        assert all(benchmark.score(one, question) > 1 - 1e-8 for one in question.references)


def test_the_real_sample_has_30_paragraphs_24_and_50_classes(data: Path) -> None:
    benchmark = LongBenchV1(data / "longbench_v1_sample.jsonl")
    questions = [example.questions[0] for example in benchmark.all_examples()]
    chances = {one.groups["dataset"]: 1 / one.chance for one in questions if one.chance}
    known = {"trec": 50, "lsht": 24, "passage_retrieval_en": 30, "passage_retrieval_zh": 30}
    assert chances == pytest.approx(known)
