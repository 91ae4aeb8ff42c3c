"""ZeroScrolls: rows of our own in its format become documents and questions, and are scored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ttt_core.errors import ConfigError, DocumentError
from ttt_core.evaluation.benchmarks import get_benchmark
from ttt_core.evaluation.benchmarks.zero_scrolls import ZeroScrolls
from ttt_core.evaluation.benchmarks.zero_scrolls_subsets import SUBSETS, clean
from ttt_core.examples import Example

INSTRUCTION = "You are given a story and a question. Answer the question."
STORY = "Ann went to sea.\n\nShe came back in May."
OUTPUTS = {"quality": "C", "space_digest": "60%", "book_sum_sort": "2, 1, 3"}


def row(
    subset: str,
    *,
    id: str = "one",
    query: str = "Question:\nWho went?",
    heading: str = "Story:\n",
    **changes: Any,
) -> dict[str, Any]:
    """A row as the benchmark's card describes it: the whole prompt, and where its parts are."""
    before = f"{INSTRUCTION}\n\n{heading}"
    middle = f"{before}{STORY}\n\n"
    return {
        "id": id,
        "pid": f"{id}_0",
        "input": f"{middle}{query}\n\nAnswer:\n",
        "output": OUTPUTS.get(subset, "Ann went to sea"),
        "document_start_index": len(before),
        "document_end_index": len(before + STORY),
        "query_start_index": len(middle),
        "query_end_index": len(middle + query),
        "truncation_seperator": "... [The rest of the story is omitted]\n\n",
    } | changes


def write(folder: Path, subset: str, *rows: Mapping[str, Any], part: str = "validation") -> Path:
    """Write a task's file where the published archives have it, and return the common folder."""
    (folder / subset).mkdir(exist_ok=True)
    path = folder / subset / f"{part}.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return folder


def only(benchmark: ZeroScrolls) -> Example:
    (example,) = benchmark.all_examples()
    return example


def test_the_document_is_read_and_the_rest_is_asked(tmp_path: Path) -> None:
    example = only(ZeroScrolls(write(tmp_path, "qasper", row("qasper"))))
    assert example.id == "qasper-one"
    assert example.document == f"Story:\n{STORY}"
    # As published for chat models: no "Answer:" at the end, and one sentence more in front.
    assert example.questions[0].text == (
        f"{INSTRUCTION} Do not provide any explanation.\n\nQuestion:\nWho went?"
    )
    assert example.questions[0].groups == {
        "dataset": "qasper", "language": "en", "length": "0-4k"
    }  # fmt: skip


def test_the_heading_belongs_to_the_document_whichever_side_it_is_on(tmp_path: Path) -> None:
    inside = row("qasper")
    inside["document_start_index"] -= len("Story:\n")
    example = only(ZeroScrolls(write(tmp_path, "qasper", inside)))
    assert example.document == f"Story:\n{STORY}"


def test_summaries_may_have_no_query(tmp_path: Path) -> None:
    example = only(ZeroScrolls(write(tmp_path, "gov_report", row("gov_report", query=""))))
    assert example.questions[0].text == INSTRUCTION


@pytest.mark.parametrize("subset", SUBSETS)
def test_the_right_answer_scores_full_and_none_scores_nothing(subset: str, tmp_path: Path) -> None:
    benchmark = ZeroScrolls(write(tmp_path, subset, row(subset)))
    (question,) = only(benchmark).questions
    assert benchmark.score(question.references[0], question) == pytest.approx(1)
    assert benchmark.score("", question) == 0
    assert question.max_new_tokens == SUBSETS[subset].max_new_tokens <= benchmark.max_new_tokens


def test_chance_is_the_naive_baseline(tmp_path: Path) -> None:
    for subset in SUBSETS:
        write(tmp_path, subset, row(subset))
    write(tmp_path, "musique", row("musique"), row("musique", id="two", output="unanswerable"))
    found = {one.id: one.questions[0].chance for one in ZeroScrolls(tmp_path).all_examples()}
    # "50%" is 10 points from 60%: a half.
    naive = {"quality-one": 0.25, "book_sum_sort-one": 0.5, "space_digest-one": 0.5}
    assert found == dict.fromkeys(found, 0.0) | naive | {"musique-two": 1.0}


def test_rows_with_one_id_are_several_right_answers(tmp_path: Path) -> None:
    rows = [row("qasper"), row("qasper", id="two"), row("qasper", pid="one_1", output="a sailor")]
    first, second = ZeroScrolls(write(tmp_path, "qasper", *rows)).all_examples()
    assert first.questions[0].references == ("Ann went to sea", "a sailor")
    assert second.questions[0].references == ("Ann went to sea",)
    assert ZeroScrolls(tmp_path).score("the sailor", first.questions[0]) == 1


def test_only_what_is_between_the_tags_counts() -> None:
    assert clean(" It is <answer>Rome</answer>, not Paris.") == "Rome"
    assert clean("Rome</answer> as I said") == "Rome"
    assert clean("<summary>Ann sails") == "Ann sails"
    assert clean("x < y and <b>bold</b>\n") == "x < y and <b>bold</b>"


def test_long_documents_end_with_the_rows_own_note(tmp_path: Path) -> None:
    long = row("qasper", heading="Story:\n" + 1200 * "x")
    folder = write(tmp_path, "qasper", long)
    whole, cut = ZeroScrolls(folder), ZeroScrolls(folder, max_characters=1000)
    note = "... [The rest of the story is omitted]\n\n"
    assert only(cut).document == only(whole).document[:1000] + note
    # Cut or not, it stays in its split.
    assert only(cut).source == only(whole).source
    assert only(ZeroScrolls(folder, max_characters=2000)).document == only(whole).document
    with pytest.raises(ConfigError, match="at least 1,000"):
        ZeroScrolls(folder, max_characters=999)


def test_one_task_is_chosen_by_name_or_by_its_path(tmp_path: Path) -> None:
    write(tmp_path, "qasper", row("qasper"))
    write(tmp_path, "quality", row("quality"))
    write(tmp_path, "quality", row("quality", id="secret", output=None), part="test")
    ids = [["qasper-one"], ["quality-one"], ["qasper-one", "quality-one"]]
    chosen = [
        ZeroScrolls(tmp_path, subset="qasper"),
        ZeroScrolls(tmp_path / "quality" / "validation.jsonl"),
        ZeroScrolls(tmp_path),
    ]
    assert [[example.id for example in one.all_examples()] for one in chosen] == ids
    rooms = [example.questions[0].max_new_tokens for example in chosen[2].all_examples()]
    assert rooms == [128, 10]
    with pytest.raises(ConfigError, match="qasper"):
        ZeroScrolls(tmp_path, subset="qaspar")


def test_a_file_of_another_name_needs_the_subset(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row("quality")) + "\n", encoding="utf-8")
    assert only(ZeroScrolls(path, subset="quality")).id == "quality-one"
    with pytest.raises(DocumentError, match="name the subset"):
        list(ZeroScrolls(path).all_examples())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": None}, "field 'output': expected a right answer .*, found nothing"),
        ({"output": "all of them"}, "field 'output': expected a reference such as 34%"),
        ({"input": ""}, "field 'input': expected text"),
        ({"document_end_index": 7000}, "found 67, 7000, "),
        ({"query_end_index": -1}, "found 67, 106, -1"),
        ({"document_start_index": None}, "field 'document_start_index': expected a whole number"),
    ],
)
def test_a_bad_row_is_named_without_its_text(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    rows = row("space_digest"), row("space_digest", id="two", **changes)
    with pytest.raises(DocumentError, match=message) as caught:
        list(ZeroScrolls(write(tmp_path, "space_digest", *rows)).all_examples())
    assert "row 2" in str(caught.value)
    assert "Ann" not in str(caught.value)


def test_the_registry_knows_it(tmp_path: Path) -> None:
    assert isinstance(get_benchmark("zero-scrolls", tmp_path), ZeroScrolls)
