"""`ttt eval`: tasks x arms x lengths, resumable, and a report with a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ttt_core.cli import console, eval_show
from ttt_core.cli.eval_defaults import ARMS, TASKS
from ttt_core.cli.eval_names import BUNDLED, get_arms, get_task
from ttt_core.cli.work import opened
from ttt_core.errors import ConfigError, StoreError
from ttt_core.evaluation.plan import Job, Plan
from ttt_core.evaluation.results import Results
from ttt_core.evaluation.tuning import Tunable, TunedArm, choose

if TYPE_CHECKING:
    from ttt_core import TTTEngine
    from ttt_core.cli.options import Setup
    from ttt_core.evaluation.arms import Arm
    from ttt_core.evaluation.runner import Advance, Runner
    from ttt_core.examples import Task

ADAPTERS = "adapters"
_OURS = ("results.jsonl", "runs.jsonl")
_BESIDE = (ADAPTERS, "locks", "timings.jsonl", "choices.jsonl")
"""May be there without the others if somebody stopped the very first cell."""


@dataclass(frozen=True)
class Wanted:
    """What was typed.

    Attributes:
        tasks: `NAME`, or `NAME=DATA` for a benchmark; empty: the usual ones.
        arms: As `evaluation.tuning.parse` reads them; empty: the usual ones.
        lengths: Empty: each task's own.
        seeds: How many, from 0.
        examples: For each task, length and seed.
        tune_examples: For each task and length, on which open options are chosen.
        retry_failed: Try once more what failed earlier.
    """

    tasks: tuple[str, ...]
    arms: tuple[str, ...]
    lengths: tuple[int, ...]
    seeds: int
    examples: int
    tune_examples: int
    retry_failed: bool


def evaluate(
    wanted: Wanted, setup: Setup, output: Path, *, command: str, report_only: bool, as_json: bool
) -> None:
    """Do what is not there yet, write the report, print table and verdict."""
    results = Results(output)
    with _usable(output):
        if not report_only:
            _measure(wanted, setup, results, command)
        _report(results, as_json=as_json)


def _measure(wanted: Wanted, setup: Setup, results: Results, command: str) -> None:
    _check_output(results.folder)
    results.cells()  # What cannot be read should be told before hours of work.
    tasks = [get_task(spec) for spec in wanted.tasks or TASKS]
    arms = get_arms(wanted.arms, ARMS)
    _warn(wanted, setup, tasks)
    _warn_of_few(wanted, arms)
    if setup.place.folder is None:  # Thousands of documents that nobody will ask about again.
        setup = replace(setup, place=replace(setup.place, folder=results.folder / ADAPTERS))
    with _resumable(results), opened(setup) as engine:
        _work(wanted, engine, results, tasks, arms, command)


@contextmanager
def _usable(output: Path) -> Iterator[None]:
    """Say in one line what the system refuses to do with the output folder."""
    try:
        yield
    except OSError as error:
        path = Path(error.filename) if isinstance(error.filename, str) else None
        if path is None or not (path.is_relative_to(output) or output.is_relative_to(path)):
            raise
        raise StoreError(
            f"--output {output} cannot be used: {error.strerror} ({path}); give a folder that can "
            f"be read and written"
        ) from error


def _check_output(folder: Path) -> None:
    """Refuse a folder that belongs to something else: a report.html of its own would be lost."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"--output is a folder, and {folder} is a file")
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if names - set(_BESIDE) and not names & set(_OURS):
        raise ConfigError(
            f"{folder} holds other things than results of ttt eval; give --output a new folder"
        )


def _warn(wanted: Wanted, setup: Setup, tasks: Sequence[Task]) -> None:
    """Say what will not come out as it is probably meant."""
    foreign = [task.name for task in tasks if task.name not in BUNDLED]
    if setup.model is None and foreign:
        console.note(
            f"note: the bundled model is a toy made for {' and '.join(BUNDLED)}; for "
            f"{', '.join(foreign)} pass a real one, such as --model Qwen/Qwen3-4B"
        )
    fixed = [task.name for task in tasks if not task.unit]
    if wanted.lengths and fixed:
        console.note(f"note: --length is not for {', '.join(fixed)}; its documents are as they are")


def _warn_of_few(wanted: Wanted, arms: Sequence[Arm | Tunable]) -> None:
    """Say beforehand that a run is too small to show anything."""
    from ttt_core.evaluation.analysis.pairing import is_control, reference_of
    from ttt_core.evaluation.analysis.power import fewest_documents

    names = [arm.name for arm in arms]
    compared = [n for n in names if not is_control(n) and n != reference_of(names)]
    documents, fewest = wanted.seeds * wanted.examples, fewest_documents(len(compared))
    if compared and documents < fewest:
        console.note(
            f"note: too small to show a difference: {_count(documents, 'document')} a task, where "
            f"comparing {_count(len(compared), 'arm')} takes {fewest} at least (--seeds x "
            f"--examples)"
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


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

    begun: list[str] = []
    with console.Bars() as bars:

        def advanced(advance: Advance) -> None:
            _show(bars, advance)
            if advance.key and not begun:  # Who finds nothing to do, or bad data, measured nothing.
                results.add_run(run_record(engine, command))
                begun.append(command)

        runner = Runner(
            engine,
            results,
            on_advance=advanced,
            retry_failed=wanted.retry_failed,
        )
        jobs = tuple(_job(wanted, runner, results, task, arms) for task in tasks)
        plan = Plan(jobs, seeds=tuple(range(wanted.seeds)), examples=wanted.examples)
        before = runner.state(plan)
        console.status(
            f"{before.total:,} cells (one document, one way to answer); {before.done:,} are there "
            f"already. Ctrl-C stops; the same command goes on"
        )
        done = runner.run(plan)
    results.finish()
    if done.failed:
        console.note(
            f"note: {done.failed:,} of {done.total:,} cells failed; --retry-failed tries again"
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
def _resumable(results: Results) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        there = len(results.cells())
        raise KeyboardInterrupt(
            f"{there:,} cells are done and kept in {results.folder}; run the same command again "
            f"to go on"
        ) from None


def _report(results: Results, *, as_json: bool) -> None:
    from ttt_core.evaluation.report import gather, write_findings

    with console.waiting("writing the report"):
        findings = gather(results.folder)
        try:
            written = write_findings(findings, results.folder)
        except OSError as error:
            raise StoreError(
                f"the report cannot be written to {results.folder} ({error.strerror}); the "
                f"results are kept: ttt eval --report-only --output {results.folder}"
            ) from error
    if as_json:
        console.write_json(eval_show.as_json(findings, written))
    else:
        eval_show.show(findings, written)
