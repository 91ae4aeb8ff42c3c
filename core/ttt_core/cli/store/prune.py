"""`ttt store prune`: remove what is too much, or too old, or damaged."""

from __future__ import annotations

from typing import Annotated

import typer

from ttt_core.cli import console, options
from ttt_core.cli.failures import UsageProblem, reported
from ttt_core.cli.place import NamespaceName, Place, Store
from ttt_core.cli.sizes import parse_age, parse_size
from ttt_core.cli.store.entries import file_json, told
from ttt_core.store import AdapterStore
from ttt_core.store.eviction import Limits, Pruned


def prune(
    max_bytes: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Keep so many bytes (5GiB), used least recently go."),
    ] = None,
    max_age: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Keep what was used so recently: 30d, 12h."),
    ] = None,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Keep nothing that was set aside as damaged.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    store: Store = None,
    namespace: NamespaceName = None,
    as_json: options.AsJson = False,
) -> None:
    """Remove the adapters of a namespace that are over a limit.

    What a process has in use stays, and so does what waits to be uploaded.
    A remote store keeps its copies.
    """
    with reported(as_json=as_json):
        limits = Limits(
            None if max_bytes is None else parse_size(max_bytes, option="--max-bytes"),
            None if max_age is None else parse_age(max_age, option="--max-age"),
        )
        if limits == Limits() and not damaged:
            raise UsageProblem("give a limit: --max-bytes SIZE, --max-age AGE, or --damaged")
        pruned = _prune(Place(store, namespace).open(), limits, damaged=damaged, dry_run=dry_run)
        _tell(pruned, dry_run=dry_run, as_json=as_json)


def _prune(store: AdapterStore, limits: Limits, *, damaged: bool, dry_run: bool) -> Pruned:
    gone = store.remove_damaged(dry_run=dry_run) if damaged else []
    if limits == Limits():
        return Pruned(tuple(gone))
    pruned = store.prune(max_bytes=limits.max_bytes, max_age=limits.max_age, dry_run=dry_run)
    # What would go for being damaged may be over the limits, too.
    removed = dict.fromkeys((*gone, *pruned.removed))
    return Pruned(tuple(removed), pruned.kept_in_use)


def _tell(pruned: Pruned, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        console.write_json(
            {
                "dry_run": dry_run,
                "removed": list(map(file_json, pruned.removed)),
                "kept": list(map(file_json, pruned.kept_in_use)),
                "bytes": pruned.bytes,
            }
        )
        return
    console.show(told("would remove" if dry_run else "removed", pruned.removed))
    if pruned.kept_in_use:
        console.show(told("kept, since in use or not yet uploaded:", pruned.kept_in_use))
