"""The store: what was learned survives everything, and reaches only its owner.

adapter_store.py   AdapterStore: found, written once, limited, adapted to by one at a time
inventory.py       what is there: listed, described, verified
upkeep.py          what goes, what is set aside, what a remote still has to get
format.py          one adapter as one file, and what is believed of a file
folder.py          one namespace's files on the local disk
eviction.py        limits: who has to go
second_level.py    a remote behind the folder: remote.py (fsspec), patience.py, outbox.py
peft_folder.py     PEFT's format: peft_export.py (with factors.py) and peft_import.py
view.py            a mapping from text to bytes, with names.py
"""

from __future__ import annotations

from ttt_core.store.adapter_store import AdapterStore
from ttt_core.store.format import StoredAdapter

__all__ = ["AdapterStore", "StoredAdapter"]
