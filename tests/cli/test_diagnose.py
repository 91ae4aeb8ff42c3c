"""`ttt diagnose`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

Invoke = Callable[..., Result]

RECIPE = ("--steps", "2", "--learning-rate", "0.001", "--no-gate", "--max-new-tokens", "4")
QUICK = (*RECIPE, "--no-dilution")


@pytest.fixture
def short_file(tmp_path: Path) -> Path:
    """Some forty lines, so that commands are quick."""
    path = tmp_path / "short.txt"
    path.write_text("".join(f"red fox {i}: Oslo {i * i % 37}\n" for i in range(40)), "utf-8")
    return path


def parsed(result: Result) -> Any:
    """The JSON on stdout, which must be the only thing there."""
    return json.loads(result.stdout)


def test_it_prints_answers_findings_heads_and_dilution(ttt: Invoke, short_file: Path) -> None:
    result = ttt(
        *("diagnose", str(short_file), "Where is red fox 7?", "--needle", "red fox 7:  Oslo 12"),
        *("--answer", "Oslo 12", *RECIPE),
    )
    assert result.exit_code == 0, result.stderr
    for part in ("answer before", "answer after", "red fox 7: Oslo 12 (once)", "mass before"):
        assert part in result.stdout
    for part in ("nats per token before adapting", "dilution, head", "enough for 90%", "decision"):
        assert part in result.stdout


def test_json_is_all_there_is_and_the_page_is_written(
    ttt: Invoke, short_file: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    result = ttt(
        *("diagnose", str(short_file), "-q", "Where is red fox 7?", "--needle", "red fox 7:"),
        *("--needle", "Oslo 12", "--html", str(page), "--json", *QUICK),
    )
    value = parsed(result)
    assert [needle["text"] for needle in value["needles"]] == ["red fox 7:", "Oslo 12"]
    assert value["report"]["steps"] == 2
    assert value["answers"]["after"]["adapted"] is True
    assert value["answers"]["before"]["adapted"] is False
    assert value["dilution"] == []
    assert value["document_tokens"] > value["needle_tokens"] > 0
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")


def test_without_adapting_only_the_base_is_measured(
    ttt: Invoke, short_file: Path, store: Path
) -> None:
    value = parsed(ttt("diagnose", str(short_file), "Where is red fox 7?", "--no-adapt",
                       "--no-dilution", "--max-new-tokens", "4", "--json"))  # fmt: skip
    assert value["attention"]["after"] is None
    assert value["answers"]["after"] is None
    assert value["needles"][0]["guessed"] is True
    assert not [path for path in store.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["Where is it?", "--needle", "no such thing"], 1, "not in the document"),
        (["Where is it?", "--needle", " "], 1, "needle is empty"),
        (["Where is it?", "--needle", "red", "--answer", " "], 1, "answer is empty"),
        (["zebras"], 1, "no such file"),
        (["-q", "zebras"], 1, "name the needle"),
        (["-q", " "], 2, "question is empty"),
        ([], 2, "one question"),
        (["-q", "Where?", "-q", "Who?"], 2, "one question"),
        (["Where?", "--needle", "red", "--html", "/no/such/folder/page.html"], 1, "--html"),
    ],
    ids=["needle", "empty needle", "answer", "name", "guess", "empty", "none", "two", "html"],
)
def test_bad_input_is_one_line(
    ttt: Invoke, short_file: Path, arguments: list[str], code: int, message: str
) -> None:
    result = ttt("diagnose", str(short_file), *arguments, *QUICK)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("error")]) == 1


@pytest.mark.parametrize(
    ("text", "message"), [("", "empty"), ("word " * 8000, "window")], ids=["empty", "too long"]
)
def test_bad_documents_are_one_line(ttt: Invoke, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "document.txt"
    path.write_text(text, encoding="utf-8")
    result = ttt("diagnose", str(path), "Where is it?", "--needle", "word", *QUICK, "--json")
    assert result.exit_code == 1
    assert message in parsed(result)["error"]["message"]


def test_nothing_is_learned_for_a_needle_that_is_not_there(
    ttt: Invoke, short_file: Path, store: Path
) -> None:
    result = ttt("diagnose", str(short_file), "Where?", "--needle", "no such thing", *QUICK)
    assert result.exit_code == 1
    assert not [path for path in store.rglob("*") if path.is_file()]


def test_recipes_that_need_the_question_get_it(ttt: Invoke, short_file: Path) -> None:
    value = parsed(ttt("diagnose", str(short_file), "Where is red fox 7?", "--supervision",
                       "retrieved", "--needle", "red fox 7:", "--json", *QUICK))  # fmt: skip
    assert value["report"]["supervision"] == "retrieved"
    assert value["attention"]["after"] is not None


def test_a_needle_that_was_cut_off_is_missed(ttt: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("word " * 4000 + "\nred fox: Oslo\n", encoding="utf-8")
    result = ttt(
        *("diagnose", str(path), "Where is red fox?", "--needle", "red fox: Oslo"),
        *("--on-overflow", "keep_start", "--no-adapt"),
    )
    assert result.exit_code == 1
    assert "were cut off" in result.stderr
    assert "not in the document that was read" in result.stderr
