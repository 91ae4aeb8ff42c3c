"""`ttt store rm`: remove the adapters that are named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from ttt_core.cli import console, options
from ttt_core.cli.failures import UsageProblem, reported
from ttt_core.cli.place import NamespaceName, Place, Store
from ttt_core.cli.sizes import format_size
from ttt_core.cli.store.entries import SHORT, amount, bytes_json, file_json, find, told
from ttt_core.errors import StoreError
from ttt_core.files import Usage
from ttt_core.prefix_store import PrefixStore, prefix_store_path
from ttt_core.store import AdapterStore
from ttt_core.store.folder import FileEntry
from ttt_core.store.view import StoreView


def rm(
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY...", help="Keys, or at least 4 digits of each."),
    ] = None,
    all_: Annotated[
        bool,
        typer.Option(
            "--all",
            help="All of the namespace: adapters, damaged ones too, and keys and values.",
        ),
    ] = False,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="What was set aside as damaged.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before --all.")] = False,
    store: Store = None,
    namespace: NamespaceName = None,
    as_json: options.AsJson = False,
) -> None:
    """Remove adapters from the folder, in use or not, with the names that were given to them.

    A remote store keeps its copies, and what other versions of this package keep stays: ttt store
    names it. Keys and values (--keep-kv) go with --all only: nothing says
    which of them belong to which adapter.

    Whoever has an adapter loaded goes on with it. The next question about its document
    adapts again, or fetches the adapter from the remote.
    """
    with reported(as_json=as_json):
        if not (keys or all_ or damaged):
            raise UsageProblem("what is to be removed? Give a KEY, or --all, or --damaged")
        if keys and all_:
            raise UsageProblem("either name keys, or remove --all")
        opened = Place(store, namespace).open()
        entries = opened.entries()
        chosen = _choose(entries, keys or [], everything=all_)
        if all_ and not yes and entries:
            _ask(opened, entries, as_json=as_json)
        view, kept = StoreView(opened), Usage(0, 0)
        if all_:
            view.clear()
            opened.forget_uploads()
            kept = _clear_kept(opened)
        else:
            view.remove([entry.key for entry in chosen])
        if damaged or all_:
            chosen += opened.remove_damaged()
        _tell(chosen, kept, as_json=as_json)


def _choose(
    entries: Sequence[FileEntry], prefixes: Sequence[str], *, everything: bool
) -> list[FileEntry]:
    """Return the whole adapters that are meant, each once; all are found before any goes."""
    whole = [entry for entry in entries if not entry.damaged]
    if everything:
        return whole
    found = [find(entries, prefix) for prefix in prefixes]
    for entry in found:
        if entry.damaged:
            raise StoreError(
                f"{entry.key[:SHORT]} was set aside as damaged; --damaged removes all that were"
            )
    return list(dict.fromkeys(found))


def _ask(store: AdapterStore, entries: Sequence[FileEntry], *, as_json: bool) -> None:
    what = f"all of namespace {store.namespace.name} ({amount(entries)})"
    if as_json or not console.can_ask():
        raise UsageProblem(f"this would remove {what}; add --yes to do it")
    if not console.ask(f"Remove {what}?"):
        console.note("nothing was removed")
        raise typer.Exit(1)


def _clear_kept(store: AdapterStore) -> Usage:
    """Remove the keys and values that were kept for the namespace's documents."""
    path = prefix_store_path(store.path)
    try:
        return PrefixStore(path, max_bytes=0).clear(store.namespace.folder)
    except OSError as error:
        raise StoreError(f"cannot remove from {path}: {error.strerror}") from None


def _tell(removed: Sequence[FileEntry], kept: Usage, *, as_json: bool) -> None:
    if as_json:
        keys_and_values = {"files": kept.files, "bytes": kept.bytes}
        files = {"removed": list(map(file_json, removed)), **bytes_json(removed)}
        console.write_json({**files, "kv": keys_and_values})
        return
    console.show(told("removed", removed))
    if kept.files:
        documents = "document" if kept.files == 1 else "documents"
        console.show(
            f"removed keys and values of {kept.files:,} {documents}, {format_size(kept.bytes)}"
        )
