"""Four processes with sixteen threads each on one store; run as a script.

    python -m tests.faults.crowd <store> <seconds>

Prints, for each process, what each thread did; fails if one saw what it should not see.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

import torch

from tests.faults.herd import adapt_as_the_engine_does
from tests.store.samples import key_of, make_entry, same
from ttt_core import AdapterStore

N_PROCESSES, N_THREADS = 4, 16
N_ENTRIES = 12
SIZE = 500  # 8 KB.
HALF = N_ENTRIES // 2 * (16 * SIZE + 2500)
PACE = 0.02
"""Seconds between a thread's operations, to leave the machine to others, too."""


def work(path: Path, rng: random.Random, counts: Counter[str], until: float) -> None:
    """Use two namespaces, one of which cannot hold all entries."""
    stores = [AdapterStore(path, namespace=name, max_bytes=HALF) for name in ("a", "b")]
    stores.append(AdapterStore(path, namespace="c"))
    pins = []
    while time.monotonic() < until:
        store, number = rng.choice(stores), rng.randrange(N_ENTRIES)
        key = key_of(number, store.namespace)
        operation = rng.choice(["get", "get", "get", "put", "adapt", "prune", "pin", "list"])
        if operation == "get":
            found = store.get(key)
            assert found is None or same(found, entry_of(number)), "a torn read"
            operation = "get" if found else "miss"
        elif operation == "put":
            store.put(key, entry_of(number))
        elif operation == "adapt":
            adapt_as_the_engine_does(store, number, entry_of(number), lambda text: None)
        elif operation == "prune":
            store.prune(max_bytes=HALF, max_age=3600.0)
        elif operation == "pin":
            pins = [*pins[-3:], store.pin(key)]
        else:
            known = {key_of(number, store.namespace) for number in range(N_ENTRIES)}
            assert {entry.key for entry in store.entries()} <= known
        counts[operation] += 1
        time.sleep(PACE)


ENTRIES: list = []


def entry_of(number: int):
    return ENTRIES[number]


def process(path: Path, seconds: float, tell: int) -> None:
    """Run the threads of one process; tell what each did, or what went wrong."""
    until = time.monotonic() + seconds
    counts = [Counter() for _ in range(N_THREADS)]
    failures: list[str] = []

    def run(number: int) -> None:
        try:
            work(path, random.Random(), counts[number], until)
        except BaseException:
            failures.append(traceback.format_exc())

    threads = [threading.Thread(target=run, args=(number,)) for number in range(N_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(tell, (json.dumps({"counts": counts, "failures": failures}) + "\n").encode())


def main(path: str, seconds: str) -> None:
    torch.set_num_threads(1)
    os.nice(5)
    ENTRIES.extend(make_entry(number, size=SIZE) for number in range(N_ENTRIES))
    told, tell = os.pipe()
    children = []
    for _ in range(N_PROCESSES):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                process(Path(path), float(seconds), tell)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    os.close(tell)
    with open(told) as pipe:
        sys.stdout.write(pipe.read())
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
