"""The commands, run within the test's process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ttt_core import TTTEngine, __version__
from ttt_core.cli import work
from ttt_core.cli.app import app
from ttt_core.errors import TTTError

Invoke = Callable[..., Result]

RECIPE = ("--steps", "8", "--learning-rate", "0.001")
"""Short, and no ladder of learning rates: what is learned does not matter here."""

FEW = ("--max-new-tokens", "4")


def parsed(result: Result) -> Any:
    """The JSON on stdout, which must be the only thing there."""
    return json.loads(result.stdout)


def entries(store: Path) -> list[Path]:
    return [path for path in store.rglob("*") if path.is_file()]


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"ttt {__version__}\n"


def test_help_names_every_command() -> None:
    text = CliRunner().invoke(app, ["--help"]).stdout
    assert all(command in text for command in ("ask", "adapt", "demo"))


def test_ask_streams_the_answer_the_engine_gives(
    ttt: Invoke, registry_file: Path, model_path: Path
) -> None:
    result = ttt("ask", str(registry_file), "Where is it?", "--no-adapt", *FEW)
    with TTTEngine.from_pretrained(model_path) as engine:
        read = engine.read(registry_file.read_text())
        answer = engine.generate(read, "Where is it?", max_new_tokens=4)
    assert (result.exit_code, result.stdout) == (0, f"{answer.text}\n")


def test_ask_adapts_stores_and_fetches(ttt: Invoke, registry_file: Path, store: Path) -> None:
    arguments = ("ask", str(registry_file), "Where is it?", "--json", "--no-gate", *RECIPE, *FEW)
    first, second = parsed(ttt(*arguments)), parsed(ttt(*arguments))
    assert (first["source"], second["source"]) == ("trained", "store")
    assert first["report"]["decision"] == "adapted"
    assert first["report"]["steps"] == 8
    assert [answer["adapted"] for answer in first["answers"]] == [True]
    assert first["answers"][0]["answer"] == second["answers"][0]["answer"]
    assert len(entries(store)) == 1


def test_ask_trains_for_its_one_question(ttt: Invoke, registry_file: Path, store: Path) -> None:
    chosen = ("--supervision", "retrieved", "--no-gate", *RECIPE, *FEW)
    value = parsed(ttt("ask", str(registry_file), "Where is it?", "--json", *chosen))
    assert value["report"]["supervision"] == "retrieved"
    assert len(entries(store)) == 2, "the document's adapter, and the question's"
    several = ttt("ask", str(registry_file), "-q", "a?", "-q", "b?", *chosen)
    assert several.exit_code != 0
    assert "give exactly one" in several.stderr
    alone = ttt("adapt", str(registry_file), *chosen[:-2])
    assert alone.exit_code != 0
    assert "trains for one question" in alone.stderr


def test_ask_many_questions_in_one_object(ttt: Invoke, registry_file: Path, store: Path) -> None:
    asked = [f"Where is {name}?" for name in "abcdefghijklmnopqrst"]  # More than a batch.
    options = [part for question in asked for part in ("-q", question)]
    result = ttt("ask", str(registry_file), *options, "--no-adapt", "--json", *FEW)
    value = parsed(result)
    assert [answer["question"] for answer in value["answers"]] == asked
    assert value["report"] is None
    assert all(answer["usage"]["completion_tokens"] == 4 for answer in value["answers"])
    assert not entries(store)


def test_piped_questions_are_answered_line_by_line(ttt: Invoke, registry_file: Path) -> None:
    result = ttt("ask", str(registry_file), "--no-adapt", *FEW, stdin="Where is a?\r\n\nwhy?\n")
    assert result.exit_code == 0
    assert "Where is a?\n" in result.stdout
    assert "why?\n" in result.stdout


def test_document_from_stdin_is_the_same_document(
    ttt: Invoke, tmp_path: Path, registry_file: Path
) -> None:
    options = ("why?", "--no-adapt", "--json", *FEW)
    windows = registry_file.read_bytes().replace(b"\n", b"\r\n")
    from_stdin = parsed(ttt("ask", "-", *options, stdin=windows))
    from_file = parsed(ttt("ask", str(registry_file), *options))
    assert from_stdin["sha256"] == from_file["sha256"]
    assert from_stdin["answers"][0]["answer"] == from_file["answers"][0]["answer"]


def test_sampling_is_repeatable(ttt: Invoke, registry_file: Path) -> None:
    options = ("--no-adapt", "--temperature", "2", "--max-new-tokens", "12")
    texts = [
        ttt("ask", str(registry_file), "why?", *options, "--seed", seed).stdout
        for seed in ("1", "1", "2")
    ]
    assert texts[0] == texts[1] != texts[2]


def test_adapt_prints_the_report(ttt: Invoke, registry_file: Path, store: Path) -> None:
    result = ttt("adapt", str(registry_file), "--steps", "8")
    assert result.exit_code == 0
    for fact in ("decision", "reasons", "held-out loss", "0.003", "steps", "prefill", "tune"):
        assert fact in result.stdout
    for fact in ("drift", "FLOPs", "thinking tokens"):
        assert fact in result.stdout
    assert len(entries(store)) == 1
    assert "found in the store" in ttt("adapt", str(registry_file), "--steps", "8").stdout


def test_adapt_json(ttt: Invoke, registry_file: Path) -> None:
    value = parsed(ttt("adapt", str(registry_file), "--json", "--supervision", "random_span",
                       "--parametrization", "full", *RECIPE))  # fmt: skip
    assert value["report"]["supervision"] == "random_span"
    assert value["report"]["parametrization"] == "full"
    assert set(value["seconds"]) == {"prefill", "adaptation"}


def test_demo_compares_and_finds_its_adapter_again(ttt: Invoke) -> None:
    arguments = ("--lines", "60", "--questions", "3")
    first, second = ttt("demo", *arguments), ttt("demo", *arguments)
    assert first.exit_code == 0
    for fact in ("right answers", "reading, once", "tokens, later question", "ttt ask"):
        assert fact in first.stdout
    assert max(map(len, first.stdout.splitlines())) < 200  # Nothing is padded for no terminal.
    assert "found in the store" in second.stdout
    assert "found in the store" not in first.stdout


def test_demo_json_adds_up(ttt: Invoke) -> None:
    value = parsed(ttt("demo", "--lines", "60", "--questions", "3", "--json"))
    later = value["in_context"]["tokens_later_question"]
    assert len(value["questions"]) == 3
    assert value["in_context"]["tokens_first_question"] > value["document_tokens"] > later
    assert value["adapted"]["tokens_first_question"] >= value["in_context"]["tokens_first_question"]


@pytest.mark.parametrize("option", [("--lines", "0"), ("--lines", "9999999"), ("--questions", "0")])
def test_demo_refuses_impossible_sizes(ttt: Invoke, option: tuple[str, str]) -> None:
    result = ttt("demo", *option, "--json")
    assert result.exit_code == 1
    assert option[0] in parsed(result)["error"]["message"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b" \n", "empty"), (b"\x7fELF\x00\x01", "binary"), (b"\xff\xfa", "UTF-8")],
)
def test_unreadable_documents(ttt: Invoke, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(content)
    for arguments, stdin in (((str(tmp_path / "file"),), None), (("-",), content)):
        result = ttt("ask", *arguments, "why?", stdin=stdin)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_unicode_survives(ttt: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "\u00fcber \u65e5\u672c.md"
    path.write_text("Z\u00fcrich \u2014 \u65e5\u672c\u8a9e \U0001f389 " * 20, encoding="utf-8")
    result = ttt("ask", str(path), "w\u00e4re \u65e5\u672c?", "--no-adapt", "--json", *FEW)
    assert parsed(result)["answers"][0]["question"] == "w\u00e4re \u65e5\u672c?"
    assert parsed(result)["documents"] == [str(path)]


@pytest.mark.parametrize(
    ("options", "code", "kind", "message"),
    [
        (("--steps", "-1"), 1, "ValidationError", "--steps"),
        (("--learning-rate", "7"), 1, "ValidationError", "between 0 and 1"),
        (("--learning-rate", "fast"), 2, "UsageError", "--learning-rate"),
        (("--max-new-tokens", "0"), 1, "ValidationError", "--max-new-tokens"),
        (("--device", "abacus"), 1, "ConfigError", "abacus"),
        (("--max-new-tokens", "5000"), 1, "PromptTooLongError", "window"),
    ],
)
def test_refused_options(
    ttt: Invoke, registry_file: Path, options: tuple[str, str], code: int, kind: str, message: str
) -> None:
    arguments = ("ask", str(registry_file), "why?", "--no-adapt", *options)
    as_text, as_json = ttt(*arguments), ttt(*arguments, "--json")
    assert as_text.exit_code == as_json.exit_code == code
    assert as_text.stderr.startswith("error: ")
    assert len(as_text.stderr.splitlines()) == 1
    assert message in as_text.stderr
    assert as_json.stderr == ""
    assert parsed(as_json)["error"]["type"] == kind
    assert message in parsed(as_json)["error"]["message"]


def test_no_question(ttt: Invoke, registry_file: Path) -> None:
    for arguments, stdin in (((str(registry_file),), ""), (("-",), "a document")):
        result = ttt("ask", *arguments, stdin=stdin)
        assert result.exit_code == 2
        assert "no question" in result.stderr


def test_missing_model(registry_file: Path, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    result = CliRunner().invoke(app, ["ask", str(registry_file), "why?", "--model", nowhere])
    assert result.exit_code == 1
    assert "there is no model folder" in result.stderr


def test_long_documents_are_refused_or_cut_never_silently(
    ttt: Invoke, tmp_path: Path, registry_file: Path
) -> None:
    long = tmp_path / "long.txt"
    for times in (2, 40):  # A little too long, and so long that it is not even tokenised.
        long.write_text(registry_file.read_text() * times)
        result = ttt("ask", str(long), "why?", "--no-adapt", *FEW)
        assert result.exit_code == 1
        assert "4,096" in result.stderr
    result = ttt(
        "ask", str(long), "why?", "--no-adapt", "--on-overflow", "keep_end", "--json", *FEW
    )
    assert parsed(result)["dropped_tokens"] > 0
    assert "cut off" in result.stderr


def test_bundled_model_says_that_it_is_a_toy(
    model_path: Path,
    tmp_path: Path,
    registry_file: Path,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(work, "bundled_model_path", lambda: model_path)
    prose = tmp_path / "prose.txt"
    prose.write_text("Beautiful is better than ugly. " * 9)
    for document, notes in ((prose, 1), (registry_file, 0)):
        arguments = ["ask", str(document), "why?", "--no-adapt", *FEW, "--store", str(store)]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert result.stderr.count("toy") == notes


def test_model_from_the_environment(
    model_path: Path, registry_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTT_MODEL", str(model_path))
    arguments = ["ask", str(registry_file), "why?", "--no-adapt", "--json", *FEW]
    assert parsed(CliRunner().invoke(app, arguments))["model"] == str(model_path)


def test_ctrl_c_while_adapting_stores_nothing(
    ttt: Invoke, registry_file: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TTTEngine, "adapt", interrupt)
    result = ttt("ask", str(registry_file), "why?")
    assert (result.exit_code, result.stderr) == (130, "stopped; nothing was learned\n")
    result = ttt("adapt", str(registry_file), "--json")
    assert parsed(result)["error"]["type"] == "KeyboardInterrupt"


def test_errors_of_several_lines_become_one(
    ttt: Invoke, registry_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise TTTError("first\nsecond [bold]third[/]")

    monkeypatch.setattr(TTTEngine, "adapt", fail)
    result = ttt("adapt", str(registry_file))
    assert result.stderr == "error: first second [bold]third[/]\n"


def test_transformers_is_as_noisy_as_before(ttt: Invoke, registry_file: Path) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    ttt("ask", str(registry_file), "why?", "--no-adapt", *FEW)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
