"""`ttt store export` and `import`: adapters as folders that PEFT loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ttt_core.cli import console, options
from ttt_core.cli.failures import UsageProblem, reported
from ttt_core.cli.place import NamespaceName, Place, Remote, Store, StoreLimit, warn_of_pending
from ttt_core.cli.store.entries import Key, find
from ttt_core.errors import StoreError

_BASE_KV = (
    "note: the base model has to read the document, with the adapter off; a server that reads it "
    "with the adapter on computes something else (qttt.json says more)"
)


def export(
    key: Key,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New, or empty.")],
    rank: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of an adapter that is no LoRA: how close to come to it."),
    ] = None,
    alora_invocation: Annotated[
        str | None,
        typer.Option(
            metavar="TOKENS",
            help='Token ids (1,2,3) that turn the adapter on: an "activated LoRA".',
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export.")
    ] = False,
    store: Store = None,
    namespace: NamespaceName = None,
    as_json: options.AsJson = False,
) -> None:
    """Write an adapter to a folder that PEFT loads."""
    with reported(as_json=as_json):
        tokens = None if alora_invocation is None else _tokens(alora_invocation)
        if not overwrite:
            _refuse_full(folder)
        opened = Place(store, namespace).open()
        entry = find(opened.entries(), key)
        report = opened.export(
            entry.key,
            folder,
            rank=rank,
            alora_invocation_tokens=tokens,
            overwrite=overwrite,
        )
        if as_json:
            console.write_json(report.model_dump(mode="json"))
            return
        exact = "exactly what was trained" if report.exact else _error(report.relative_error)
        console.write(f"{report.folder}: a LoRA of rank {report.rank}, {exact}\n")
        console.note(_BASE_KV)


def import_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What export wrote.")],
    store: Store = None,
    namespace: NamespaceName = None,
    remote: Remote = None,
    store_limit: StoreLimit = None,
    as_json: options.AsJson = False,
) -> None:
    """Put an exported adapter into the store, for the document and model that it was made for."""
    with reported(as_json=as_json):
        opened = Place(store, namespace, remote, store_limit).open()
        try:
            key, new = opened.import_(folder)
        finally:
            opened.close()
        if as_json:
            console.write_json({"key": key, "imported": new})
        else:
            console.write(f"{'imported' if new else 'here already:'} {key}\n")
        if remote:
            warn_of_pending(opened)


def _tokens(text: str) -> list[int]:
    try:
        return [int(token) for token in text.split(",")]
    except ValueError:
        raise UsageProblem(
            f"--alora-invocation takes token ids such as 1,2,3, not {text!r}"
        ) from None


def _error(relative: float) -> str:
    return f"which misses {relative:.1%} of what was trained and cannot be imported"


def _refuse_full(folder: Path) -> None:
    """Name the option, which the store's own refusal could not."""
    try:
        full = any(folder.iterdir())
    except OSError:  # Not there, or cannot be read: writing it will tell.
        full = False
    if full:
        raise StoreError(f"{folder} is not empty; name another folder, or add --overwrite")
