"""What does the store cost, and does it stay fast when it is full?

    python -m bench.store
    python -m bench.store --entries 1000 100000

A store of so many entries (LoRA adapters of `--kib` KiB, written past the store, without syncing)
is asked for what the engine and the command line ask for. Peers take turns in every round; the
pages are in the system's memory for all of them. Each figure is beside the least that any
implementation would have to do:

    get          one adapter, checked and as tensors; against reading its bytes and hashing them
    miss         a key that is not there; against looking for a file that is not there
    put          one adapter, room made for it; against writing its bytes, syncing file and folder
    list         names, sizes and times of all; against `os.scandir` over the same folders
    ls           what `ttt store ls` shows: all sizes and times, 20 headers; against the same
    verify       one adapter read and checked; against reading its bytes and hashing them
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch

from bench.measure import interleaved
from bench.table import Columns, Result, number, print_table, ratio
from ttt_core import AdaptationConfig, AdaptationReport, AdapterStore
from ttt_core.identity import AdapterIdentity
from ttt_core.store.format import FORMAT_VERSION, StoredAdapter, encode

COLUMNS: Columns = {
    "entries": lambda row: f"{row['entries']:,}",
    "what": lambda row: row["what"],
    "ms": lambda row: number(1000 * row["seconds"]),
    "at the least, ms": lambda row: number(1000 * row["floor"]),
    "ratio": lambda row: ratio(row["seconds"] / row["floor"]),
}

_SHOWN = 20
_CPU = torch.device("cpu")
_NOWHERE = "f" * 64


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every size, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--kib", type=int, default=8, help="of each adapter")
    parser.add_argument("--repeat", type=int, default=5, help="interleaved rounds; medians of them")
    parser.add_argument("--folder", type=Path, help="where to make the store; default: temporary")
    parser.add_argument("--output", type=Path, default=Path("results/store.json"))
    options = parser.parse_args(arguments)
    rows = [row for entries in options.entries for row in _measure(entries, options)]
    print_table(rows, COLUMNS)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    about = {"machine": platform.platform(), "python": platform.python_version()}
    options.output.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    print(f"written to {options.output}")


def _measure(entries: int, options: argparse.Namespace) -> list[Result]:
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        store = AdapterStore(folder / "store")
        keys = [_add(store, n, options.kib) for n in range(entries)]
        peers = _peers(store, keys, folder, options.kib)
        runs = interleaved(peers, rounds=options.repeat, device=_CPU)
    finally:
        shutil.rmtree(folder)
    names = [name for name in peers if not name.startswith("floor of ")]
    return [
        {
            "entries": entries,
            "what": name,
            "seconds": runs[name].median,
            "floor": runs[f"floor of {name}"].median,
        }
        for name in names
    ]


def _peers(
    store: AdapterStore, keys: list[str], folder: Path, kib: int
) -> dict[str, Callable[[int], Any]]:
    """What is measured, each with the least that it would have to do; called with the round."""
    new = count(10**9)
    paths = [_path(store, key) for key in keys]
    plain = paths[0].read_bytes()
    written = folder / "plain"
    written.mkdir()
    read = partial(_each, lambda path: hashlib.sha256(path.read_bytes()).digest(), paths)
    walk = partial(_scan, store.path)
    return {
        "get": partial(_each, store.get, keys),
        "floor of get": read,
        "miss": lambda number: store.get(_NOWHERE),
        "floor of miss": lambda number: Path(folder / "nothing").exists(),
        "put": lambda number: _put(store, next(new), kib),
        "floor of put": lambda number: _write(written / str(next(new)), plain),
        "list": lambda number: store.entries(),
        "floor of list": walk,
        "ls": lambda number: [store.header(one.key) for one in islice(store.entries(), _SHOWN)],
        "floor of ls": walk,
        "verify": lambda number: next(iter(store.verify())),
        "floor of verify": lambda number: (walk(number), read(number)),
    }


def _each(work: Callable[[Any], Any], items: Sequence[Any], number: int) -> Any:
    return work(items[number % len(items)])


def _scan(path: Path, number: int) -> int:
    total = 0
    with os.scandir(path) as items:
        for item in items:
            is_folder = item.is_dir()
            total += _scan(Path(item.path), number) if is_folder else item.stat().st_size
    return total


def _entry(number: int, kib: int) -> StoredAdapter:
    identity = AdapterIdentity(
        base="b" * 64,
        tokenizer="t" * 64,
        template="c" * 64,
        prefix=hashlib.sha256(str(number).encode()).hexdigest(),
        config=AdaptationConfig(),
    )
    report = AdaptationReport(
        decision="adapted",
        reasons=("measured",),
        parametrization="lora",
        supervision="cloze",
        document_tokens=4096,
        losses=(1.0,) * 48,
    )
    return StoredAdapter(identity, report, {"lora_A.weight": torch.zeros(kib, 256)})


def _add(store: AdapterStore, number: int, kib: int) -> str:
    """Write an entry the quick way: nothing reads this store before it is complete."""
    entry = _entry(number, kib)
    key = entry.identity.key(store.namespace)
    path = _path(store, key)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_bytes(encode(entry, key))
    return key


def _path(store: AdapterStore, key: str) -> Path:
    folder = store.path / f"v{FORMAT_VERSION}" / store.namespace.folder
    return folder / key[:2] / f"{key}.safetensors"


def _put(store: AdapterStore, number: int, kib: int) -> bool:
    entry = _entry(number, kib)
    return store.put(entry.identity.key(store.namespace), entry)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
