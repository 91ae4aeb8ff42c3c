"""Where the keys and values of documents are: on the device, in host memory, or on disk.

    used ─▶ device ─▶ host ─▶ gone          least recently used first, by bytes
              ▲         │
              └─ used ──┘◀─ disk ◀─ written once, when computed

Knows nothing of models and adapters. On a model that runs on the CPU, device and host are the
same memory, and there is no host level.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import torch

from ttt_core.flights import SingleFlight, say_nothing
from ttt_core.limits import kv_limits
from ttt_core.lru import ByteLRU
from ttt_core.prefix import FrozenPrefix
from ttt_core.prefix_store import PrefixStore, prefix_store_path

if TYPE_CHECKING:
    from pathlib import Path

    from ttt_core.config import RuntimeConfig
    from ttt_core.runtime import Runtime

PrefixSource = Literal["computed", "device", "host", "disk"]
Move = Callable[[FrozenPrefix], FrozenPrefix]


def _stay(prefix: FrozenPrefix) -> FrozenPrefix:
    return prefix


class PrefixMemory:
    """Frozen prefixes by key, each held once in memory. Thread-safe.

    Being referenced is being pinned: a prefix that a running request holds lives until that
    request lets go of it, be it over the limit by then. So the device holds at most its limit,
    plus the prefix used last, plus what running requests hold.

    Args:
        device_bytes: Limit of the device level; the prefix used last stays whatever its size.
        host_bytes: Limit of the host level; 0: no such level.
        disk: The disk level; None: no such level.
        to_host: Copies a prefix from the device to host memory.
        to_device: Copies a prefix from host memory to the device.
    """

    def __init__(
        self,
        *,
        device_bytes: int,
        host_bytes: int = 0,
        disk: PrefixStore | None = None,
        to_host: Move = _stay,
        to_device: Move = _stay,
    ) -> None:
        self._device: ByteLRU[str, FrozenPrefix] = ByteLRU(device_bytes, _nbytes)
        self._host: ByteLRU[str, FrozenPrefix] = ByteLRU(host_bytes, _nbytes)
        self._disk = disk
        self._to_host = to_host
        self._to_device = to_device
        self._bytes_per_token = 0.0
        self._lock = threading.Lock()  # Never held while something is copied, read or computed.
        self._moving = threading.Lock()
        self._single_flight = SingleFlight()

    def get(
        self,
        key: str,
        compute: Callable[[], FrozenPrefix],
        on_wait: Callable[[float], None] = say_nothing,
    ) -> tuple[FrozenPrefix, PrefixSource]:
        """Return a prefix on the device, and where it came from.

        Args:
            key: Identity of the prefix; asked for at once, it is fetched or computed once.
            compute: Makes it if it is nowhere; what it raises is passed on.
            on_wait: Called while somebody else makes it; see `SingleFlight`.
        """
        with self._lock:
            held = self._device.get(key)
        if held is not None:
            return held, "device"
        with self._single_flight(key, on_wait):
            prefix, source = self._bring(key, compute)
        self._settle()
        return prefix, source

    def has_room(self, n_tokens: int) -> bool:
        """Whether a prefix of `n_tokens` could be kept without another one having to go.

        An estimate: a token takes as many bytes as it did in the prefix brought last.
        """
        with self._lock:
            levels = (self._device, self._host)
            room = sum(max(level.limit - level.nbytes, 0) for level in levels)
            needed = n_tokens * self._bytes_per_token
        return needed <= room or (self._disk is not None and needed <= self._disk.room())

    def release(self, key: str) -> None:
        """Hold a prefix no longer; the disk keeps it."""
        with self._lock:
            self._device.pop(key)
            self._host.pop(key)

    def clear(self) -> None:
        """Hold nothing; the disk keeps what it has."""
        with self._lock:
            self._device.clear()
            self._host.clear()

    @property
    def device_bytes(self) -> int:
        """Bytes held on the device."""
        with self._lock:
            return self._device.nbytes

    @property
    def host_bytes(self) -> int:
        """Bytes held in host memory."""
        with self._lock:
            return self._host.nbytes

    def _bring(
        self, key: str, compute: Callable[[], FrozenPrefix]
    ) -> tuple[FrozenPrefix, PrefixSource]:
        """Find or make a prefix, and hold it on the device."""
        with self._lock:
            held, on_host = self._device.get(key), self._host.get(key)
        if held is not None:  # Somebody else was faster.
            return held, "device"
        if on_host is not None:
            return self._hold(key, self._to_device(on_host)), "host"
        stored = self._disk.get(key) if self._disk else None
        if stored is not None:
            return self._hold(key, self._to_device(stored)), "disk"
        prefix = self._hold(key, compute())
        if self._disk:
            # Now and not when it leaves memory: the process may not live to see that.
            self._disk.put(key, prefix)
        return prefix, "computed"

    def _hold(self, key: str, prefix: FrozenPrefix) -> FrozenPrefix:
        with self._lock:
            self._host.pop(key)
            self._device.put(key, prefix)
            self._bytes_per_token = prefix.nbytes / max(len(prefix), 1)
        return prefix

    def _settle(self) -> None:
        """Move prefixes down until the device is within its limit.

        A prefix stays findable on the device until its copy on the host is complete.
        """
        with self._moving:
            while (oldest := self._excess()) is not None:
                key, prefix = oldest
                fits = prefix.nbytes <= self._host.limit
                copy = self._to_host(prefix) if fits else None
                with self._lock:
                    if self._device.peek(key) is not prefix:
                        continue  # Released meanwhile: it is not to be found on the host either.
                    self._device.pop(key)
                    if copy is not None:
                        self._host.put(key, copy)
                        self._host.trim()
                del prefix, copy, oldest  # Or this frame would hold it while the next one is moved.

    def _excess(self) -> tuple[str, FrozenPrefix] | None:
        with self._lock:
            return self._device.excess()


def prefix_memory(config: RuntimeConfig, runtime: Runtime, adapters: Path) -> PrefixMemory:
    """Make the document memory of a loaded model.

    Args:
        config: The limits.
        runtime: The model.
        adapters: Folder of the adapter store.
    """
    projections = runtime.architecture.projections
    devices = [_device(one.module.weight.device, runtime.device) for one in projections]
    limits = kv_limits(config, device=devices[0].type, free=_free_bytes(set(devices)))

    def to_device(prefix: FrozenPrefix) -> FrozenPrefix:
        if all(device.type == "cpu" for device in devices):
            return prefix
        with runtime.turn():  # So that running out of memory is told as it is elsewhere.
            return _moved(prefix, devices)

    path = prefix_store_path(adapters)
    return PrefixMemory(
        device_bytes=limits.device,
        host_bytes=limits.host,
        disk=PrefixStore(path, max_bytes=limits.disk) if limits.disk else None,
        to_host=lambda prefix: _moved(prefix, [torch.device("cpu")] * len(devices)),
        to_device=to_device,
    )


def _moved(prefix: FrozenPrefix, devices: Sequence[torch.device]) -> FrozenPrefix:
    """Copy a prefix, layer by layer, to `devices`, one a layer."""
    return FrozenPrefix(
        input_ids=prefix.input_ids,
        keys=tuple(k.to(device) for k, device in zip(prefix.keys, devices, strict=False)),
        values=tuple(v.to(device) for v, device in zip(prefix.values, devices, strict=False)),
    )


def _device(own: torch.device, inputs: torch.device) -> torch.device:
    """Where a layer computes; weights that wait elsewhere for their turn are on `meta`."""
    return inputs if own.type == "meta" else own


def _free_bytes(devices: set[torch.device]) -> int | None:
    found = [torch.cuda.mem_get_info(one)[0] for one in devices if one.type == "cuda"]
    return sum(found) if found else None


def _nbytes(prefix: FrozenPrefix) -> int:
    return prefix.nbytes
