"""`ttt store show`: all that one adapter's file says about itself; reads its header only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from rich.text import Text

from ttt_core.cli import console, options
from ttt_core.cli.failures import reported
from ttt_core.cli.place import NamespaceName, Place, Store
from ttt_core.cli.report import fact_table, report_facts
from ttt_core.cli.sizes import format_age, format_size
from ttt_core.cli.store.entries import Key, file_json, find, tenant_json
from ttt_core.store.folder import FileEntry
from ttt_core.store.format import Header


def show(
    key: Key,
    store: Store = None,
    namespace: NamespaceName = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what is known of an adapter, and the report of how it was made."""
    with reported(as_json=as_json):
        opened = Place(store, namespace).open()
        entry = find(opened.entries(), key)
        header = None if entry.damaged else opened.header(entry.key)
        if as_json:
            tenant = opened.tenant(opened.namespace.folder)
            console.write_json({"namespace": tenant_json(tenant), **_json(entry, header)})
        else:
            console.show(fact_table(_facts(entry, header)))


def _facts(entry: FileEntry, header: Header | None) -> Iterator[tuple[str, str | Text]]:
    yield "key", entry.key
    yield "file", str(entry.path)
    yield "size", format_size(entry.bytes)
    yield "last used", _moment(datetime.fromtimestamp(entry.used))
    if header is None:
        yield "damaged", "what it holds cannot be told; the document is adapted to again"
        return
    about = header.metadata
    identity = about.identity
    yield "created", _moment(about.created)
    yield "namespace", console.plain(about.namespace)
    yield "base model", console.plain(about.base_model) or "unknown"
    yield "tensors", f"{len(header.shapes):,}"
    for name, digest in (
        ("of weights", identity.base),
        ("of tokenizer", identity.tokenizer),
        ("of template", identity.template),
        ("of tokens", identity.prefix),
    ):
        yield f"hash {name}", console.plain(digest)
    recipe = identity.config.model_dump(mode="json", exclude_defaults=True)
    yield "recipe", ", ".join(f"{name} {value}" for name, value in recipe.items()) or "the default"
    yield from report_facts(about.report)


def _json(entry: FileEntry, header: Header | None) -> dict[str, Any]:
    return {
        **file_json(entry),
        # By way of pydantic's own JSON, which writes null for what is not finite.
        "metadata": json.loads(header.metadata.model_dump_json()) if header else None,
        "tensors": {name: list(shape) for name, shape in header.shapes.items()} if header else None,
        "checksum": header.checksum if header else None,
    }


def _moment(moment: datetime) -> str:
    """Write a time as the clock on the wall shows it, and how long ago that was."""
    local = moment.astimezone()
    ago = format_age((datetime.now().astimezone() - local).total_seconds())
    return f"{local:%Y-%m-%d %H:%M:%S} ({ago} ago)"
