"""`ttt store verify`: read every file, and tell which ones are no longer what was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer
from rich.text import Text

from ttt_core.cli import console, options
from ttt_core.cli.failures import reported
from ttt_core.cli.place import NamespaceName, Place, Store
from ttt_core.cli.store.entries import (
    AllNamespaces,
    amount,
    file_json,
    tenant_json,
    tenant_name,
    tenants,
)
from ttt_core.store import AdapterStore
from ttt_core.store.inventory import Tenant, Verdict


def verify(
    all_namespaces: AllNamespaces = False,
    set_aside: Annotated[
        bool,
        typer.Option(
            "--set-aside",
            help="Rename bad files to *.damaged, so that they are made again and can still be "
            "looked at; those that cannot be read stay.",
        ),
    ] = False,
    store: Store = None,
    namespace: NamespaceName = None,
    as_json: options.AsJson = False,
) -> None:
    """Read every adapter and compare it with its checksum and its key; exit 1 if one is bad.

    Of a sealed namespace, whose secret was not given, only the checksums are compared.
    """
    with reported(as_json=as_json):
        opened = Place(store, namespace).open()
        found = _verify(opened, tenants(opened, everywhere=all_namespaces), set_aside=set_aside)
        if as_json:
            console.write_json(_as_json(found))
        else:
            _print(found, everywhere=all_namespaces)
        if found.bad:
            raise typer.Exit(1)


@dataclass
class _Found:
    files: list[Verdict] = field(default_factory=list)
    bad: list[tuple[Tenant, Verdict]] = field(default_factory=list)
    moved: int = 0


def _verify(store: AdapterStore, owners: Sequence[Tenant], *, set_aside: bool) -> _Found:
    found = _Found()
    listed = [entry for owner in owners for entry in store.entries(folder=owner.folder)]
    total = sum(not entry.damaged for entry in listed)
    with console.Bars() as bars:
        for owner in owners:
            for verdict in store.verify(folder=owner.folder):
                found.files.append(verdict)
                if verdict.problem:
                    found.bad.append((owner, verdict))
                    # At once, and only what was read: the next moment may bring a good one.
                    found.moved += set_aside and _set_aside(store, owner, verdict)
                bars.advance("verifying", len(found.files), max(total, len(found.files)))
    return found


def _set_aside(store: AdapterStore, owner: Tenant, verdict: Verdict) -> bool:
    if verdict.unreadable:  # What it holds may be right.
        return False
    return store.set_aside(verdict.entry.key, folder=owner.folder, inode=verdict.inode)


def _print(found: _Found, *, everywhere: bool) -> None:
    for owner, verdict in found.bad:
        where = f" of {tenant_name(owner)}" if everywhere else ""
        console.show(Text(f"{verdict.entry.key}{where}: {console.plain(verdict.problem or '')}"))
    files = amount([verdict.entry for verdict in found.files])
    sealed = sum(verdict.sealed for verdict in found.files)
    parts = [f"{files} read", f"{len(found.bad):,} bad" if found.bad else "all as written"]
    parts += [f"{sealed:,} sealed, their keys not compared"] if sealed else []
    parts += [f"{found.moved:,} set aside as *.damaged"] if found.moved else []
    console.show(Text("; ".join(parts)))


def _as_json(found: _Found) -> dict[str, Any]:
    return {
        "files": len(found.files),
        "bytes": sum(verdict.entry.bytes for verdict in found.files),
        "sealed": sum(verdict.sealed for verdict in found.files),
        "bad": [
            {
                **file_json(verdict.entry),
                "namespace": tenant_json(owner),
                "problem": verdict.problem,
                "unreadable": verdict.unreadable,
            }
            for owner, verdict in found.bad
        ],
        "set_aside": found.moved,
    }
