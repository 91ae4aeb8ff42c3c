"""`ttt store` alone: how much is kept where, and how much of it may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from ttt_core.cli import console, options
from ttt_core.cli.failures import UsageProblem, reported
from ttt_core.cli.place import NamespaceName, Place, Store, StoreLimit, show_limit
from ttt_core.cli.report import fact_table
from ttt_core.cli.sizes import format_size
from ttt_core.cli.store.entries import amount, tenant_json, tenant_name
from ttt_core.config import RuntimeConfig
from ttt_core.limits import KVLimits, kv_limits
from ttt_core.namespace import DEFAULT_NAME
from ttt_core.prefix_store import PrefixStore, prefix_store_path
from ttt_core.store import AdapterStore
from ttt_core.store.folder import FileEntry, other_versions

_MOST = 10
"""Namespaces that are named to a person: the largest."""


def summary(
    context: typer.Context,
    store: Store = None,
    namespace: NamespaceName = None,
    store_limit: StoreLimit = None,
    keep_kv: options.KeepKV = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what is kept of documents, and look after it.

    Without a command: how much is kept where, and how much of it may be.
    """
    with reported(as_json=as_json):
        if context.invoked_subcommand is not None:
            _refuse_options(context)
            return
        place = Place(store, namespace, limit=store_limit)
        found = _look(place.open(), options.runtime_config(keep_kv=keep_kv))
        if as_json:
            console.write_json(_as_json(found))
        else:
            console.show(fact_table(_facts(found)))


def _refuse_options(context: typer.Context) -> None:
    """Refuse options between `store` and a command, which would be for nothing there."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            raise UsageProblem(
                f"options go behind the command: "
                f"ttt store {context.invoked_subcommand} {parameter.opts[0]}"
            )


@dataclass(frozen=True)
class _Found:
    """All that the summary tells."""

    store: AdapterStore
    folders: dict[str, list[FileEntry]]
    """Files by the digest of their namespace."""
    kv: PrefixStore
    config: RuntimeConfig
    limits: KVLimits

    @property
    def adapters(self) -> dict[str, int]:
        """What the namespace keeps."""
        return _usage(self.folders.get(self.store.namespace.folder, []))

    @property
    def damaged(self) -> list[FileEntry]:
        """What was set aside, of all namespaces."""
        return [entry for entries in self.folders.values() for entry in entries if entry.damaged]

    @property
    def other_versions(self) -> list[Path]:
        """What no command here removes; keys and values say what documents say, in any version."""
        return [*other_versions(self.store.path), *self.kv.other_versions()]


def _look(store: AdapterStore, config: RuntimeConfig) -> _Found:
    folders = {folder: store.entries(folder=folder) for folder in store.namespaces()}
    return _Found(
        store=store,
        folders={folder: entries for folder, entries in folders.items() if entries},
        kv=PrefixStore(prefix_store_path(store.path), max_bytes=config.max_disk_kv_bytes),
        config=config,
        # Without a model, what is free on its device cannot be known: the host's limits stand
        # for it.
        limits=kv_limits(config, device="cuda"),
    )


def _facts(found: _Found) -> Iterator[tuple[str, str]]:
    store, kept, limits = found.store, found.kv.usage(), found.limits
    yield "store", str(store.path)
    name = store.namespace.name
    where = f" in namespace {name}" if name != DEFAULT_NAME else ""
    adapters = found.adapters
    yield "adapters", f"{adapters['files']:,}, {format_size(adapters['bytes'])}{where}"
    if found.folders.keys() - {store.namespace.folder}:
        yield "namespaces", "\n".join(_name_largest(found))
    if found.damaged:
        yield "damaged", f"{amount(found.damaged)}, set aside (ttt store rm --damaged)"
    if waiting := store.pending_uploads():
        yield "to upload", f"{waiting:,}, which a remote has not got yet"
    for folder in found.other_versions:
        yield "other versions", f"{folder}, which this version does not use"
    documents = "document" if kept.files == 1 else "documents"
    yield "keys and values", f"of {kept.files:,} {documents}, {format_size(kept.bytes)}"
    yield "limits, store", f"{show_limit(store.limits.max_bytes)} of adapters in a namespace"
    yield (
        "limits, device",
        f"half of what is free on a GPU once the model is loaded; {format_size(limits.device)} "
        f"on a CPU",
    )
    yield "limits, host", f"{format_size(limits.host)} of keys and values that leave a GPU"
    disk = f"{format_size(limits.disk)} of keys and values" if limits.disk else "no keys and values"
    yield "limits, disk", disk + ("" if limits.disk else " (--keep-kv, or TTT_KEEP_KV)")
    yield (
        "limits, adapters",
        f"{format_size(found.config.max_adapter_bytes)} held ready for use",
    )


def _name_largest(found: _Found) -> Iterator[str]:
    """Name the largest namespaces; the headers of others are not even read."""

    def size(folder: str) -> int:
        return sum(entry.bytes for entry in found.folders[folder])

    largest = sorted(found.folders, key=size, reverse=True)
    for folder in largest[:_MOST]:
        name = tenant_name(found.store.tenant(folder))
        yield f"{name}: {amount(found.folders[folder])}"
    if len(largest) > _MOST:
        yield f"and {len(largest) - _MOST:,} more"


def _as_json(found: _Found) -> dict[str, Any]:
    store, kept, limits = found.store, found.kv.usage(), found.limits
    return {
        "adapters": {
            "path": str(store.path),
            "namespace": store.namespace.name,
            **found.adapters,
        },
        "namespaces": [
            {**tenant_json(store.tenant(folder)), **_usage(entries)}
            for folder, entries in found.folders.items()
        ],
        "pending_uploads": store.pending_uploads(),
        "other_versions": [str(folder) for folder in found.other_versions],
        "kv": {"path": str(found.kv.path), "files": kept.files, "bytes": kept.bytes},
        "limits": {
            "max_store_bytes": store.limits.max_bytes,
            "max_kv_bytes": {"cpu": limits.device, "gpu": None},  # Known once a model is loaded.
            "max_host_kv_bytes": limits.host,
            "max_disk_kv_bytes": limits.disk,
            "max_adapter_bytes": found.config.max_adapter_bytes,
        },
    }


def _usage(entries: list[FileEntry]) -> dict[str, int]:
    whole = [entry for entry in entries if not entry.damaged]
    return {
        "files": len(whole),
        "bytes": sum(entry.bytes for entry in whole),
        "damaged": len(entries) - len(whole),
    }
