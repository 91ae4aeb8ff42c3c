"""`ttt eval`: does what is not there, goes on where it stopped, and says what follows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke
from tests.cli.processes import PATIENCE, Start, Terminal, posix_only
from ttt_core.evaluation.results import Results

SMALL = ("--arm", "in-context", "--arm", "chance", "--length", "4", "--seeds", "2")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_a_table_a_verdict_and_a_report(ttt: Invoke, output: Path) -> None:
    done = ttt("eval", *SMALL, "--examples", "1", "--output", str(output))
    assert done.exit_code == 0, done.output
    assert "registry" in done.stdout
    assert "in-context" in done.stdout
    assert "not enough evidence" in done.stdout
    report = (output / "report.html").read_text()
    assert "in-context" in report
    assert "script src" not in report
    cells = Results(output).cells()
    assert len(cells) == 4
    assert {c.key.seed for c in cells} == {0, 1}
    assert {c.key.model for c in cells} == {"model"}
    [run] = Results(output).runs()
    assert run.command.startswith("ttt ")


def test_running_again_goes_on(ttt: Invoke, output: Path) -> None:
    first = ttt("eval", *SMALL, "--examples", "1", "--output", str(output), "--json")
    again = ttt("eval", *SMALL, "--examples", "2", "--output", str(output), "--json")
    whole = ttt("eval", *SMALL, "--examples", "2", "--output", str(output.parent / "b"), "--json")
    for done in (first, again, whole):
        assert done.exit_code == 0, done.output
    assert len(Results(output).cells()) == 8
    both = [(folder / "results.jsonl").read_bytes() for folder in (output, output.parent / "b")]
    assert both[0] == both[1]
    found = [json.loads(done.stdout) for done in (again, whole)]
    assert Path(found[0].pop("report")) == output / "report.html"
    found[1].pop("report")
    for one in found:  # Seconds differ.
        for row in one["models"][0]["rows"]:
            row.pop("costs")
    assert found[0] == found[1]


def test_the_report_can_be_written_again(ttt: Invoke, output: Path) -> None:
    ttt("eval", *SMALL, "--examples", "1", "--output", str(output))
    before = (output / "report.html").read_bytes()
    (output / "report.html").unlink()
    done = ttt("eval", "--report-only", "--model", "no/such-model", "--output", str(output))
    assert done.exit_code == 0, done.output
    assert (output / "report.html").read_bytes() == before


def test_an_option_can_be_left_open(ttt: Invoke, output: Path) -> None:
    arm = ("--arm", "in-context", "--arm", "bm25:top=1/2")
    size = ("--length", "4", "--seeds", "1", "--examples", "1", "--tune-examples", "1")
    done = ttt("eval", *arm, *size, "--output", str(output))
    assert done.exit_code == 0, done.output
    results = Results(output)
    [choice] = results.choices()
    assert set(choice.scores) == {"1", "2"}
    assert sorted(c.key.split for c in results.cells()) == ["score", "score", "tune", "tune"]
    assert {c.key.arm for c in results.cells() if c.key.split == "score"} == {
        "in-context",
        "bm25:top=1/2",
    }


def test_failures_are_counted(ttt: Invoke, output: Path) -> None:
    small = ("--seeds", "1", "--examples", "1", "--arm", "in-context", "--arm", "chance")
    lengths = ("--length", "4", "--length", "512")
    done = ttt("eval", *small, *lengths, "--output", str(output))
    assert done.exit_code == 0, done.output
    assert "1 of 4 cells failed" in done.stderr


def test_names_are_listed(ttt: Invoke) -> None:
    done = ttt("eval", "--list")
    assert done.exit_code == 0
    for name in ("registry", "transactions", "longbench-v2", "qttt", "lr-zero"):
        assert name in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--task", "registri"), "did you mean 'registry'"),
        (("--task", "longbench-v2"), "needs its data: --task longbench-v2="),
        (("--task", "longbench=x"), "did you mean 'longbench-v"),
        (("--arm", "rag"), "did you mean 'bm25'"),
        (("--arm", "qttt:rank=4"), "unknown option 'rank'"),
        (("--length", "10000000"), "10000000"),
    ],
)
def test_what_cannot_be_is_named(
    arguments: tuple[str, ...], said: str, ttt: Invoke, output: Path
) -> None:
    done = ttt("eval", *arguments, "--output", str(output))
    assert done.exit_code == 1
    assert said in done.stderr
    assert not (output / "results.jsonl").exists()


def test_the_same_arm_twice_makes_no_sense(ttt: Invoke, output: Path) -> None:
    done = ttt("eval", "--arm", "qttt", "--arm", "qttt:gate=true", "--output", str(output))
    assert done.exit_code == 2
    assert "--arm qttt is there twice" in done.stderr


def test_a_report_on_nothing_says_so(ttt: Invoke, output: Path) -> None:
    done = ttt("eval", "--report-only", "--output", str(output))
    assert done.exit_code == 1
    assert done.stderr.startswith("error:")


@posix_only
def test_ctrl_c_says_how_to_go_on(
    model_path: Path, output: Path, terminal: Terminal, start: Start
) -> None:
    arguments = ("--length", "8", "--arm", "in-context", "--examples", "20")
    process = start(
        *("eval", "--model", str(model_path), "--output", str(output), *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal.theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    terminal.wait_for(rb"cells.* [1-9][0-9]*/60", process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    shown = " ".join(terminal.rest().split())
    assert process.returncode == 130
    assert "run the same command again to go on" in shown
    assert "Traceback" not in shown
    assert Results(output).cells()
    assert not list((output / "locks").iterdir())
