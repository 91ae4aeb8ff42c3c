"""`ttt eval`: tasks x arms x lengths, resumable, and a report with a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.table import Table

from ttt_core.cli import console
from ttt_core.cli.failures import UsageProblem
from ttt_core.cli.work import opened
from ttt_core.errors import ConfigError
from ttt_core.evaluation.plan import Job, Plan
from ttt_core.evaluation.results import Results
from ttt_core.evaluation.tuning import Tunable, TunedArm, choose, parse

if TYPE_CHECKING:
    from ttt_core import TTTEngine
    from ttt_core.cli.options import Setup
    from ttt_core.evaluation.arms import Arm
    from ttt_core.evaluation.runner import Advance, Runner
    from ttt_core.evaluation.summary import ModelSummary, Row
    from ttt_core.examples import Task

TASKS = ("registry",)
ARMS = ("in-context", "qttt", "bm25", "lr-zero", "chance")
OUTPUT = Path("ttt-eval")
ADAPTERS = "adapters"


@dataclass(frozen=True)
class Wanted:
    """What was typed.

    Attributes:
        tasks: `NAME`, or `NAME=DATA` for a benchmark.
        arms: As `evaluation.tuning.parse` reads them.
        lengths: Empty: each task's own.
        seeds: How many, from 0.
        examples: For each task, length and seed.
        tune_examples: For each task and length, on which open options are chosen.
        retry_failed: Try once more what failed earlier.
    """

    tasks: tuple[str, ...] = TASKS
    arms: tuple[str, ...] = ARMS
    lengths: tuple[int, ...] = ()
    seeds: int = 3
    examples: int = 2
    tune_examples: int = 4
    retry_failed: bool = False


def evaluate(
    wanted: Wanted, setup: Setup, output: Path, *, command: str, report_only: bool, as_json: bool
) -> None:
    """Do what is not there yet, write the report, print table and verdict."""
    results = Results(output)
    if not report_only:
        tasks = [get_task(spec) for spec in wanted.tasks]
        arms = _parsed(wanted.arms)
        if setup.place.folder is None:  # Thousands of documents that nobody will ask about again.
            setup = replace(setup, place=replace(setup.place, folder=output / ADAPTERS))
        with opened(setup) as engine, _resumable(output):
            _work(wanted, engine, results, tasks, arms, command)
    _report(results, as_json=as_json)


def list_all() -> None:
    """Print the names of tasks, benchmarks and arms, a line each."""
    from ttt_core.evaluation.arms import arm_description, arm_names
    from ttt_core.evaluation.benchmarks import benchmark_names
    from ttt_core.sandbox import tasks

    table = Table.grid(padding=(0, 2))
    for title, names, describe in (
        ("tasks", tasks.task_names(), lambda name: tasks.get_task(name).description),
        ("benchmarks", benchmark_names(), lambda name: f"--task {name}=FILE|FOLDER|hub:NAME"),
        ("arms", arm_names(), arm_description),
    ):
        table.add_row(f"[bold]{title}[/]", "")
        for name in names:
            table.add_row(f"  {name}", describe(name))
    console.show(table)


def get_task(spec: str) -> Task:
    """Return the task or benchmark that is typed so.

    Raises:
        ConfigError: There is none of that name, or it needs data and none are named.
    """
    from ttt_core.config import unknown_option
    from ttt_core.evaluation.benchmarks import benchmark_names, get_benchmark
    from ttt_core.sandbox import tasks

    name, equals, source = spec.partition("=")
    if equals:
        return get_benchmark(name, source)
    if name in tasks.task_names():
        return tasks.get_task(name)
    if name in benchmark_names():
        raise ConfigError(f"benchmark {name!r} needs its data: --task {name}=FILE|FOLDER|hub:NAME")
    known = (*tasks.task_names(), *benchmark_names())
    raise ConfigError(unknown_option(name, known, "tasks and benchmarks are"))


def _parsed(specs: Sequence[str]) -> list[Arm | Tunable]:
    arms = [parse(spec) for spec in specs]
    names = [arm.name for arm in arms]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageProblem(f"--arm {twice[0]} is there twice; each arm once")
    return arms


def _work(
    wanted: Wanted,
    engine: TTTEngine,
    results: Results,
    tasks: Sequence[Task],
    arms: Sequence[Arm | Tunable],
    command: str,
) -> None:
    from ttt_core.evaluation.cells import run_record
    from ttt_core.evaluation.runner import Runner

    with console.Bars() as bars:
        runner = Runner(
            engine,
            results,
            on_advance=lambda advance: _show(bars, advance),
            retry_failed=wanted.retry_failed,
        )
        results.add_run(run_record(engine, command))
        jobs = tuple(_job(wanted, runner, results, task, arms) for task in tasks)
        plan = Plan(jobs, seeds=tuple(range(wanted.seeds)), examples=wanted.examples)
        before = runner.state(plan)
        if before.done:
            console.status(f"{before.done:,} of {before.total:,} cells are there already")
        done = runner.run(plan)
    results.finish()
    if done.failed:
        console.note(
            f"note: {done.failed:,} of {done.total:,} cells failed; the report says why, and "
            f"--retry-failed tries again"
        )


def _job(
    wanted: Wanted,
    runner: Runner,
    results: Results,
    task: Task,
    arms: Sequence[Arm | Tunable],
) -> Job:
    """Choose what is left open, on tuning examples of this task."""
    bare = Job(task, (), wanted.lengths)
    plan = Plan((bare,), seeds=(0,), examples=wanted.tune_examples, split="tune")
    settled: list[Arm | TunedArm] = [
        choose(arm, bare, runner, results, plan=plan) if isinstance(arm, Tunable) else arm
        for arm in arms
    ]
    return replace(bare, arms=tuple(settled))


def _show(bars: console.Bars, advance: Advance) -> None:
    key = advance.key
    figures = f"{key.task} {key.length or ''} {key.arm[:24]}" if key else ""
    bars.advance("cells", advance.done, advance.total, " ".join(figures.split()))


@contextmanager
def _resumable(output: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"what was done so far is in {output}; run the same command again to go on"
        ) from None


def _report(results: Results, *, as_json: bool) -> None:
    from ttt_core.evaluation.report import write_report
    from ttt_core.evaluation.summary import summarise

    written = write_report(results.folder)
    summary = summarise(results.cells(), results.timings())
    if as_json:
        found: dict[str, Any] = {"report": str(written), **summary.model_dump(mode="json")}
        console.write_json(found)
        return
    for model in summary.models:
        console.show(_table(model))
        console.heading(model.verdict.sentence)
    console.show(f"The whole report: {written}")


def _table(model: ModelSummary) -> Table:
    table = Table(
        title=f"{model.model}: mean score, in points",
        caption="difference: from in-context, with its 95 % interval; * significant after "
        "correction; n: questions / documents",
        box=SIMPLE,
    )
    for column in ("task", "length", "arm"):
        table.add_column(column)
    for column in ("tokens", "score", "difference", "n"):
        table.add_column(column, justify="right")
    for row in model.rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> tuple[str, ...]:
    from ttt_core.evaluation.digits import difference_with_interval, points

    versus = row.versus
    difference = difference_with_interval(versus) if versus else ""
    return (
        row.task,
        "all" if row.length is None else f"{row.length:,}",
        row.arm,
        f"{row.tokens:,.0f}",
        points(row.score, row.questions) if row.questions else "failed",
        difference + (" *" if versus and versus.significant else ""),
        f"{row.questions:,} / {row.documents:,}",
    )
