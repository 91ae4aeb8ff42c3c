"""Many threads of many processes on one store, for a minute."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.crowd import N_PROCESSES, N_THREADS
from tests.store.samples import files_in, run
from ttt_core import AdapterStore

SECONDS = 60


@pytest.mark.skipif(os.name == "nt", reason="fork")
@pytest.mark.timeout(SECONDS + 240)
def test_sixteen_threads_in_four_processes_see_whole_entries_and_all_get_on(tmp_path: Path) -> None:
    path = tmp_path / "store"
    code = "import sys; from tests.faults.crowd import main; main(*sys.argv[1:])"
    reports = [json.loads(line) for line in run(code, path, SECONDS, seconds=300).splitlines()]
    failures = [failure for report in reports for failure in report["failures"]]
    assert not failures, failures[0]
    threads = [Counter(counts) for report in reports for counts in report["counts"]]
    assert len(threads) == N_PROCESSES * N_THREADS
    assert min(counts.total() for counts in threads) > 0
    total = sum(threads, Counter())
    assert {"get", "miss", "put", "adapt", "prune", "pin", "list"} <= total.keys()
    for name in ("a", "b", "c"):
        store = AdapterStore(path, namespace=name)
        store.prune()
        assert not [entry for entry in store.entries() if entry.damaged]
        assert not [verdict for verdict in store.verify() if verdict.problem]
    assert all(name.endswith(".safetensors") for name in files_in(path))
