"""SIGKILL at random moments: nothing torn, nothing lost, nothing left locked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.herd import N_EVICTED, SIZE, evicted, kept
from tests.store.samples import child_environment, files_in, key_of, make_entry, run, same
from ttt_core import AdapterStore

pytestmark = pytest.mark.skipif(os.name == "nt", reason="fork and SIGKILL")

KILLS = 220
ENGINE_KILLS = 24
SECONDS = 240
"""Far more than it takes, on a machine that is busy."""


def let_loose(store: Path, *, kills: int, work: str) -> dict[str, Any]:
    """Run a herd on a store; return what it says it did."""
    seed = int.from_bytes(os.urandom(4), "little")
    command = [sys.executable, "-m", "tests.faults.herd"]
    found = subprocess.run(
        [*command, str(store), str(seed), str(kills), str(SECONDS), work],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS + 120,
    )
    assert found.stdout, f"seed {seed}: {found.stderr[-4000:]}"
    report: dict[str, Any] = json.loads(found.stdout)
    assert not report["failures"], f"seed {seed}: " + "\n".join(report["failures"])
    assert found.returncode == 0, f"seed {seed}: {found.stderr[-4000:]}"
    assert report["kills"] >= kills, f"seed {seed}: too slow: {report}"
    return report


def recover(*stores: AdapterStore) -> None:
    """What the next process does, and, since a test cannot wait for an hour, at once."""
    for store in stores:
        store.prune()
        store._folder.sweep(older_than=0)


def check_clean(path: Path) -> None:
    """Nothing but whole entries, and folders."""
    names = files_in(path)
    assert all(name.endswith(".safetensors") for name in names), sorted(names)


def test_hundreds_of_kills_tear_nothing_lose_nothing_and_leave_nothing_locked(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    path = tmp_path / "store"
    report = let_loose(path, kills=KILLS, work="churn")
    told = report["told"]
    record_property("kills", (report["kills"], report["seconds"]))
    assert {"get", "prune", "remove", "adapt"} < told.keys()
    stores = keeping, evicting = kept(path), evicted(path)

    acknowledged = [int(text.split()[1]) for text in told if text.startswith("put ")]
    assert len(acknowledged) > 100
    for number in acknowledged:
        found = keeping.get(key_of(number, keeping.namespace))
        assert same(found, make_entry(number, size=SIZE)), f"entry {number} was lost"

    for store in stores:
        assert not [entry for entry in store.entries() if entry.damaged]
        assert not [verdict for verdict in store.verify() if verdict.problem]
    for number in range(N_EVICTED):
        with evicting.alone(key_of(number, evicting.namespace), timeout=0) as alone:
            assert alone
    for store in stores:
        with store._folder.maintenance(timeout=0) as mine:
            assert mine
    recover(*stores)
    check_clean(path)


def test_a_kill_at_any_step_of_any_operation_does_no_harm(tmp_path: Path) -> None:
    """What chance may never meet: every system call that touches a file, one after another."""
    code = "import sys; from tests.faults.steps import main; main(sys.argv[1])"
    counts = json.loads(run(code, tmp_path))
    assert min(counts.values()) >= 4, counts
    assert counts["put_one"] >= 5, counts


def test_engines_that_are_killed_while_they_adapt_leave_whole_adapters_only(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    from tests.faults.engines import DOCUMENTS, make_engine

    path = tmp_path / "store"
    report = let_loose(path, kills=ENGINE_KILLS, work="adapt")
    told = report["told"]
    record_property("kills", (report["kills"], report["seconds"]))
    assert any(text.startswith("trained") for text in told)
    assert any(text.startswith("store") for text in told)
    store = AdapterStore(path)
    assert not [entry for entry in store.entries() if entry.damaged]
    assert not [verdict for verdict in store.verify() if verdict.problem]
    with make_engine(path) as engine:
        answers = [engine.adapt(document).source for document in DOCUMENTS]
        again = [engine.adapt(document).source for document in DOCUMENTS]
    assert set(answers) <= {"store", "trained"}
    assert set(again) == {"memory"}
    recover(store)
    check_clean(path)
