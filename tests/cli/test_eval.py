"""`ttt eval`: does what is not there, goes on where it stopped, and says what follows."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke
from tests.cli.processes import PATIENCE, Start, Terminal, posix_only
from ttt_core.cli import eval_command
from ttt_core.evaluation.analysis.power import fewest_documents
from ttt_core.evaluation.results import Results

SMALL = ("--arm", "in-context", "--arm", "chance", "--length", "4", "--seeds", "2")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no figures but where a test is about the whole report: they take seconds."""
    if "whole" not in request.node.name:
        drawings = "ttt_core.evaluation.report.drawings.find_spec"
        monkeypatch.setattr(drawings, lambda name: None)


def test_a_table_a_verdict_and_a_whole_report(ttt: Invoke, output: Path) -> None:
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
    typed = shlex.split(run.command)
    assert typed[:2] == ["ttt", "eval"]
    assert typed[-2:] == ["--output", str(output)]


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
    assert "hub:THUDM/LongBench-v2" in done.stdout
    assert "--length in lines: 64, 128" in done.stdout


def test_names_are_listed_for_a_script(ttt: Invoke) -> None:
    found = json.loads(ttt("eval", "--list", "--json").stdout)
    assert set(found) == {"tasks", "benchmarks", "arms"}
    assert all(benchmark["data"] for benchmark in found["benchmarks"].values())
    assert set(eval_command.ARMS) < set(found["arms"])


def test_the_usual_number_of_documents_can_show_something() -> None:
    """Six documents cannot, once there are two arms to compare."""
    compared = set(eval_command.ARMS) - {"in-context", "lr-zero", "chance"}
    assert compared >= {"qttt", "bm25-only"}
    assert fewest_documents(len(compared)) <= eval_command.SEEDS * eval_command.EXAMPLES


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--task", "registri"), "did you mean 'registry'"),
        (("--task", "longbench-v2"), "needs its data: --task longbench-v2="),
        (("--task", "longbench-v2="), "needs its data: --task longbench-v2="),
        (("--task", "longbench=x"), "did you mean 'longbench-v"),
        (("--task", ""), "unknown task ''"),
        (("--task", "registry=x"), "writes its documents itself"),
        (("--task", __file__), "say which benchmark it is for"),
        (("--task", "longicl=no/such.csv"), "no/such.csv"),
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
    assert not (
        output / "runs.jsonl"
    ).exists()  # The report would name a run that measured nothing.


def test_the_same_arm_twice_makes_no_sense(ttt: Invoke, output: Path) -> None:
    done = ttt("eval", "--arm", "qttt", "--arm", "qttt:gate=true", "--output", str(output))
    assert done.exit_code == 2
    assert "--arm qttt is there twice" in done.stderr


def test_a_report_on_nothing_says_so(ttt: Invoke, output: Path) -> None:
    done = ttt("eval", "--report-only", "--output", str(output))
    assert done.exit_code == 1
    assert done.stderr.startswith("error:")


def test_a_folder_of_something_else_is_left_alone(ttt: Invoke, output: Path) -> None:
    output.mkdir()
    (output / "report.html").write_text("mine")
    done = ttt("eval", *SMALL, "--output", str(output))
    assert done.exit_code == 1
    assert "holds other things than results" in done.stderr
    assert [path.name for path in output.iterdir()] == ["report.html"]
    done = ttt("eval", *SMALL, "--output", str(output / "report.html"))
    assert "is a file" in done.stderr
    assert (output / "report.html").read_text() == "mine"


def test_foreign_results_are_left_alone(ttt: Invoke, output: Path) -> None:
    output.mkdir()
    (output / "results.jsonl").write_text("hello\n")
    done = ttt("eval", *SMALL, "--output", str(output))
    assert done.exit_code == 1
    assert "is no record" in done.stderr
    assert [path.name for path in output.iterdir()] == ["results.jsonl"]


def test_what_is_there_already_makes_no_run(ttt: Invoke, output: Path) -> None:
    for _ in range(2):
        ttt("eval", *SMALL, "--examples", "1", "--output", str(output))
    assert len(Results(output).runs()) == 1


def test_without_bm25s_its_arms_are_left_out_or_refused(
    ttt: Invoke, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cells would fail, and stay failed once it is installed."""
    monkeypatch.setitem(sys.modules, "bm25s", None)
    small = ("--length", "4", "--seeds", "1", "--examples", "1", "--output", str(output))
    done = ttt("eval", *small, "--arm", "in-context", "--arm", "bm25-only")
    assert (done.exit_code, output.exists()) == (1, False)
    assert "context-ttt[eval]" in done.stderr
    done = ttt("eval", *small)
    assert done.exit_code == 0, done.output
    assert "the bm25 arms are left out" in done.stderr
    assert {c.key.arm for c in Results(output).cells()} == {
        "in-context", "qttt", "lr-zero", "chance"
    }  # fmt: skip


def test_a_report_that_cannot_be_written_is_one_line(ttt: Invoke, output: Path) -> None:
    ttt("eval", *SMALL, "--examples", "1", "--output", str(output))
    (output / "report.html").unlink()
    (output / "report.html").mkdir()
    done = ttt("eval", "--report-only", "--output", str(output))
    assert done.exit_code == 1
    assert "the results are kept: ttt eval --report-only" in done.stderr


@pytest.mark.parametrize("name", ["locks", "results.jsonl"])
def test_a_folder_that_cannot_be_used_is_one_line(name: str, ttt: Invoke, output: Path) -> None:
    ttt("eval", *SMALL, "--examples", "1", "--output", str(output))
    if name == "locks":
        output.joinpath(name).rmdir()
        output.joinpath(name).write_text("in the way")
    else:
        output.joinpath(name).unlink()
        output.joinpath(name).mkdir()
    done = ttt("eval", *SMALL, "--examples", "2", "--output", str(output))
    assert done.exit_code == 1
    assert f"--output {output} cannot be used" in done.stderr
    assert name in done.stderr


def test_a_length_named_twice_is_one_length(ttt: Invoke, output: Path) -> None:
    done = ttt("eval", *SMALL, "--length", "4", "--examples", "1", "--output", str(output))
    assert done.exit_code == 0, done.output
    assert len(Results(output).cells()) == 4


def test_what_failed_and_why_is_told(ttt: Invoke, output: Path) -> None:
    lengths = ("--length", "4", "--length", "512")
    done = ttt("eval", "--seeds", "1", "--examples", "1", "--arm", "in-context", *lengths,
               "--output", str(output))  # fmt: skip
    assert "in-context: 1 of 2 cells failed" in done.stdout
    assert "window" in done.stdout


def test_too_small_a_run_and_lengths_for_nothing_are_told(
    ttt: Invoke, output: Path, tmp_path: Path
) -> None:
    data = tmp_path / "lines.jsonl"
    line = "line able-book: REGISTER_CONTENT is <7>"
    data.write_text(
        "".join(
            json.dumps({"prompt": f"Record:\n{line}\nTell me the content.", "random_idx": [n],
                        "expected_number": 7, "correct_line": line}) + "\n" for n in range(3)
        )
    )  # fmt: skip
    task = ("--task", f"line-retrieval={data}", "--length", "4", "--output", str(output))
    arms = ("--arm", "in-context", "--arm", "qttt")
    done = ttt("eval", *task, *arms, "--seeds", "1", "--examples", "1")
    assert "--length is not for line-retrieval" in done.stderr
    assert "1 document a task, where comparing 1 arm takes 6" in done.stderr


@posix_only
def test_ctrl_c_says_how_to_go_on(
    model_path: Path, output: Path, terminal: Terminal, start: Start
) -> None:
    arguments = ("--length", "8", "--arm", "in-context", "--seeds", "3", "--examples", "20")
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
