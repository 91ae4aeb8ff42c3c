"""`ttt store path`: the folder, for scripts."""

from __future__ import annotations

from ttt_core.cli import console, options
from ttt_core.cli.failures import reported
from ttt_core.cli.place import NamespaceName, Place, Store
from ttt_core.cli.store.entries import tenant_json
from ttt_core.store.folder import StoreFolder


def path(
    store: Store = None, namespace: NamespaceName = None, as_json: options.AsJson = False
) -> None:
    """Print the store's folder, and nothing else.

    With --json also the namespace's folder in it, which is named by a digest.
    """
    with reported(as_json=as_json):
        opened = Place(store, namespace).open()
        if not as_json:
            console.write(f"{opened.path}\n")
            return
        folder = opened.namespace.folder
        console.write_json(
            {
                "path": str(opened.path),
                "namespace": tenant_json(opened.tenant(folder)),
                "namespace_path": str(StoreFolder(opened.path, folder).path),
            }
        )
