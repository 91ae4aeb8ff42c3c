"""A store's operations, killed before their first system call, their second, and so on; a script.

    python -m tests.faults.steps <folder>

Python announces calls that touch files (`sys.addaudithook`); a forked child kills itself at the
n-th of them. After each death the parent looks at what is left. Prints, for each operation, how
many steps it has.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from tests.store.samples import KEY, file_of, files_in, key_of, make_entry, put, same
from ttt_core import AdapterStore

STEPS = {"open", "os.link", "os.remove", "os.rename", "os.mkdir", "os.utime", "os.chmod"}
STEPS |= {"fcntl.flock", "os.scandir", "os.truncate"}

OLD = range(3)
"""What is in the store before."""


def put_one(store: AdapterStore) -> None:
    store.put(key_of(9), make_entry(9))


def put_and_evict(store: AdapterStore) -> None:
    AdapterStore(store.path, max_bytes=1).put(key_of(9), make_entry(9))


def evict_all(store: AdapterStore) -> None:
    store.prune(max_bytes=0)


def remove(store: AdapterStore) -> None:
    store.remove(KEY)


def find_damage_and_repair_it(store: AdapterStore) -> None:
    os.truncate(file_of(store), 100)
    store.get(KEY)
    store.put(KEY, make_entry())


def adapt(store: AdapterStore) -> None:
    store.prepare(key_of(9))
    with store.alone(key_of(9), timeout=0):
        store.put(key_of(9), make_entry(9))


KEEPING = (put_one, adapt, find_damage_and_repair_it)
"""Those after which all that was there before still is."""

OPERATIONS = (*KEEPING, put_and_evict, evict_all, remove)


def dies_at(step: int, work: Callable[[], None]) -> bool:
    """Run `work` in a child that is killed before its n-th step; return whether it had so many."""
    child = os.fork()
    if child == 0:
        done = 0

        def count(event: str, args: object) -> None:
            nonlocal done
            done += event in STEPS
            if event in STEPS and done == step:
                os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            sys.addaudithook(count)
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
    return status == signal.SIGKILL


def check(store: AdapterStore, operation: Callable[[AdapterStore], None]) -> None:
    """Everything is whole or not there; nothing stays locked; recovery leaves nothing else."""
    touched = {0} if operation is find_damage_and_repair_it else set()
    for number in {*OLD, 9} - touched:
        found = store.get(key_of(number))
        assert found is None or same(found, make_entry(number))
        assert found is not None or number == 9 or operation not in KEEPING, f"lost {number}"
    for number in touched:
        store.get(key_of(number))
        store.put(key_of(number), make_entry(number))
        assert same(store.get(key_of(number)), make_entry(number))
    with store.alone(KEY, timeout=0) as alone, store._folder.maintenance(timeout=0) as mine:
        assert alone
        assert mine
    store.prune()
    store._folder.sweep(older_than=0)
    left = [name for name in files_in(store.path) if not name.endswith(".safetensors")]
    assert operation is find_damage_and_repair_it or not left, left
    assert all(name.endswith(".damaged") for name in left), left
    put(store, 9)
    assert same(store.get(key_of(9)), make_entry(9))


def main(folder: str) -> None:
    torch.set_num_threads(1)
    for number in (*OLD, 9):  # Everything is imported before the first fork.
        make_entry(number)
    put(AdapterStore(Path(folder) / "first"))
    counts = {}
    for operation in OPERATIONS:
        step = 0
        died = True
        while died:
            step += 1
            store = AdapterStore(Path(folder) / f"{operation.__name__}-{step}", max_bytes=None)
            for number in OLD:
                put(store, number)
            died = dies_at(step, lambda: operation(store))  # noqa: B023
            check(store, operation)
        counts[operation.__name__] = step - 1
    sys.stdout.write(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1])
