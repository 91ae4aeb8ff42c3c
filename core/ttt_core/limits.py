"""How many bytes of keys and values each level of memory may hold. Light: loads no torch."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from ttt_core.config import RuntimeConfig

_UNKNOWN = 8 << 30
"""Memory of a machine that does not tell (Windows): rather too little than too much."""

_UNIFIED = ("cpu", "mps")
"""Devices whose memory is the host's own: there is nothing to move to."""

_CGROUPS = ("memory.max", "memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class KVLimits:
    """Bytes of keys and values on the device, in host memory and on disk; 0: none."""

    device: int
    host: int
    disk: int


def kv_limits(config: RuntimeConfig, *, device: str, free: int | None = None) -> KVLimits:
    """Settle the limits that are in force.

    Args:
        config: What was chosen; None there means a default, which is settled here.
        device: Type of the model's device: `cpu`, `cuda`, ...
        free: Free bytes of the device once the model is loaded; None: not known.
    """
    quarter = host_memory() // 4
    unified = device in _UNIFIED
    on_device = quarter if unified or free is None else free // 2
    return KVLimits(
        device=on_device if config.max_kv_bytes is None else config.max_kv_bytes,
        host=0
        if unified
        else (quarter if config.max_host_kv_bytes is None else config.max_host_kv_bytes),
        disk=config.max_disk_kv_bytes,
    )


def host_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes of memory that this process can hope for: the machine's or its container's.

    Args:
        cgroup: Where Linux tells the limits of a container.
    """
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        machine = _UNKNOWN
    limits = [machine]
    for name in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # No such file, or the word "max".
            limits.append(int((cgroup / name).read_text()))
    return min(limits)
