"""The command `ttt eval` and its options. Light: what needs torch is imported when it is used."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ttt_core.cli import options, place
from ttt_core.cli.eval_defaults import ARMS, EXAMPLES, SEEDS, TASKS
from ttt_core.cli.failures import reported
from ttt_core.cli.typed import typed


def evaluate(
    context: typer.Context,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=DATA]",
            help="A task, or a benchmark and its data: a file, a folder, or hub:owner/name "
            "(ttt eval --list says which there are). Can be repeated.",
            show_default=", ".join(TASKS),
        ),
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:OPTION=VALUE,...]",
            help="A way to answer, such as qttt:steps=16 (see --list). Of several values, as in "
            "qttt:steps=16/48, the best is chosen on documents that are not scored. Can be "
            "repeated.",
            show_default=", ".join(ARMS),
        ),
    ] = None,
    length: Annotated[
        list[int] | None,
        typer.Option(
            metavar="NUMBER",
            help="How long documents are, in the task's unit, such as lines (see --list). Can be "
            "repeated.",
            show_default="the task's own",
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(min=1, metavar="NUMBER", help="How many draws of documents; each has others."),
    ] = SEEDS,
    examples: Annotated[
        int,
        typer.Option(
            min=1, metavar="NUMBER", help="Documents for each task and length in each draw."
        ),
    ] = EXAMPLES,
    tune_examples: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="NUMBER",
            help="Further documents for each task and length, on which --arm's open values are "
            "chosen.",
        ),
    ] = 4,
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where results and report are kept.")
    ] = Path("ttt-eval"),
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed in an earlier run.")
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Compute nothing; write the report again.")
    ] = False,
    list_names: Annotated[
        bool,
        typer.Option(
            "--list", help="List tasks, benchmarks with where their data are, and arms; then leave."
        ),
    ] = False,
    as_json: options.AsJson = False,
    model: options.Model = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where adapters are kept.",
            show_default="adapters/ in the output folder",
            rich_help_panel=place.KEEPING,
        ),
    ] = None,
    namespace: place.NamespaceName = None,
) -> None:
    """Measure whether adapting helps, and write a report that says so or not.

    Each task's questions are answered in several ways (arms), on documents of several lengths.
    Without options the bundled toy model is measured, which takes about an hour on two cores.

    Run it again to go on where it stopped; start it twice to share the work.
    """
    from ttt_core.cli import evaluate as evaluating
    from ttt_core.cli.eval_names import list_all

    with reported(as_json=as_json):
        if list_names:
            list_all(as_json=as_json)
            return
        wanted = evaluating.Wanted(
            tasks=tuple(task or ()),
            arms=tuple(arm or ()),
            lengths=tuple(dict.fromkeys(length or ())),
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
            command=shlex.join(["ttt", *typed(context)]),
            report_only=report_only,
            as_json=as_json,
        )
