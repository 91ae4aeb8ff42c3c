"""Document memory: three levels by bytes, least recently used first, everything computed once."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttt_core.memory import PrefixMemory
from ttt_core.prefix import EMPTY_PREFIX, FrozenPrefix
from ttt_core.prefix_store import PrefixStore

A, B, C, D = (f"{'0123' * 8}-{letter * 64}" for letter in "abcd")


def make_prefix(n_tokens: int, *, seed: int = 0) -> FrozenPrefix:
    """A prefix of one layer, 8 bytes a token."""
    pair = torch.full((2, 1, 1, n_tokens, 1), float(seed))
    return FrozenPrefix(tuple(range(n_tokens)), keys=(pair[0],), values=(pair[1],))


def copied(prefix: FrozenPrefix) -> FrozenPrefix:
    """What a move between a device and the host does."""
    return FrozenPrefix(
        prefix.input_ids,
        keys=tuple(tensor.clone() for tensor in prefix.keys),
        values=tuple(tensor.clone() for tensor in prefix.values),
    )


def make_memory(*, device: int, host: int = 0, disk: PrefixStore | None = None) -> PrefixMemory:
    """A memory whose device and host level are told apart by copies."""
    return PrefixMemory(
        device_bytes=device, host_bytes=host, disk=disk, to_host=copied, to_device=copied
    )


def never() -> FrozenPrefix:
    raise AssertionError("computed again")


def get(memory: PrefixMemory, key: str, n_tokens: int = 10) -> str:
    """Where the prefix of `key` came from."""
    return memory.get(key, lambda: make_prefix(n_tokens))[1]


def test_what_is_used_goes_up_and_what_is_not_goes_down_and_away() -> None:
    memory = make_memory(device=80, host=80)
    assert [get(memory, key) for key in (A, A, B, A, C)] == [
        "computed", "device", "computed", "host", "computed",
    ]  # fmt: skip
    assert (memory.device_bytes, memory.host_bytes) == (80, 80)
    assert get(memory, B) == "computed", "it left the host when the third one came"
    assert get(memory, C) == "host"


def test_values_survive_the_moves() -> None:
    memory = make_memory(device=0, host=1000)
    for seed, key in enumerate((A, B, C)):
        memory.get(key, lambda seed=seed: make_prefix(10, seed=seed))  # type: ignore[misc]
    for seed, key in enumerate((A, B, C)):
        prefix, _ = memory.get(key, never)
        assert torch.equal(prefix.keys[0], torch.full((1, 1, 10, 1), float(seed)))


def test_the_prefix_used_last_stays_however_large() -> None:
    """Reading it again for every question would help nobody."""
    memory = make_memory(device=0)
    assert [get(memory, A, 99), get(memory, A, 99)] == ["computed", "device"]
    assert get(memory, B, 1) == "computed"
    assert memory.device_bytes == 8


def test_a_prefix_larger_than_the_host_level_pushes_nothing_out_of_it() -> None:
    memory = make_memory(device=0, host=80)
    get(memory, A, 10), get(memory, B, 11), get(memory, C, 1)
    assert get(memory, A) == "host"


def test_released_is_gone_from_memory_but_not_from_disk(tmp_path: Path) -> None:
    memory = make_memory(device=0, host=800, disk=PrefixStore(tmp_path, max_bytes=10_000))
    get(memory, A), get(memory, B)
    memory.release(A)
    memory.release(B)
    assert (memory.device_bytes, memory.host_bytes) == (0, 0)
    assert [get(memory, key) for key in (A, B)] == ["disk", "disk"]
    memory.clear()
    assert get(memory, B) == "disk"


def test_an_empty_prefix_is_a_prefix(tmp_path: Path) -> None:
    memory = make_memory(device=80, host=80, disk=PrefixStore(tmp_path, max_bytes=10_000))
    assert memory.get(A, lambda: EMPTY_PREFIX) == (EMPTY_PREFIX, "computed")
    assert memory.get(A, never) == (EMPTY_PREFIX, "device")
    assert not list(tmp_path.iterdir())


def test_a_failure_to_compute_is_passed_on_and_leaves_nothing() -> None:
    memory = make_memory(device=80)
    with pytest.raises(KeyboardInterrupt):
        memory.get(A, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert get(memory, A) == "computed"


def test_room_is_told_before_anything_is_computed(tmp_path: Path) -> None:
    memory = make_memory(device=80, host=80)
    assert memory.has_room(10**9), "nothing is known of the size of a token yet"
    get(memory, A, 5)
    assert memory.has_room(15)
    assert not memory.has_room(16)
    disk = PrefixStore(tmp_path, max_bytes=1 << 20)
    assert make_memory(device=0, disk=disk).has_room(1)


def test_pinned_prefixes_outlive_their_eviction_and_die_with_their_last_user() -> None:
    memory = make_memory(device=0)
    held, _ = memory.get(A, lambda: make_prefix(10, seed=7))
    gone = weakref.ref(held)
    get(memory, B)
    assert torch.equal(held.keys[0], torch.full((1, 1, 10, 1), 7.0))
    del held
    assert gone() is None


def test_never_more_than_the_limit_and_one(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[FrozenPrefix] = weakref.WeakSet()
    peak = 0

    def compute() -> FrozenPrefix:
        nonlocal peak
        made = make_prefix(10)
        alive.add(made)
        peak = max(peak, sum(prefix.nbytes for prefix in alive))
        return made

    memory = PrefixMemory(device_bytes=3 * 80)
    for number in range(50):
        memory.get(f"{number:064x}", compute)
    assert peak <= 4 * 80
    assert memory.device_bytes == 3 * 80


def in_threads(*work: Callable[[], object]) -> None:
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)


def test_asked_for_at_once_it_is_computed_once() -> None:
    memory, together, calls = make_memory(device=800), threading.Barrier(8), []

    def compute() -> FrozenPrefix:
        calls.append(1)
        return make_prefix(10)

    found: list[FrozenPrefix] = []

    def ask() -> None:
        together.wait(timeout=60)
        found.append(memory.get(A, compute)[0])

    in_threads(*[ask] * 8)
    assert len(calls) == 1
    assert all(prefix is found[0] for prefix in found)


def test_another_prefix_is_served_while_one_is_computed() -> None:
    memory, begun, go_on = make_memory(device=800), threading.Event(), threading.Event()
    get(memory, B)

    def slow() -> FrozenPrefix:
        begun.set()
        assert go_on.wait(timeout=60)
        return make_prefix(10)

    def ask() -> None:
        assert begun.wait(timeout=60)
        assert get(memory, B) == "device"
        go_on.set()

    in_threads(lambda: memory.get(A, slow), ask)


def test_a_prefix_on_its_way_down_is_still_found() -> None:
    moving, go_on = threading.Event(), threading.Event()

    def slow(prefix: FrozenPrefix) -> FrozenPrefix:
        moving.set()
        assert go_on.wait(timeout=60)
        return copied(prefix)

    memory = PrefixMemory(device_bytes=80, host_bytes=800, to_host=slow)
    get(memory, A)

    def ask() -> None:
        assert moving.wait(timeout=60)
        assert get(memory, A) == "device"
        memory.release(A)  # And what is released on its way does not arrive.
        go_on.set()

    in_threads(lambda: get(memory, B), ask)
    assert memory.host_bytes == 0


def test_many_threads_many_prefixes() -> None:
    """Whatever the interleaving: the right values, and limits that hold in the end."""
    memory, together = make_memory(device=160, host=160), threading.Barrier(6)

    def work(first: int) -> None:
        together.wait(timeout=60)
        for number in range(60):
            seed = (first + number * number) % 5
            prefix, _ = memory.get(f"{seed:064x}", lambda s=seed: make_prefix(10, seed=s))  # type: ignore[misc]
            assert prefix.keys[0][0, 0, 0, 0] == seed
            if number % 11 == first:
                memory.release(f"{seed:064x}")

    in_threads(*[lambda first=first: work(first) for first in range(6)])  # type: ignore[misc]
    assert memory.device_bytes <= 160
    assert memory.host_bytes <= 160


# ---------------------------------------------------------------- against a simple model


class Reference:
    """The rules in their plainest form: lists of (key, bytes), the one used last at the end."""

    def __init__(self, device: int, host: int) -> None:
        self.limits = device, host
        self.device: list[tuple[str, int]] = []
        self.host: list[tuple[str, int]] = []

    def get(self, key: str, size: int) -> str:
        source = "computed"
        for name, level in (("device", self.device), ("host", self.host)):
            for entry in [entry for entry in level if entry[0] == key]:
                level.remove(entry)
                source = name
        self.device.append((key, size))
        for entry in list(self.over(self.device, self.limits[0])):
            if entry[1] <= self.limits[1]:
                self.host.append(entry)
                list(self.over(self.host, self.limits[1]))
        return source

    def over(self, level: list[tuple[str, int]], limit: int) -> Iterator[tuple[str, int]]:
        while len(level) > 1 and sum(size for _, size in level) > limit:
            yield level.pop(0)

    def release(self, key: str) -> None:
        self.device = [entry for entry in self.device if entry[0] != key]
        self.host = [entry for entry in self.host if entry[0] != key]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limits=st.tuples(st.integers(0, 12), st.integers(0, 12)),
    steps=st.lists(st.tuples(st.sampled_from("gggr"), st.integers(0, 5)), max_size=40),
)
def test_levels_are_those_of_the_simple_model(
    limits: tuple[int, int], steps: list[tuple[str, int]]
) -> None:
    device, host = (8 * limit for limit in limits)
    memory, reference = make_memory(device=device, host=host), Reference(device, host)
    for step, number in steps:
        key, n_tokens = f"{number:064x}", number + 1
        if step == "r":
            memory.release(key)
            reference.release(key)
        else:
            assert get(memory, key, n_tokens) == reference.get(key, 8 * n_tokens)
        assert memory.device_bytes == sum(size for _, size in reference.device)
        assert memory.host_bytes == sum(size for _, size in reference.host)
