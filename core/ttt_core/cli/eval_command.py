"""The command `ttt eval` and its options. Light: what needs torch is imported when it is used."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ttt_core.cli import options, place
from ttt_core.cli.failures import reported


def evaluate(
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=DATA]",
            help="A task, or a benchmark and its data: a file, a folder, or hub:owner/name. Can "
            "be repeated.",
            show_default="registry",
        ),
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:OPTION=VALUE,...]",
            help="A way to answer. Values with / between them are chosen from, on data that are "
            "not scored. Can be repeated.",
            show_default="in-context, qttt, bm25, lr-zero, chance",
        ),
    ] = None,
    length: Annotated[
        list[int] | None,
        typer.Option(
            metavar="NUMBER",
            help="In the task's unit. Can be repeated.",
            show_default="the task's own",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many; each has other documents.")] = 3,
    examples: Annotated[
        int, typer.Option(min=1, help="Documents for each task, length and seed.")
    ] = 2,
    tune_examples: Annotated[
        int, typer.Option(min=1, help="Documents for each task and length to choose options on.")
    ] = 4,
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where results and report are.")
    ] = Path("ttt-eval"),
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed in an earlier run.")
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Compute nothing; write the report again.")
    ] = False,
    list_names: Annotated[
        bool, typer.Option("--list", help="List tasks, benchmarks and arms, and leave.")
    ] = False,
    as_json: options.AsJson = False,
    model: options.Model = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    store: place.Store = None,
    namespace: place.NamespaceName = None,
) -> None:
    """Measure whether adapting helps: tasks x arms x lengths, and a report with a verdict.

    Run it again to go on where it stopped; start it twice to share the work. Adapters are kept
    below the output folder, unless --store says otherwise.
    """
    from ttt_core.cli import evaluate as evaluating

    with reported(as_json=as_json):
        if list_names:
            evaluating.list_all()
            return
        wanted = evaluating.Wanted(
            tasks=tuple(task or evaluating.TASKS),
            arms=tuple(arm or evaluating.ARMS),
            lengths=tuple(length or ()),
            seeds=seeds,
            examples=examples,
            tune_examples=tune_examples,
            retry_failed=retry_failed,
        )
        setup = options.Setup(
            model=model, device=device, dtype=dtype, place=place.Place(store, namespace)
        )
        evaluating.evaluate(
            wanted,
            setup,
            output,
            command=shlex.join(["ttt", *sys.argv[1:]]),
            report_only=report_only,
            as_json=as_json,
        )
