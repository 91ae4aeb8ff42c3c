"""What the commands on the store share: finding an adapter by the beginning of its key, naming."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Annotated, Any

import typer
from rich.text import Text

from ttt_core.cli.failures import UsageProblem
from ttt_core.cli.sizes import format_age, format_size
from ttt_core.errors import StoreError
from ttt_core.store import AdapterStore
from ttt_core.store.folder import FileEntry
from ttt_core.store.inventory import Tenant

SHORT = 12
"""Hexadecimal digits that tell adapters apart: of a million, two agree once in five hundred."""

_MOST_NAMED = 20
_PREFIX = re.compile(r"[0-9a-f]{4,64}")

Key = Annotated[
    str,
    typer.Argument(metavar="KEY", help="A key, or at least 4 digits that it begins with."),
]
AllNamespaces = Annotated[
    bool, typer.Option("--all-namespaces", help="Those of all namespaces in the store.")
]


def find(entries: Iterable[FileEntry], prefix: str) -> FileEntry:
    """Return the one entry whose key begins with `prefix`.

    Args:
        entries: Those to choose from; a damaged one is found if there is no other of its key.
        prefix: What was typed.

    Raises:
        UsageProblem: It is no beginning of a key.
        StoreError: There is no such entry, or more than one.
    """
    wanted = prefix.strip().lower()
    if not _PREFIX.fullmatch(wanted):
        raise UsageProblem(f"KEY is hexadecimal digits, 4 to 64 of them, not {prefix!r}")
    matching = [entry for entry in entries if entry.key.startswith(wanted)]
    if not matching:
        raise StoreError(f"no key begins with {wanted}; ttt store ls shows those of a namespace")
    keys = {entry.key for entry in matching}
    if len(keys) > 1:
        some = ", ".join(sorted(key[:SHORT] for key in keys)[:3])
        more = f" and {len(keys) - 3:,} more" if len(keys) > 3 else ""
        raise StoreError(f"{len(keys):,} keys begin with {wanted} ({some}{more}); give more digits")
    return min(matching, key=lambda entry: entry.damaged)


def tenants(store: AdapterStore, *, everywhere: bool) -> list[Tenant]:
    """Return the store's namespace, or all that there are."""
    folders = store.namespaces() if everywhere else [store.namespace.folder]
    return [store.tenant(folder) for folder in folders]


def tenant_name(tenant: Tenant) -> str:
    """Name a namespace for a person."""
    if tenant.name is None:
        return tenant.folder[:SHORT]
    return f"{tenant.name} (sealed)" if tenant.sealed else tenant.name


def tenant_json(tenant: Tenant) -> dict[str, Any]:
    """Name a namespace for a script."""
    return {"name": tenant.name, "folder": tenant.folder, "sealed": tenant.sealed}


def file_json(entry: FileEntry) -> dict[str, Any]:
    """Tell what can be told of a file without opening it."""
    return {
        "key": entry.key,
        "path": str(entry.path),
        "bytes": entry.bytes,
        "last_used": datetime.fromtimestamp(entry.used, timezone.utc).isoformat(),
        "damaged": entry.damaged,
    }


def amount(entries: Sequence[FileEntry], noun: str = "file") -> str:
    """Write how many there are, and how large they are."""
    size = format_size(sum(entry.bytes for entry in entries))
    return f"{len(entries):,} {noun}{'' if len(entries) == 1 else 's'}, {size}"


def bytes_json(entries: Sequence[FileEntry]) -> dict[str, int]:
    """Tell what is free now, for a script."""
    return {"bytes": sum(entry.bytes for entry in entries)}


def told(verb: str, entries: Sequence[FileEntry]) -> Text:
    """Say what was done to which files; many are only counted."""
    text = Text(f"{verb} {amount(entries)}")
    now = time.time()
    for entry in entries if len(entries) <= _MOST_NAMED else ():
        what = "damaged" if entry.damaged else f"used {format_age(now - entry.used)} ago"
        text.append(f"\n  {entry.key}  ").append(what, "dim")
    return text
