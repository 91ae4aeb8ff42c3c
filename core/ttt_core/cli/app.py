"""The commands of `ttt` and their options. Light: what needs torch is imported when it is used."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from ttt_core import __version__
from ttt_core.cli import options, place
from ttt_core.cli.eval_command import evaluate
from ttt_core.cli.failures import reported
from ttt_core.cli.inputs import check_names, sort_arguments
from ttt_core.cli.store import app as store_app
from ttt_core.cli.typed import TypedGroup

app = typer.Typer(
    cls=TypedGroup,
    help="Read a document once, sharpen a local model's queries on it, answer many questions.",
    no_args_is_help=True,
    add_completion=False,
    # A bug should show a plain traceback that can be pasted into an issue.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(store_app, name="store")


def run() -> int:
    """Run the command line of this process and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # A narrow encoding must not lose a long computed answer.
            reconfigure(errors="replace")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    try:
        app(prog_name="ttt")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ttt {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Hold the options of `ttt` itself."""


@app.command()
def ask(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar='FILE... ["QUESTION"]',
            help="Text, Markdown or source files (- is stdin), then the question.",
        ),
    ],
    question: Annotated[
        list[str] | None,
        typer.Option("--question", "-q", metavar="TEXT", help="A question; can be repeated."),
    ] = None,
    system: options.System = None,
    on_overflow: options.OnOverflow = "error",
    as_json: options.AsJson = False,
    model: options.Model = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    no_adapt: options.NoAdapt = False,
    steps: options.Steps = None,
    learning_rate: options.LearningRate = None,
    supervision: options.Supervision = None,
    parametrization: options.Parametrize = None,
    no_gate: options.NoGate = False,
    store: place.Store = None,
    namespace: place.NamespaceName = None,
    remote: place.Remote = None,
    store_limit: place.StoreLimit = None,
    keep_kv: options.KeepKV = None,
    max_new_tokens: options.MaxNewTokens = None,
    temperature: options.Temperature = 0.0,
    seed: options.SamplingSeed = None,
) -> None:
    """Answer questions on a document, which is read and adapted to once.

    Without a question it asks for one after another; questions can also be piped in, one a line.
    """
    from ttt_core.cli import ask as asking

    with reported(as_json=as_json):
        inputs = sort_arguments(arguments, question or [])
        recipe = options.adaptation_config(
            steps=steps,
            learning_rate=learning_rate,
            supervision=supervision,
            parametrization=parametrization,
            no_gate=no_gate,
        )
        setup = options.Setup(
            model=model,
            device=device,
            dtype=dtype,
            system=system,
            runtime=options.runtime_config(keep_kv=keep_kv, on_overflow=on_overflow),
            adaptation=None if no_adapt else recipe,
            place=place.Place(store, namespace, remote, store_limit),
        )
        decoding = options.generation_config(
            max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
        )
        asking.ask(inputs, setup, decoding, as_json=as_json)


@app.command()
def adapt(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Text, Markdown or source files (- is stdin)."),
    ],
    each: Annotated[bool, typer.Option("--each", help="Adapt to each file by itself.")] = False,
    system: options.System = None,
    on_overflow: options.OnOverflow = "error",
    as_json: options.AsJson = False,
    model: options.Model = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    steps: options.Steps = None,
    learning_rate: options.LearningRate = None,
    supervision: options.Supervision = None,
    parametrization: options.Parametrize = None,
    no_gate: options.NoGate = False,
    store: place.Store = None,
    namespace: place.NamespaceName = None,
    remote: place.Remote = None,
    store_limit: place.StoreLimit = None,
    keep_kv: options.KeepKV = None,
) -> None:
    """Adapt to a document ahead of the first question, and report what it brought.

    Several files are read as one document, or, with --each, as one document each.
    """
    from ttt_core.cli import adapt as adapting

    with reported(as_json=as_json):
        check_names(files)
        setup = options.Setup(
            model=model,
            device=device,
            dtype=dtype,
            system=system,
            runtime=options.runtime_config(keep_kv=keep_kv, on_overflow=on_overflow),
            adaptation=options.adaptation_config(
                steps=steps,
                learning_rate=learning_rate,
                supervision=supervision,
                parametrization=parametrization,
                no_gate=no_gate,
            ),
            place=place.Place(store, namespace, remote, store_limit),
        )
        command = adapting.adapt_each if each else adapting.adapt
        command(files, setup, as_json=as_json)


@app.command()
def demo(
    lines: Annotated[int, typer.Option(help="Length of the document.")] = 1024,
    questions: Annotated[int, typer.Option(help="How many questions to ask.")] = 32,
    seed: Annotated[int, typer.Option(help="Another seed writes another document.")] = 0,
    as_json: options.AsJson = False,
    model: options.Model = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    store: place.Store = None,
    namespace: place.NamespaceName = None,
    remote: place.Remote = None,
    store_limit: place.StoreLimit = None,
) -> None:
    """Show what adapting brings, on a long generated document; about a minute on two cores."""
    from ttt_core.cli import demo as showing

    with reported(as_json=as_json):
        setup = options.Setup(
            model=model,
            device=device,
            dtype=dtype,
            place=place.Place(store, namespace, remote, store_limit),
        )
        showing.demo(setup, lines=lines, questions=questions, seed=seed, as_json=as_json)


@app.command()
def diagnose(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar='FILE... "QUESTION"',
            help="Text, Markdown or source files (- is stdin), then the question.",
        ),
    ],
    needle: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="A piece of the document that the answer rests on, copied from it; can be "
            "repeated. Default: the passages that share most words with the question.",
        ),
    ] = None,
    answer: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="The true answer; attention is measured at each of its tokens.",
            show_default="the model's own, if the needle holds it",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Write a page with figures that needs no network."),
    ] = None,
    no_dilution: Annotated[
        bool,
        typer.Option("--no-dilution", help="Do not measure on pieces of the document as well."),
    ] = False,
    question: Annotated[
        list[str] | None,
        typer.Option("--question", "-q", metavar="TEXT", help="The question."),
    ] = None,
    system: options.System = None,
    on_overflow: options.OnOverflow = "error",
    as_json: options.AsJson = False,
    model: options.Model = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    no_adapt: options.NoAdapt = False,
    steps: options.Steps = None,
    learning_rate: options.LearningRate = None,
    supervision: options.Supervision = None,
    parametrization: options.Parametrize = None,
    no_gate: options.NoGate = False,
    store: place.Store = None,
    namespace: place.NamespaceName = None,
    remote: place.Remote = None,
    store_limit: place.StoreLimit = None,
    keep_kv: options.KeepKV = None,
    max_new_tokens: options.MaxNewTokens = None,
) -> None:
    """Show what adapting does to the attention on what an answer rests on, by layer and head.

    Measures before and after, and on ever longer pieces of the document.
    """
    from ttt_core.cli import diagnose as diagnosing

    with reported(as_json=as_json):
        inputs = sort_arguments(arguments, question or [])
        recipe = options.adaptation_config(
            steps=steps,
            learning_rate=learning_rate,
            supervision=supervision,
            parametrization=parametrization,
            no_gate=no_gate,
        )
        setup = options.Setup(
            model=model,
            device=device,
            dtype=dtype,
            system=system,
            runtime=options.runtime_config(keep_kv=keep_kv, on_overflow=on_overflow),
            adaptation=None if no_adapt else recipe,
            place=place.Place(store, namespace, remote, store_limit),
        )
        decoding = options.generation_config(
            max_new_tokens=max_new_tokens, temperature=0.0, seed=None
        )
        wanted = diagnosing.Wanted(tuple(needle or ()), answer, not no_dilution, html)
        diagnosing.diagnose(inputs, setup, decoding, wanted, as_json=as_json)


app.command("eval")(evaluate)
