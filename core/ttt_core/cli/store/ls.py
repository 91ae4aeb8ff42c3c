"""`ttt store ls`: the adapters that are kept, a line each; reads headers of what it shows only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from ttt_core.cli import console, options
from ttt_core.cli.failures import UsageProblem, reported
from ttt_core.cli.place import NamespaceName, Place, Store
from ttt_core.cli.sizes import format_age, format_size
from ttt_core.cli.store.entries import (
    SHORT,
    AllNamespaces,
    file_json,
    tenant_json,
    tenant_name,
    tenants,
)
from ttt_core.errors import StoreError
from ttt_core.sandbox import bundled_model_path
from ttt_core.store import AdapterStore
from ttt_core.store.folder import FileEntry
from ttt_core.store.format import Metadata
from ttt_core.store.inventory import Tenant

_DECISIONS = {"adapted": "adapted", "kept_base": "base"}


def ls(
    limit: Annotated[
        int, typer.Option(metavar="N", help="Show at most so many, those used last first.")
    ] = 20,
    all_: Annotated[bool, typer.Option("--all", help="Show all.")] = False,
    all_namespaces: AllNamespaces = False,
    store: Store = None,
    namespace: NamespaceName = None,
    as_json: options.AsJson = False,
) -> None:
    """List adapters, those used last first."""
    with reported(as_json=as_json):
        if limit < 1:
            raise UsageProblem("--limit is at least 1; --all shows all")
        opened = Place(store, namespace).open()
        found = _list(opened, everywhere=all_namespaces)
        rows = [_look(opened, *one) for one in (found if all_ else found[:limit])]
        if as_json:
            console.write_json(
                {"path": str(opened.path), "total": len(found), "entries": list(map(_json, rows))}
            )
        else:
            _print(opened, rows, len(found), everywhere=all_namespaces)


@dataclass(frozen=True)
class _Row:
    tenant: Tenant
    entry: FileEntry
    about: Metadata | None
    """None: damaged, or unreadable."""
    unreadable: bool = False


def _list(store: AdapterStore, *, everywhere: bool) -> list[tuple[Tenant, FileEntry]]:
    """List files by name and time only."""
    found = [
        (tenant, entry)
        for tenant in tenants(store, everywhere=everywhere)
        for entry in _entries(store, tenant)
    ]
    return sorted(found, key=lambda pair: -pair[1].used)


def _entries(store: AdapterStore, tenant: Tenant) -> list[FileEntry]:
    # What is wrong with the folder is an error, and not one of each file.
    store.check(folder=tenant.folder)
    return store.entries(folder=tenant.folder)


def _look(store: AdapterStore, tenant: Tenant, entry: FileEntry) -> _Row:
    try:
        header = None if entry.damaged else store.header(entry.key, folder=tenant.folder)
    except StoreError:
        return _Row(tenant, entry, None, unreadable=True)
    return _Row(tenant, entry, header.metadata if header else None)


def _print(store: AdapterStore, rows: Sequence[_Row], total: int, *, everywhere: bool) -> None:
    where = f"in {store.path}" if everywhere else f"of namespace {store.namespace.name}"
    if not rows:
        console.show(Text(f"no adapters {where}"))
        return
    console.show(_table(rows, everywhere=everywhere))
    if len(rows) < total:
        console.show(Text(f"and {total - len(rows):,} more {where}; --all shows all", "dim"))


def _table(rows: Sequence[_Row], *, everywhere: bool) -> Table:
    names = ["key", "namespace", "tokens", "decision", "model", "size", "age", "unused"]
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    for name in names:
        if name != "namespace" or everywhere:
            right = name in ("tokens", "size", "age", "unused")
            # On a narrow terminal names take two lines; nothing is cut.
            folds = name in ("namespace", "model")
            table.add_column(
                name,
                justify="right" if right else "left",
                no_wrap=not folds,
                overflow="fold",
            )
    now = time.time()
    for row in rows:
        table.add_row(*(Text(cell) for cell in _cells(row, now, everywhere=everywhere)))
    return table


def _cells(row: _Row, now: float, *, everywhere: bool) -> list[str]:
    about, entry = row.about, row.entry
    return [
        entry.key[:SHORT],
        *([tenant_name(row.tenant)] if everywhere else []),
        f"{about.report.document_tokens:,}" if about else "",
        _DECISIONS[about.report.decision] if about else _failure(row),
        _short_model(about.base_model) if about else "",
        format_size(entry.bytes),
        format_age(now - about.created.timestamp()) if about else "",
        format_age(now - entry.used),
    ]


def _failure(row: _Row) -> str:
    return "unreadable" if row.unreadable else "damaged"


def _short_model(name: str) -> str:
    """Keep a Hub id as it is, and the last part of a folder."""
    if name == str(bundled_model_path()):
        return "bundled"
    name = console.plain(name)
    return name if name.count("/") == 1 and not name.startswith((".", "/")) else PurePath(name).name


def _json(row: _Row) -> dict[str, Any]:
    about = row.about
    return {
        **file_json(row.entry),
        "namespace": tenant_json(row.tenant),
        "readable": about is not None,
        "created": about.created.isoformat() if about else None,
        "document_tokens": about.report.document_tokens if about else None,
        "decision": about.report.decision if about else None,
        "parametrization": about.report.parametrization if about else None,
        "supervision": about.report.supervision if about else None,
        "base_model": about.base_model if about else None,
    }
