"""Limits of memory: what is chosen holds, what is not follows the machine or its container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ttt_core import RuntimeConfig
from ttt_core.limits import KVLimits, host_memory, kv_limits


@pytest.fixture
def quarter(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("ttt_core.limits.host_memory", lambda: 4000)
    return 1000


@pytest.mark.parametrize(
    ("device", "free", "expected"),
    [
        ("cpu", None, KVLimits(device=1000, host=0, disk=0)),
        ("mps", None, KVLimits(device=1000, host=0, disk=0)),
        ("cuda", 600, KVLimits(device=300, host=1000, disk=0)),
        ("xpu", None, KVLimits(device=1000, host=1000, disk=0)),
    ],
)
def test_defaults(quarter: int, device: str, free: int | None, expected: KVLimits) -> None:
    assert kv_limits(RuntimeConfig(), device=device, free=free) == expected


def test_what_is_chosen_holds() -> None:
    config = RuntimeConfig(max_kv_bytes=1, max_host_kv_bytes=2, max_disk_kv_bytes=3)
    assert kv_limits(config, device="cuda", free=600) == KVLimits(device=1, host=2, disk=3)
    assert kv_limits(config, device="cpu") == KVLimits(device=1, host=0, disk=3)
    off = RuntimeConfig(max_kv_bytes=0, max_host_kv_bytes=0)
    assert kv_limits(off, device="cuda", free=600) == KVLimits(device=0, host=0, disk=0)


def test_a_container_s_limit_counts(tmp_path: Path) -> None:
    machine = host_memory(tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    assert host_memory(tmp_path) == machine
    (tmp_path / "memory.max").write_text("1048576\n")
    assert host_memory(tmp_path) == 1 << 20


def test_a_machine_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert host_memory(tmp_path) == 8 << 30
