"""`ttt store upload`: bring a remote what it has not got yet, or give that up."""

from __future__ import annotations

from typing import Annotated

import typer

from ttt_core.cli import console, options
from ttt_core.cli.failures import UsageProblem, reported
from ttt_core.cli.place import NamespaceName, Place, Remote, Store
from ttt_core.store import AdapterStore


def upload(
    context: typer.Context,
    remote: Remote = None,
    forget: Annotated[
        bool,
        typer.Option(
            "--forget",
            help="Upload nothing; of the namespace, nothing waits for any remote any more.",
        ),
    ] = False,
    all_: Annotated[
        bool,
        typer.Option(
            "--all", help="All of the namespace, also what was there before the remote was."
        ),
    ] = False,
    store: Store = None,
    namespace: NamespaceName = None,
    as_json: options.AsJson = False,
) -> None:
    """Upload the adapters, of all namespaces, that wait for a remote.

    They wait if the remote was down when they were made, and are not evicted until it has them.
    If it is not to have them at all, --forget ends that; the adapters stay. What was made before
    there was a remote does not wait: --all uploads that, too.

    Exit code 1 if some are left.
    """
    with reported(as_json=as_json):
        if forget:
            _refuse_remote(context)
            _forget(Place(store, namespace).open(), as_json=as_json)
        elif remote is None:
            raise UsageProblem("upload to where? Give --remote URL, or --forget")
        else:
            opened = Place(store, namespace, remote).open()
            if all_:
                opened.announce_all()
            _upload(opened, as_json=as_json)


def _refuse_remote(context: typer.Context) -> None:
    """Refuse an URL next to `--forget`; $TTT_REMOTE is meant for other commands, too."""
    source = context.get_parameter_source("remote")
    if source is not None and source.name == "COMMANDLINE":
        raise UsageProblem("--forget gives up what waits for any remote; leave --remote out")


def _upload(store: AdapterStore, *, as_json: bool) -> None:
    uploaded: list[str] = []
    with console.waiting("uploading"):
        left = store.drain(on_upload=uploaded.append)
    if as_json:
        console.write_json({"uploaded": len(uploaded), "left": left})
    else:
        rest = f"; {left:,} left, which still wait" if left else ""
        console.write(f"uploaded {_adapters(len(uploaded))}{rest}\n")
    if left:
        raise typer.Exit(1)


def _forget(store: AdapterStore, *, as_json: bool) -> None:
    forgotten = store.forget_uploads()
    if as_json:
        console.write_json({"forgotten": forgotten})
    else:
        uploads = "upload" if forgotten == 1 else "uploads"
        console.write(f"gave up {forgotten:,} {uploads}; the adapters stay\n")


def _adapters(number: int) -> str:
    return f"{number:,} {'adapter' if number == 1 else 'adapters'}"
