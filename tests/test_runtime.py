"""Turns on the model: in order, one at a time, and nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from transformers import PreTrainedModel

from ttt_core import AdaptationConfig, OutOfMemoryError
from ttt_core.adapter import QueryAdapter
from ttt_core.runtime import Runtime

WAIT = 30  # Seconds after which a deadlock is a failure; nothing waits that long.


@pytest.fixture
def runtime(model: PreTrainedModel) -> Runtime:
    return Runtime(model)


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Released once for every thread that has taken its place in the queue."""
    arrived = threading.Semaphore(0)

    class AnnouncingEvent(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            arrived.release()
            return super().wait(timeout)

    patched = SimpleNamespace(Event=AnnouncingEvent, Lock=threading.Lock)
    monkeypatch.setattr("ttt_core.runtime.threading", patched)
    return arrived


def make_adapter(runtime: Runtime, parametrization: str = "lora") -> QueryAdapter:
    config = AdaptationConfig(parametrization=parametrization, r=2)  # type: ignore[arg-type]
    return QueryAdapter.create(runtime.architecture.projections, config)


def projections(runtime: Runtime) -> list[torch.nn.Module]:
    names = [projection.name for projection in runtime.architecture.projections]
    return [runtime.model.get_submodule(name) for name in names]


def test_turns_are_served_in_order_of_arrival(
    runtime: Runtime, queued: threading.Semaphore
) -> None:
    served: list[int] = []

    def work(number: int) -> None:
        with runtime.turn():
            served.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    with runtime.turn():
        assert queued.acquire(timeout=WAIT)
        for thread in threads:
            thread.start()
            assert queued.acquire(timeout=WAIT)
        assert served == []
    for thread in threads:
        thread.join(WAIT)
    assert served == [0, 1, 2, 3, 4, 5]


def test_one_at_a_time(runtime: Runtime) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            with runtime.turn():
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert (inside, most) == (0, 1)


def test_exception_releases_the_turn(runtime: Runtime, queued: threading.Semaphore) -> None:
    done = threading.Event()

    def work() -> None:
        with runtime.turn():
            done.set()

    waiting = threading.Thread(target=work)

    def fail() -> None:
        with runtime.turn():
            queued.acquire(timeout=WAIT)
            waiting.start()
            assert queued.acquire(timeout=WAIT)  # It waits behind us.
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert done.wait(WAIT)
    waiting.join(WAIT)


def test_who_gives_up_waiting_leaves_the_queue(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A KeyboardInterrupt while waiting must not block everybody behind for ever."""

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            raise KeyboardInterrupt

    with runtime.turn(), monkeypatch.context() as patch:
        patched = SimpleNamespace(Event=Interrupted, Lock=threading.Lock)
        patch.setattr("ttt_core.runtime.threading", patched)
        with pytest.raises(KeyboardInterrupt), runtime.turn():
            pass
    with runtime.turn() as model:
        assert model is runtime.model


def test_training_flags_come_back_one_by_one(runtime: Runtime) -> None:
    model = runtime.model.train()
    odd = next(module for name, module in model.named_modules() if name.endswith("mlp"))
    odd.training = False  # Not its children: some people freeze modules like this.
    before = {name: module.training for name, module in model.named_modules()}
    with runtime.turn():
        assert not any(module.training for module in model.modules())
    assert {name: module.training for name, module in model.named_modules()} == before
    assert len(set(before.values())) == 2


@pytest.mark.parametrize("parametrization", ["lora", "full"])
def test_making_an_adapter_changes_no_training_flag(runtime: Runtime, parametrization: str) -> None:
    """The adapter's layers hold the model's own, which belong to the user."""
    runtime.model.train()
    make_adapter(runtime, parametrization)
    assert all(module.training for module in runtime.model.modules())


def test_training_flags_come_back_after_an_exception(runtime: Runtime) -> None:
    adapter = make_adapter(runtime)
    runtime.model.train()

    def fail() -> None:
        with runtime.turn(adapter):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all(module.training for module in runtime.model.modules())


@pytest.mark.parametrize("parametrization", ["lora", "full"])
def test_adapter_is_there_for_the_turn_only(runtime: Runtime, parametrization: str) -> None:
    before = projections(runtime)
    names = list(runtime.model.state_dict())
    with runtime.turn(make_adapter(runtime, parametrization)):
        assert not any(a is b for a, b in zip(before, projections(runtime), strict=True))
    assert all(a is b for a, b in zip(before, projections(runtime), strict=True))
    assert list(runtime.model.state_dict()) == names


def test_adapter_is_detached_after_an_exception(runtime: Runtime) -> None:
    before = projections(runtime)

    def fail() -> None:
        with runtime.turn(make_adapter(runtime)):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all(a is b for a, b in zip(before, projections(runtime), strict=True))


def test_adapter_that_fails_half_way_is_detached(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, before = make_adapter(runtime), projections(runtime)
    last = runtime.architecture.projections[-1].name
    monkeypatch.delitem(adapter._layers, last)
    with pytest.raises(KeyError), runtime.turn(adapter):
        pass
    assert all(a is b for a, b in zip(before, projections(runtime), strict=True))
    with runtime.turn() as model:  # The turn was given back as well.
        assert model is runtime.model


def raise_cuda() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def raise_python() -> None:
    raise MemoryError


def raise_cpu_allocator() -> None:
    torch.empty(2**58, dtype=torch.uint8)


def raise_windows() -> None:
    raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes.")


@contextmanager
def borrowed(runtime: Runtime) -> Iterator[None]:
    with runtime.turn(make_adapter(runtime)):
        yield


@pytest.mark.parametrize("fail", [raise_cuda, raise_python, raise_cpu_allocator, raise_windows])
def test_full_memory_is_one_error(runtime: Runtime, fail: Callable[[], None]) -> None:
    before = projections(runtime)
    with pytest.raises(OutOfMemoryError, match="prefill_chunk") as caught, borrowed(runtime):
        fail()
    assert isinstance(caught.value, MemoryError)
    assert caught.value.__cause__ is not None
    assert all(a is b for a, b in zip(before, projections(runtime), strict=True))


def test_other_runtime_errors_pass_as_they_are(runtime: Runtime) -> None:
    with pytest.raises(RuntimeError, match="shapes") as caught, runtime.turn():
        raise RuntimeError("shapes do not fit")
    assert not isinstance(caught.value, MemoryError)
