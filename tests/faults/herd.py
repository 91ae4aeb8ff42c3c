"""Processes that use one store until they are killed, over and over; run as a script.

A parent that has everything imported forks workers, so that a new one costs milliseconds, and
kills them at random moments. Workers tell over pipes what they have done; what they have told is
done. Prints what happened as JSON, and exits with 0 unless a worker failed by itself.

    python -m tests.faults.herd <store> <seed> <kills> <seconds at most> <work>
"""

from __future__ import annotations

import json
import os
import random
import secrets
import select
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.store.samples import key_of, make_entry, same
from ttt_core import AdapterStore

N_WORKERS = 8
SIZE = 8_000  # 16 bytes each: entries of 128 KB.
N_EVICTED = 6
N_KEPT = 400

ENTRY_BYTES = 16 * SIZE + 4096

Tell = Callable[[str], None]
Work = Callable[[Path, random.Random, Tell], None]


def kept(path: Path) -> AdapterStore:
    """Where nothing is ever evicted."""
    return AdapterStore(path, namespace="kept", max_bytes=None)


def evicted(path: Path) -> AdapterStore:
    """Where half of all entries have to go."""
    return AdapterStore(path, namespace="evicted", max_bytes=ENTRY_BYTES * N_EVICTED // 2)


# ---------------------------------------------------------------- what workers do


def churn(path: Path, rng: random.Random, tell: Tell) -> None:
    """Put, get, prune, remove and adapt, without end."""
    entries: dict[int, object] = {}

    def entry(number: int):
        return entries.setdefault(number, make_entry(number, size=SIZE))

    def put_kept() -> None:
        number = rng.randrange(N_KEPT)
        store = kept(path)
        store.put(key_of(number, store.namespace), make_entry(number, size=SIZE))
        tell(f"put {number}")

    def get_kept() -> None:
        number, store = rng.randrange(N_KEPT), kept(path)
        found = store.get(key_of(number, store.namespace))
        assert found is None or same(found, make_entry(number, size=SIZE)), "a torn read"
        tell("miss" if found is None else "get")

    def put_evicted() -> None:
        number, store = rng.randrange(N_EVICTED), evicted(path)
        store.put(key_of(number, store.namespace), entry(number))
        tell("put")

    def get_evicted() -> None:
        number, store = rng.randrange(N_EVICTED), evicted(path)
        found = store.get(key_of(number, store.namespace))
        assert found is None or same(found, entry(number)), "a torn read"
        tell("miss" if found is None else "get")

    def prune() -> None:
        evicted(path).prune(max_bytes=ENTRY_BYTES)
        tell("prune")

    def remove() -> None:
        store = evicted(path)
        store.remove(key_of(rng.randrange(N_EVICTED), store.namespace))
        tell("remove")

    def adapt() -> None:
        number, store = rng.randrange(N_EVICTED), evicted(path)
        adapt_as_the_engine_does(store, number, entry(number), tell)

    works = [put_kept, put_kept, get_kept, put_evicted, get_evicted, prune, remove, adapt, adapt]
    while True:
        rng.choice(works)()


def adapt_as_the_engine_does(store: AdapterStore, number: int, entry, tell: Tell) -> None:
    """Find; be alone; find again, or make and put. Two that are alone at once would be seen."""
    key = key_of(number, store.namespace)
    found = store.get(key)
    if found is not None:
        assert same(found, entry), "a torn read"
        return
    store.prepare(key)
    with store.alone(key, timeout=60) as alone:
        assert alone, "a lock that nobody gives back"
        marker = os.open(store.path.parent / f"inside-{key}", os.O_RDWR | os.O_CREAT, 0o600)
        me = secrets.token_bytes(8)
        os.pwrite(marker, me, 0)
        if store.get(key) is None:
            store.put(key, entry)
        assert os.pread(marker, 8, 0) == me, "two were alone at once"
        os.close(marker)
    tell("adapt")


def adapt(path: Path, rng: random.Random, tell: Tell) -> None:
    """Adapt to one of a few documents with a real engine on a tiny model, without end."""
    from tests.faults.engines import DOCUMENTS, make_engine

    while True:
        engine = make_engine(path)
        number = rng.randrange(len(DOCUMENTS))
        adapted = engine.adapt(DOCUMENTS[number])
        assert adapted.adapter is not None
        tell(f"{adapted.source} {number}")
        if rng.random() < 0.3:
            engine._store.remove(adapted.key)
            tell("remove")


# ---------------------------------------------------------------- who kills them


@dataclass
class Worker:
    """A child, and what it has not said completely yet."""

    pid: int
    pipe: int
    said: bytes = b""


@dataclass
class Herd:
    """The workers, and what has become of them."""

    path: Path
    rng: random.Random
    work: Work
    told: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    kills: int = 0

    def fork(self) -> None:
        seed = self.rng.random()
        told, tell = os.pipe()
        child = os.fork()
        if child:
            os.close(tell)
            self.workers.append(Worker(child, told))
            return
        try:
            for worker in self.workers:
                os.close(worker.pipe)
            self.work(
                self.path, random.Random(seed), lambda text: os.write(tell, f"{text}\n".encode())
            )
        except BaseException:
            os.write(tell, f"FAILED {json.dumps(traceback.format_exc())}\n".encode())
        finally:
            os._exit(1)

    def listen(self, seconds: float) -> None:
        """Take in what workers tell, for so long."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            pipes = {worker.pipe: worker for worker in self.workers}
            for pipe in select.select(list(pipes), [], [], left)[0]:
                if not self._hear(pipes[pipe]):
                    return

    def kill(self, worker: Worker) -> None:
        os.kill(worker.pid, signal.SIGKILL)
        while self._hear(worker):  # What was told before counts.
            pass
        os.close(worker.pipe)
        os.waitpid(worker.pid, 0)
        self.workers.remove(worker)
        self.kills += 1

    def _hear(self, worker: Worker) -> bool:
        said = os.read(worker.pipe, 65536)
        *lines, worker.said = (worker.said + said).split(b"\n")
        for line in lines:
            text = line.decode()
            if text.startswith("FAILED"):
                self.failures.append(json.loads(text.removeprefix("FAILED ")))
            else:
                self.told[text] += 1
        return bool(said)


def drive(herd: Herd, kills: int, seconds: float, *, n_workers: int, pause: float) -> None:
    """Kill workers at random moments, and replace them, until there were enough kills."""
    until = time.monotonic() + seconds
    try:
        while herd.kills < kills and not herd.failures and time.monotonic() < until:
            while len(herd.workers) < n_workers:
                herd.fork()
            herd.listen(herd.rng.uniform(0, pause))
            herd.kill(herd.rng.choice(herd.workers))
    finally:
        for worker in list(herd.workers):
            herd.kill(worker)


def main(path: str, seed: str, kills: str, seconds: str, work: str) -> int:
    import torch

    torch.set_num_threads(1)
    if work == "adapt":
        from tests.faults.engines import warm_up

        warm_up()
    started = time.monotonic()
    herd = Herd(Path(path), random.Random(int(seed)), {"churn": churn, "adapt": adapt}[work])
    pause = {"churn": 0.15, "adapt": 0.8}[work]
    drive(herd, int(kills), float(seconds), n_workers=N_WORKERS, pause=pause)
    report = {
        "kills": herd.kills,
        "seconds": round(time.monotonic() - started, 1),
        "told": dict(herd.told),
        "failures": herd.failures,
    }
    sys.stdout.write(json.dumps(report) + "\n")
    return 1 if herd.failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
