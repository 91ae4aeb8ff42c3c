"""Where adapters are kept: the options that say so, and the store they mean."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ttt_core.cli import console
from ttt_core.cli.failures import UsageProblem
from ttt_core.cli.sizes import format_size, parse_size
from ttt_core.errors import ConfigError, StoreError
from ttt_core.namespace import Namespace
from ttt_core.store import AdapterStore
from ttt_core.store.adapter_store import DEFAULT_MAX_BYTES

KEEPING = "Keeping"
SECRET = "TTT_NAMESPACE_SECRET"
"""Environment variable. No option: whoever lists processes reads their command lines."""

Store = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Where adapters are kept. Default: $TTT_HOME, or your cache folder.",
        rich_help_panel=KEEPING,
    ),
]
NamespaceName = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        metavar="NAME",
        envvar="TTT_NAMESPACE",
        help="Whose documents: each namespace has adapters of its own. If it has a secret, put "
        f"that into ${SECRET}; it is no option, since command lines can be seen by others.",
        show_default="default",
        rich_help_panel=KEEPING,
    ),
]
Remote = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="TTT_REMOTE",
        help="A store behind the folder, shared by several machines: s3://bucket/prefix, "
        "gs://..., file:///folder. Adapters are looked for there, and uploaded to it. Whoever can "
        "read it learns what the documents say.",
        show_default="none",
        rich_help_panel=KEEPING,
    ),
]
StoreLimit = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        envvar="TTT_STORE_LIMIT",
        help="Most bytes of adapters that the namespace keeps, or none for no limit; those used "
        "least recently go.",
        show_default="20GiB",
        rich_help_panel=KEEPING,
    ),
]


@dataclass(frozen=True)
class Place:
    """Which part of which store, as it was typed."""

    folder: Path | None = None
    namespace: str | None = None
    remote: str | None = None
    limit: str | None = None

    def open(self) -> AdapterStore:
        """Return the store; nothing is written.

        Raises:
            ConfigError: A namespace, secret or URL that cannot be.
            UsageProblem: A limit that is no size.
        """
        store = AdapterStore(
            self.folder,
            namespace=_namespace(self.namespace),
            max_bytes=_limit(self.limit),
            remote=self.remote,
        )
        _warn_of_sealed(store)
        return store


def _warn_of_sealed(store: AdapterStore) -> None:
    """Say in one line that the same name is there under another secret: one may be forgotten."""
    with suppress(StoreError):  # Whoever uses the store will be told.
        own = store.namespace
        others = [store.tenant(folder) for folder in store.namespaces() if folder != own.folder]
        if any(other.sealed and other.name == own.name for other in others):
            given = "another secret was given" if own.secret else "none was given"
            console.note(
                f"note: the store has a namespace {own.name} that has a secret, but {given} "
                f"(${SECRET}): this is another namespace, with other adapters"
            )


def warn_of_pending(store: AdapterStore) -> None:
    """Say in one line that the remote lacks something, if it does."""
    if waiting := store.pending_uploads():
        adapters = "adapter waits" if waiting == 1 else "adapters wait"
        console.note(f"note: {waiting:,} {adapters} to be uploaded; ttt store upload does it")


def show_limit(limit: int | None) -> str:
    """Write a limit for a person."""
    return "no limit" if limit is None else format_size(limit)


def _namespace(name: str | None) -> Namespace:
    plain = Namespace.of(name)
    secret = os.environ.get(SECRET)
    if secret is None:
        return plain
    try:
        return Namespace(plain.name, os.fsencode(secret))
    except ConfigError as error:
        raise ConfigError(f"${SECRET}: {error}") from None


def _limit(text: str | None) -> int | None:
    if text is None:
        return DEFAULT_MAX_BYTES
    if text.strip().lower() == "none":
        return None
    limit = parse_size(text, option="--store-limit")
    if not limit:
        raise UsageProblem("--store-limit 0 would keep nothing; none means no limit")
    return limit
