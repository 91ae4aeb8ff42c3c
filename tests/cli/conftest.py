"""A model folder for the command line, and ways to run it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from typer.testing import CliRunner, Result

from tests.cli.processes import TTT, Start, Terminal
from ttt_core import AdapterStore
from ttt_core.cli.app import app
from ttt_core.sandbox import make_registry

Invoke = Callable[..., Result]


@pytest.fixture
def model_path(
    make_model: Callable[..., PreTrainedModel],
    make_tokenizer: Callable[..., PreTrainedTokenizerFast],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> Path:
    """A small random model with a window of 4,096 that never ends an answer by itself."""
    folder = tmp_path / "model"
    model = make_model("qwen3", max_position_embeddings=4096, eos_token_id=None)
    model.save_pretrained(folder)
    endless = make_tokenizer(tokenizer.chat_template)
    endless.eos_token = None
    endless.save_pretrained(folder)
    return folder


@pytest.fixture
def registry_file(tmp_path: Path) -> Path:
    """A registry of 100 lines, some 2,500 tokens under the test tokenizer."""
    path = tmp_path / "registry.txt"
    path.write_text(make_registry(100, seed=0).text, encoding="utf-8")
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store that does not exist yet."""
    return tmp_path / "store"


@pytest.fixture
def ttt(model_path: Path, store: Path) -> Invoke:
    """Run a command on the small model within this process."""

    def invoke(command: str, *arguments: str, stdin: str | bytes | None = None) -> Result:
        own = ("--model", str(model_path), "--store", str(store))
        return CliRunner().invoke(app, [command, *own, *arguments], input=stdin)

    return invoke


@pytest.fixture
def adapters(store: Path) -> AdapterStore:
    """That store, to put adapters into by hand."""
    return AdapterStore(store)


@pytest.fixture
def on_store(store: Path) -> Invoke:
    """Run a command of `ttt store` on it."""

    def invoke(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, ["store", *arguments, "--store", str(store)], input=stdin)

    return invoke


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A terminal of its own; both ends stay open, so that reading never fails."""
    terminal = Terminal()
    yield terminal
    os.close(terminal.ours)
    os.close(terminal.theirs)


@pytest.fixture
def start() -> Iterator[Start]:
    """Start `ttt` as a process, which ends with the test at the latest."""
    with ExitStack() as stack:

        def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
            process = stack.enter_context(subprocess.Popen([*TTT, *arguments], **options))
            stack.callback(process.kill)  # Runs before the wait; does nothing once it has ended.
            return process

        yield start
