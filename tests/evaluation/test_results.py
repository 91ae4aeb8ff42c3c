"""Results files: whole lines only, each key once, and the same bytes whatever the history."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.evaluation.test_records import KEY
from ttt_core.errors import DocumentError, StoreError
from ttt_core.evaluation.records import (
    Cell,
    CellTiming,
    Choice,
    Failure,
    QuestionResult,
    RunRecord,
    to_line,
)
from ttt_core.evaluation.results import Results


def cell(number: int, **changes: Any) -> Cell:
    key = KEY.model_copy(update={"example": f"{number}"})
    asked = (QuestionResult(id="q", text=f"answer {number} " * 9, score=0.5),)
    return Cell(**{"key": key, "questions": asked, **changes})


def add(results: Results, *cells: Cell) -> None:
    for one in cells:
        results.add(one, CellTiming(cell=one.key.digest, when="now"))


def results_file(folder: Path) -> Path:
    return folder / "results.jsonl"


def test_what_was_added_is_there_for_others(tmp_path: Path) -> None:
    one, two = Results(tmp_path), Results(tmp_path)
    assert one.cells() == two.cells() == []
    add(one, cell(1))
    assert two.cells() == [cell(1)]
    add(two, cell(2))
    assert one.cells() == [cell(1), cell(2)]
    assert set(one.timings()) == {cell(1).key.digest, cell(2).key.digest}


def test_somebody_sorting_the_file_confuses_no_reader(tmp_path: Path) -> None:
    one, two = Results(tmp_path), Results(tmp_path)
    for number in (5, 3, 4, 1):
        add(one, cell(number))
    assert len(two.cells()) == 4
    one.finish()
    add(one, cell(2))
    assert {c.key.example for c in two.cells()} == {"1", "2", "3", "4", "5"}
    assert {c.key.example for c in one.cells()} == {"1", "2", "3", "4", "5"}


@given(order=st.permutations(range(6)), twice=st.lists(st.integers(0, 5), max_size=4))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_finished_files_are_the_same_whatever_the_order(
    order: list[int], twice: list[int], tmp_path: Path
) -> None:
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    results = Results(folder)
    add(results, *(cell(number) for number in [*order, *twice]))
    results.finish()
    lines = results_file(folder).read_bytes()
    assert lines == b"".join(to_line(cell(number)) for number in range(6))
    results.finish()
    assert results_file(folder).read_bytes() == lines


@given(cut=st.integers(0, 10**6))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_torn_last_line_is_dropped_and_nothing_else(cut: int, tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    lines = [to_line(cell(number)) for number in range(3)]
    data = b"".join(lines)
    kept = data[: cut % (len(data) + 1)]
    results_file(folder).write_bytes(kept)
    whole = kept.count(b"\n")
    results = Results(folder)
    assert results.cells() == [cell(number) for number in range(whole)]
    add(results, cell(7))
    assert results_file(folder).read_bytes() == b"".join(lines[:whole]) + to_line(cell(7))
    assert Results(folder).cells() == results.cells() == [*map(cell, range(whole)), cell(7)]


def test_a_torn_line_may_be_long(tmp_path: Path) -> None:
    long = to_line(cell(2, details={"reasons": "x" * 200_000}))
    results_file(tmp_path).write_bytes(to_line(cell(1)) + long[:-100])
    results = Results(tmp_path)
    add(results, cell(3))
    assert results_file(tmp_path).read_bytes() == to_line(cell(1)) + to_line(cell(3))


def test_an_unknown_version_is_refused_by_name(tmp_path: Path) -> None:
    newer = cell(2, key=KEY.model_copy(update={"version": 99}))
    results_file(tmp_path).write_bytes(to_line(cell(1)) + to_line(newer))
    with pytest.raises(DocumentError, match=r"line 2 of .*results\.jsonl is of version 99"):
        Results(tmp_path).cells()


@pytest.mark.parametrize(
    "line", [b"secret words\n", b'"secret words"\n', b'{"key": {"secret words": 1}}\n']
)
def test_a_damaged_line_is_named_and_not_shown(line: bytes, tmp_path: Path) -> None:
    results_file(tmp_path).write_bytes(to_line(cell(1)) + line + to_line(cell(2)))
    with pytest.raises(DocumentError, match="line 2 of") as caught:
        Results(tmp_path).cells()
    assert "secret" not in str(caught.value)


def test_a_record_that_cannot_be_is_named_by_its_field(tmp_path: Path) -> None:
    line = to_line(cell(1)).replace(b'"score":0.5', b'"score":"secret words"')
    results_file(tmp_path).write_bytes(line)
    with pytest.raises(DocumentError, match=r"no Cell: questions\.0\.score") as caught:
        Results(tmp_path).cells()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("score", [b"NaN", b"1.5", b"-0.1"])
def test_a_score_that_cannot_be_spoils_no_mean(score: bytes, tmp_path: Path) -> None:
    line = to_line(cell(0)).replace(b'"score":0.5', b'"score":' + score)
    (tmp_path / "results.jsonl").write_bytes(line)
    with pytest.raises(DocumentError, match=r"questions\.0\.score cannot be as it is"):
        Results(tmp_path).cells()


def test_who_tries_again_and_succeeds_counts(tmp_path: Path) -> None:
    results = Results(tmp_path)
    failed = cell(1, questions=(), failure=Failure(kind="OutOfMemoryError", message="full"))
    add(results, failed, cell(1), failed)
    assert results.cells() == [cell(1)]
    results.finish()
    assert results_file(tmp_path).read_bytes() == to_line(cell(1))


def test_a_cell_is_claimed_once(tmp_path: Path) -> None:
    one, two = Results(tmp_path), Results(tmp_path)
    with one.claimed(KEY) as mine:
        assert mine
        with two.claimed(KEY) as theirs:
            assert not theirs
        with two.claimed(cell(5).key) as theirs:
            assert theirs
    with two.claimed(KEY) as theirs:
        assert theirs
    assert not list((tmp_path / "locks").iterdir())


def test_what_was_chosen_last_counts(tmp_path: Path) -> None:
    results = Results(tmp_path)
    first = Choice(
        task="t", arm="a", option="o", scores={"1": 0.5}, examples=2, questions=4, chosen="1"
    )
    second = first.model_copy(update={"scores": {"1": 0.5, "2": 0.7}, "chosen": "2"})
    for choice in (first, first, second, second):
        results.add_choice(choice)
    assert results.choices() == [second]
    assert (tmp_path / "choices.jsonl").read_bytes().count(b"\n") == 2


def test_each_model_has_its_own_choice(tmp_path: Path) -> None:
    results = Results(tmp_path)
    first = Choice(
        model="small",
        weights="ab",
        task="t",
        arm="a",
        option="o",
        scores={"1": 0.5},
        examples=2,
        questions=4,
        chosen="1",
    )
    second = first.model_copy(update={"model": "large", "weights": "cd"})
    third = first.model_copy(update={"weights": "ef"})
    for choice in (first, second, third, first):
        results.add_choice(choice)
    results.finish()
    assert results.choices() == [second, first, third]
    assert (tmp_path / "choices.jsonl").read_bytes().count(b"\n") == 3


def test_runs_are_kept_in_the_order_of_their_starts(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for hour in ("2", "1"):
        results.add_run(
            RunRecord(command=hour, when=hour, versions={}, device="cpu", platform="any")
        )
    assert [run.command for run in results.runs()] == ["1", "2"]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        add(Results(tmp_path / "file" / "below"), cell(1))


def test_sorting_loses_nothing_where_lines_look_alike(tmp_path: Path) -> None:
    """Lines of one length and one end: by these alone no reader could tell that they moved."""
    one, two = Results(tmp_path), Results(tmp_path)
    lost = Failure(kind="OutOfMemoryError", message="full " * 99)

    def failed(number: int) -> Cell:
        key = KEY.model_copy(update={"example": f"{number}", "settings": {"of": "an arm " * 99}})
        return cell(number, key=key, questions=(), failure=lost)

    add(one, failed(1), failed(2), failed(4))
    assert len(two.cells()) == 3
    add(one, failed(3))
    one.finish()  # Where 4 was is 3 now.
    assert {c.key.example for c in two.cells()} == {"1", "2", "3", "4"}
    add(two, failed(5))
    two.finish()
    assert {c.key.example for c in Results(tmp_path).cells()} == {"1", "2", "3", "4", "5"}
