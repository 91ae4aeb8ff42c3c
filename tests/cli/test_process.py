"""The command as a real process: signals, pipes, terminals, imports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.processes import MAIN, PATIENCE, Start, Terminal, posix_only


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_help_loads_no_torch() -> None:
    code = (
        "import sys\n"
        "from ttt_core.__main__ import main\n"
        "assert main() == 0\n"
        "heavy = {'torch', 'transformers', 'peft', 'numpy'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    for arguments in (("--help",), ("ask", "--help"), ("--version",)):
        assert run(code, *arguments).returncode == 0


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_missing_extra_is_named(module: str) -> None:
    done = run(f"import sys; sys.modules[{module!r}] = None" + MAIN, "--help")
    assert done.returncode == 2
    assert "pip install 'context-ttt[cli]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_other_missing_modules_are_not_blamed_on_the_extra() -> None:
    done = run("import sys; sys.modules['pydantic'] = None" + MAIN, "--help")
    assert "ModuleNotFoundError" in done.stderr
    assert "[cli]" not in done.stderr


def test_module_is_the_command(model_path: Path, registry_file: Path) -> None:
    command = [sys.executable, "-m", "ttt_core", "ask", str(registry_file), "why?", "--no-adapt"]
    done = subprocess.run(
        [*command, "--json", "--max-new-tokens", "4", "--model", str(model_path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")  # Nobody watches: no bars, no noise.
    assert len(json.loads(done.stdout)["answers"]) == 1


@posix_only
def test_ctrl_c_while_adapting(
    model_path: Path, registry_file: Path, store: Path, terminal: Terminal, start: Start
) -> None:
    options = ("--model", str(model_path), "--store", str(store))
    process = start(
        *("adapt", str(registry_file), *options),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal.theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    terminal.wait_for(b"trying rates", process)  # Dozens of steps before anything could be stored.
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=PATIENCE)
    shown = terminal.rest()
    assert process.returncode == 130
    assert stdout == b""
    assert "stopped; nothing was learned" in shown
    assert "Traceback" not in shown
    assert not [path for path in store.rglob("*") if path.is_file()]


@posix_only
def test_prompt_stops_an_answer_and_leaves(
    model_path: Path, tmp_path: Path, terminal: Terminal, start: Start
) -> None:
    document = tmp_path / "short.txt"
    document.write_text("amber falcon: Oslo\n" * 3)
    options = ("--no-adapt", "--max-new-tokens", "3500", "--model", str(model_path))
    process = start(
        *("ask", str(document), *options),
        stdin=terminal.theirs,
        stdout=terminal.theirs,
        stderr=terminal.theirs,
        env={**os.environ, "TERM": "dumb"},
    )
    terminal.wait_for(rb"leaves\s+> ", process)
    terminal.type(b"why?\n")
    terminal.wait_for(rb"why\?\s+\S", process)  # The answer: thousands of tokens, just begun.
    process.send_signal(signal.SIGINT)
    terminal.wait_for(rb"stopped this answer\s+> ", process)
    terminal.type(b"\n\x04")  # An empty line asks nothing.
    assert process.wait(timeout=PATIENCE) == 0
    assert "Traceback" not in terminal.rest()


@posix_only
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_broken_pipe_is_silent(
    model_path: Path, registry_file: Path, form: tuple[str, ...], start: Start
) -> None:
    asked = ("-q", "why?", "-q", "how?", "--no-adapt", "--max-new-tokens", "4")
    process = start(
        "ask",
        str(registry_file),
        *asked,
        "--model",
        str(model_path),
        *form,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # As `| head` does when it has seen enough.
    assert process.stderr.read() == b""
    assert process.wait(timeout=PATIENCE) == 141
