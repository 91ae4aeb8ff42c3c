"""Key-value retrieval: the official prompt, the key's place, and containment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ttt_core.errors import ConfigError, DocumentError
from ttt_core.evaluation.benchmarks.key_value import KeyValueRetrieval

PAIRS = [["k0", "Va"], ["k1", "Vb"], ["k2", "Vc"], ["k3", "Vd"], ["k4", "Ve"]]
ROW = {"ordered_kv_records": PAIRS, "key": "k1", "value": "Vb"}


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_document_and_question_are_the_official_prompt(tmp_path: Path) -> None:
    (example,) = KeyValueRetrieval(written(tmp_path, ROW)).all_examples()
    (question,) = example.questions
    assert f"{example.document}\n\n{question.text}" == (
        "Extract the value corresponding to the specified key in the JSON object below.\n\n"
        'JSON data:\n{"k0": "Va",\n "k1": "Vb",\n "k2": "Vc",\n "k3": "Vd",\n "k4": "Ve"}\n\n'
        'Key: "k1"\nCorresponding value:'
    )
    assert question.needles == ('"k1": "Vb"',)
    assert question.groups == {"position": "2nd fifth", "keys": "5"}


@pytest.mark.parametrize(
    ("index", "place", "last"),
    [(0, "1st fifth", "Ve"), (4, "5th fifth", "Vb"), (9, "5th fifth", "Vb")],
)
def test_the_key_is_moved_where_it_is_asked_for(
    tmp_path: Path, index: int, place: str, last: str
) -> None:
    (example,) = KeyValueRetrieval(written(tmp_path, ROW), gold_index=index).all_examples()
    assert example.questions[0].groups["position"] == place
    assert example.document.endswith(f'"{last}"}}')
    assert example.document.count('"k1"') == 1


def test_an_answer_that_contains_the_value_is_right_in_either_case(tmp_path: Path) -> None:
    task = KeyValueRetrieval(written(tmp_path, ROW))
    (question,) = next(task.all_examples()).questions
    assert task.score('It is "vB".', question) == 1
    assert task.score("Va", question) == 0
    assert task.score("", question) == 0


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"ordered_kv_records": "k1"}, "ordered_kv_records"),
        ({"ordered_kv_records": [["k1"]]}, "ordered_kv_records"),
        ({"ordered_kv_records": [["k1", 2]]}, "ordered_kv_records"),
        ({"ordered_kv_records": [*PAIRS, ["k0", "Vz"]]}, "ordered_kv_records"),
        ({"value": "Vz"}, "ordered_kv_records"),
        ({"key": None}, "key"),
        ({"value": 3}, "value"),
    ],
)
def test_a_bad_row_is_named_with_its_field(
    tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(DocumentError, match=f"row 2 of .*field '{field}': expected"):
        list(KeyValueRetrieval(written(tmp_path, ROW, {**ROW, **change})).all_examples())


def test_a_negative_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gold_index must not be negative, got -1"):
        KeyValueRetrieval(tmp_path, gold_index=-1)


def test_the_sample_loads_completely(data: Path) -> None:
    task = KeyValueRetrieval(data / "kv_retrieval_75.jsonl")
    examples = list(task.all_examples())
    assert len(examples) == 100
    for example in examples:
        (question,) = example.questions
        assert example.document.count(question.needles[0]) == 1
        assert task.score(question.references[0], question) == 1
        assert question.groups["keys"] == "75"
    assert len({one.questions[0].groups["position"] for one in examples}) == 5
