"""Entries to store, and what it takes to tell whether they came back whole."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import ttt_core
from ttt_core import AdaptationConfig, AdaptationReport, AdapterStore
from ttt_core.identity import AdapterIdentity
from ttt_core.namespace import Namespace
from ttt_core.report import LearningRateTrial, ProbeResult
from ttt_core.store import StoredAdapter
from ttt_core.store.format import QueryRows

ROOT = Path(__file__).parents[2]

posix_only = pytest.mark.skipif(os.name == "nt", reason="POSIX")

Shapes = dict[str, tuple[int, ...]]


def make_identity(number: int = 0) -> AdapterIdentity:
    """What an adapter for document `number` belongs to."""
    return AdapterIdentity(
        base="b" * 64,
        tokenizer="c" * 64,
        template="d" * 64,
        prefix=f"{number:064x}",
        config=AdaptationConfig(),
    )


def make_report(**changes: Any) -> AdaptationReport:
    own: dict[str, Any] = {
        "decision": "adapted",
        "reasons": ("held-out gain +0.1",),
        "parametrization": "lora",
        "supervision": "cloze",
        "document_tokens": 1000,
        "losses": (1 / 3, 0.1),
        "learning_rate": 1e-3,
        "trials": (LearningRateTrial(learning_rate=1e-2, steps=8, gain=None),),
        "drift": 0.2,
        "seconds": {"train": 0.123},
    }
    return AdaptationReport(**{**own, **changes})


def make_probe(after: float) -> ProbeResult:
    return ProbeResult(
        clozes=96,
        before=2.0,
        after=after,
        right_before=0.5,
        right_after=0.75,
        right_p_value=0.01,
        gain=0.5,
        z=3.0,
        p_value=0.001,
    )


def make_entry(number: int = 0, *, size: int = 4) -> StoredAdapter:
    """The entry of document `number`: 16 x `size` bytes of weights that no other one has."""
    generator = torch.Generator().manual_seed(number)
    weights = {
        "a.lora_A.weight": torch.randn(2, size, generator=generator),
        "a.lora_B.weight": torch.randn(2, size, generator=generator).T,  # Not contiguous.
    }
    rows = {"a.delta": QueryRows(out_features=9, ranges=((0, 2), (4, 6)))}
    return StoredAdapter(
        make_identity(number), make_report(), weights, base_model="some/model", query_rows=rows
    )


def kept_base(number: int = 0) -> StoredAdapter:
    """The entry of a document for which the base was kept."""
    return StoredAdapter(make_identity(number), make_report(decision="kept_base"))


def shapes_of(entry: StoredAdapter) -> Shapes:
    return {name: tuple(weight.shape) for name, weight in entry.weights.items()}


def key_of(number: int = 0, namespace: Namespace | None = None) -> str:
    return make_identity(number).key(namespace or Namespace())


KEY, OTHER = key_of(0), key_of(1)


def same(left: StoredAdapter | None, right: StoredAdapter) -> bool:
    return (
        left is not None
        and left.identity == right.identity
        and left.report == right.report
        and left.base_model == right.base_model
        and dict(left.query_rows) == dict(right.query_rows)
        and left.weights.keys() == right.weights.keys()
        and all(torch.equal(left.weights[name], right.weights[name]) for name in right.weights)
    )


def put(store: AdapterStore, number: int = 0, *, size: int = 4) -> Path:
    """Write the entry of document `number` and return its file."""
    key = key_of(number, store.namespace)
    store.put(key, make_entry(number, size=size))
    return file_of(store, key)


def file_of(store: AdapterStore, key: str = KEY) -> Path:
    return store.path / "v2" / store.namespace.folder / key[:2] / f"{key}.safetensors"


def age(path: Path, seconds: float) -> None:
    """Make a file as old as that; negative: as if its clock had been ahead."""
    now = path.stat().st_mtime
    os.utime(path, (now - seconds, now - seconds))


def files_in(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, by relative path."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def child_environment() -> dict[str, str]:
    """For a process that imports this checkout's packages, tests included."""
    core = Path(ttt_core.__file__).parents[1]
    return {**os.environ, "PYTHONPATH": f"{core}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}


def start(code: str, *args: object, **options: Any) -> subprocess.Popen[str]:
    """Run a script in a process of its own, with pipes to and from it."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        env=child_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(code: str, *args: object, seconds: float = 120.0) -> str:
    """Run a script in a process of its own, to its end; return what it printed.

    Raises:
        AssertionError: It failed; with what it said.
    """
    with start(code, *args) as process:
        try:
            out, errors = process.communicate(timeout=seconds)
        except BaseException:
            process.kill()
            raise
    assert process.returncode == 0, errors[-4000:]
    return out


NOBODY = 65534

DROP_PRIVILEGES = f"""
import os
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
"""
"""For scripts to which permissions are to apply: they do not bind root."""


def give_to_nobody(folder: Path) -> None:
    """Hand a folder and all that is in it to the user as whom scripts run that drop privileges."""
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


NOT_FINITE = [math.inf, math.nan]
