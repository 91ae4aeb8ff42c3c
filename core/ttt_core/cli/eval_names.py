"""Tasks, benchmarks and arms as they are typed: which there are, and where data come from."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from ttt_core.cli import console
from ttt_core.cli.failures import UsageProblem
from ttt_core.errors import ConfigError
from ttt_core.evaluation.tuning import Tunable, parse

if TYPE_CHECKING:
    from ttt_core.evaluation.arms import Arm
    from ttt_core.examples import Task

BUNDLED = ("registry", "ledger")
"""Tasks that the bundled model was made for."""

DATA = {
    "babi": "a qa*_test.txt of research.facebook.com/downloads/babi, or a folder of them",
    "key-value": "a kv-retrieval-*.jsonl of github.com/nelson-liu/lost-in-the-middle, unpacked",
    "line-retrieval": "a *_lines.jsonl of github.com/DachengLi1/LongChat (longeval)",
    "longbench-v1": "data.zip of huggingface.co/datasets/THUDM/LongBench, unpacked: folder or file",
    "longbench-v2": "hub:THUDM/LongBench-v2, or its data.json",
    "longicl": "a CSV of your own with the columns text and label_text, or hub:mteb/banking77",
    "niah": "any .txt or .md file, a folder of them, or the word: generated",
    "ruler": "what the scripts of github.com/NVIDIA/RULER write: TASK/validation.jsonl",
    "zero-scrolls": "zips of huggingface.co/datasets/tau/zero_scrolls, unpacked: QASPER and so on",
}
"""What may stand behind `--task NAME=`, and where it is to be had."""


def get_task(spec: str) -> Task:
    """Return the task or benchmark that is typed so.

    Raises:
        ConfigError: There is none of that name, or it needs data and none are named, or takes none.
    """
    from ttt_core.config import unknown_name
    from ttt_core.evaluation.benchmarks import benchmark_names, get_benchmark
    from ttt_core.sandbox import tasks

    name, equals, source = spec.partition("=")
    if name in tasks.task_names():
        if equals:
            raise ConfigError(f"task {name!r} writes its documents itself: --task {name}")
        return tasks.get_task(name)
    if name in benchmark_names():
        if not source:
            raise ConfigError(
                f"benchmark {name!r} needs its data: --task {name}=DATA, where DATA is {DATA[name]}"
            )
        return get_benchmark(name, source)
    if name and not equals and Path(name).exists():
        raise ConfigError(
            f"{name} is a file or folder; say which benchmark it is for: --task NAME={name}. "
            f"ttt eval --list names them"
        )
    known = (*tasks.task_names(), *benchmark_names())
    raise ConfigError(unknown_name("task", name, known, "tasks and benchmarks are"))


def get_arms(specs: Sequence[str], usual: Sequence[str]) -> list[Arm | Tunable]:
    """Return the arms that are typed so; without any, the usual ones that are installed.

    Raises:
        UsageProblem: One is there twice.
        ConfigError: See `tuning.parse`; or what one needs is not installed. Else each of its cells
            would fail, and stay failed in the results.
    """
    from ttt_core.extras import library

    if not specs and find_spec("bm25s") is None:
        console.note(
            "note: the bm25 arms are left out; pip install 'context-ttt[eval]' brings bm25s"
        )
        usual = [name for name in usual if not name.startswith("bm25")]
    arms = [parse(spec) for spec in specs or usual]
    names = [arm.name for arm in arms]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageProblem(f"--arm {twice[0]} is there twice; each arm once")
    for name in names:
        if name.startswith("bm25") or "retrieved" in name:
            library("bm25s", "bm25s", f"arm {name}")
    return arms


def list_all(*, as_json: bool) -> None:
    """Print tasks, benchmarks and arms, and where the benchmarks' data come from."""
    found = _all()
    if as_json:
        console.write_json(found)
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for title, kinds in found.items():
        table.add_row(f"[bold]{title}[/]", _HEADS[title])
        for name, about in kinds.items():
            table.add_row(f"  {name}", about["description"].removesuffix("."))
            if about.get("unit"):
                lengths = ", ".join(map(str, about["lengths"]))
                table.add_row("", f"[dim]--length in {about['unit']}: {lengths}[/]")
            if "data" in about:
                table.add_row("", f"[dim]data: {about['data']}[/]")
    console.show(table)


_HEADS = {
    "tasks": "--task NAME: documents are written when they are needed",
    "benchmarks": "--task NAME=DATA: a file, a folder, or hub:owner/name",
    "arms": "--arm NAME: ways to answer, with options as in qttt:steps=16,gate=false",
}


def _all() -> dict[str, dict[str, dict[str, Any]]]:
    from ttt_core.evaluation.arms import arm_description, arm_names
    from ttt_core.evaluation.benchmarks import benchmark_names, get_benchmark
    from ttt_core.sandbox import tasks

    return {
        "tasks": {name: _about(tasks.get_task(name)) for name in tasks.task_names()},
        "benchmarks": {  # None of them reads its data before it is asked for examples.
            name: {**_about(get_benchmark(name, "none")), "data": DATA[name]}
            for name in benchmark_names()
        },
        "arms": {name: {"description": arm_description(name)} for name in arm_names()},
    }


def _about(task: Task) -> dict[str, Any]:
    return {"description": task.description, "unit": task.unit, "lengths": list(task.lengths)}
