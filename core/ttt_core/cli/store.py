"""`ttt store`: what is kept where, and how much of it may be. Loads no torch, reads no contents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from ttt_core.cli import console, options
from ttt_core.cli.failures import reported
from ttt_core.cli.sizes import format_size
from ttt_core.config import RuntimeConfig
from ttt_core.files import Usage
from ttt_core.limits import KVLimits, kv_limits
from ttt_core.prefix_store import PrefixStore, prefix_store_path
from ttt_core.store import AdapterStore

app = typer.Typer(help="Show what is kept of documents: adapters, and keys and values.")


@app.callback(invoke_without_command=True)
def summary(
    context: typer.Context,
    store: options.Store = None,
    keep_kv: options.KeepKV = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what is kept of documents: adapters, and keys and values."""
    if context.invoked_subcommand is not None:
        return
    with reported(as_json=as_json):
        _show(store, options.runtime_config(keep_kv=keep_kv), as_json=as_json)


def _show(path: Path | None, config: RuntimeConfig, *, as_json: bool) -> None:
    adapters = AdapterStore(path)
    kept = PrefixStore(prefix_store_path(adapters.path), max_bytes=config.max_disk_kv_bytes)
    found = adapters.usage(), kept.usage()
    # Without a model, what is free on its device cannot be known: the host's limits stand for it.
    limits = kv_limits(config, device="cuda")
    if as_json:
        console.write_json(_as_json(adapters.path, kept.path, *found, limits, config))
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for row in _facts(adapters.path, *found, limits, config):
        table.add_row(*row)
    console.show(table)


def _facts(
    path: Path, adapters: Usage, kept: Usage, limits: KVLimits, config: RuntimeConfig
) -> Iterator[tuple[str, str]]:
    yield "store", str(path)
    yield "adapters", f"{adapters.files:,}, {format_size(adapters.bytes)}"
    documents = "document" if kept.files == 1 else "documents"
    yield "keys and values", f"of {kept.files:,} {documents}, {format_size(kept.bytes)}"
    yield (
        "limits, device",
        f"half of what is free on a GPU once the model is loaded; {format_size(limits.device)} "
        f"on a CPU",
    )
    yield "limits, host", f"{format_size(limits.host)} of keys and values that leave a GPU"
    disk = f"{format_size(limits.disk)} of keys and values" if limits.disk else "no keys and values"
    yield "limits, disk", disk + ("" if limits.disk else " (--keep-kv, or TTT_KEEP_KV)")
    yield "limits, adapters", f"{format_size(config.max_adapter_bytes)} ready for use; all stored"


def _as_json(
    path: Path,
    kv_path: Path,
    adapters: Usage,
    kept: Usage,
    limits: KVLimits,
    config: RuntimeConfig,
) -> dict[str, Any]:
    return {
        "adapters": {"path": str(path), "files": adapters.files, "bytes": adapters.bytes},
        "kv": {"path": str(kv_path), "files": kept.files, "bytes": kept.bytes},
        "limits": {
            "max_kv_bytes": {"cpu": limits.device, "gpu": None},  # Known once a model is loaded.
            "max_host_kv_bytes": limits.host,
            "max_disk_kv_bytes": limits.disk,
            "max_adapter_bytes": config.max_adapter_bytes,
        },
    }
