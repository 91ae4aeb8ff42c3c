"""AdapterByteStore: LangChain's own suites, and adapters that travel from machine to machine."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from langchain_core.stores import BaseStore

from langchain_ttt import AdapterByteStore
from ttt_core import (
    AdaptationConfig,
    AdaptationReport,
    AdapterStore,
    ConfigError,
    StoreError,
    TTTEngine,
)
from ttt_core.identity import AdapterIdentity
from ttt_core.namespace import Namespace
from ttt_core.store import StoredAdapter
from ttt_core.store.format import encode

pytest.importorskip("langchain_tests")
from langchain_tests.integration_tests import BaseStoreAsyncTests, BaseStoreSyncTests

OWLS = "\n".join(f"the owl number {number} lives in tree {number * 7 % 10}" for number in range(5))
DEFAULT = Namespace()


@cache
def adapter(number: int, namespace: Namespace = DEFAULT) -> tuple[str, bytes]:
    """An adapter's key and file; another one for every number."""
    report = AdaptationReport(
        decision="adapted",
        reasons=(),
        parametrization="lora",
        supervision="cloze",
        document_tokens=9,
        seconds={},
    )
    identity = AdapterIdentity(
        base="1" * 64,
        tokenizer="2" * 64,
        template="3" * 64,
        prefix=f"{number:064x}",
        config=AdaptationConfig(),
    )
    weights = {"a.lora_A.weight": torch.full((2, 4), float(number))}
    key = identity.key(namespace)
    entry = StoredAdapter(identity=identity, report=report, weights=weights)
    return key, encode(entry, key, namespace=namespace.name)


class _Fixtures:
    @pytest.fixture
    def kv_store(self, tmp_path: Path) -> BaseStore[str, bytes]:
        return AdapterByteStore(tmp_path / "store")

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return adapter(0)[1], adapter(1)[1], adapter(2)[1]


class TestSync(_Fixtures, BaseStoreSyncTests[bytes]):
    pass


class TestAsync(_Fixtures, BaseStoreAsyncTests[bytes]):
    pass


@pytest.fixture
def store(tmp_path: Path) -> AdapterByteStore:
    return AdapterByteStore(tmp_path / "store")


def test_names_and_own_keys(store: AdapterByteStore) -> None:
    key, data = adapter(1)
    store.mset([("contracts/2024", adapter(0)[1]), (key, data)])
    assert store.mget(["contracts/2024", key, "contracts"]) == [adapter(0)[1], data, None]
    assert sorted(store.yield_keys(prefix="")) == sorted(["contracts/2024", key])
    assert list(store.yield_keys(prefix="contracts/")) == ["contracts/2024"]
    assert list(store.yield_keys(prefix=key[:8])) == [key]
    store.mdelete([key, "contracts/2024"])
    assert list(store.yield_keys()) == []


def test_what_is_no_adapter_of_this_namespace_is_refused(store: AdapterByteStore) -> None:
    for wrong in (b"text", adapter(0)[1][:-4], adapter(0, Namespace("other"))[1]):
        with pytest.raises(StoreError, match="these bytes are no adapter of this store"):
            store.mset([("foo", wrong)])
    with pytest.raises(TypeError, match="bytes-like"):
        store.mset([("foo", "text")])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="name of an adapter"):
        store.mset([("x" * 10_000, adapter(0)[1])])
    assert list(store.yield_keys()) == []


def test_opens_what_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTT_HOME", str(tmp_path))
    key, data = adapter(0)
    AdapterByteStore().mset([adapter(0)])
    for same in (tmp_path / "adapters", str(tmp_path / "adapters"), AdapterStore()):
        assert AdapterByteStore(same).mget([key]) == [data]
        assert AdapterByteStore(same, namespace="legal").mget([key]) == [None]
    legal = Namespace("legal", b"0123456789abcdef")
    kept = AdapterStore(namespace=legal)
    AdapterByteStore(kept).mset([adapter(0, legal)])
    assert list(AdapterByteStore(namespace=legal).yield_keys()) == [adapter(0, legal)[0]]
    assert list(AdapterByteStore(kept, namespace="default").yield_keys()) == [key]
    with pytest.raises(ConfigError, match="a namespace is named by"):
        AdapterByteStore(namespace="No Name")


def test_keys_come_beside_the_event_loop(store: AdapterByteStore) -> None:
    async def use() -> tuple[list[str], list[bytes | None]]:
        await store.amset([("foo", adapter(0)[1])])
        keys = [key async for key in store.ayield_keys()]
        found = await store.amget(keys)
        await store.amdelete(keys)
        return keys, found

    assert asyncio.run(use()) == (["foo"], [adapter(0)[1]])
    assert list(store.yield_keys()) == []


@pytest.mark.parametrize("named", [False, True])
def test_what_is_copied_is_found_by_an_engine(
    make_model: Any, tokenizer: Any, tmp_path: Path, named: bool
) -> None:
    """Learned on one machine, copied to another one, and not learned again there."""
    recipe = AdaptationConfig(
        steps=2, learning_rate=0.01, gate=False, early_stopping=False, held_out=2,
        clozes_per_step=2, max_drift=1e9,
    )  # fmt: skip
    here, there = tmp_path / "here", tmp_path / "there"
    with TTTEngine(make_model("qwen3"), tokenizer, adaptation=recipe, store=here) as engine:
        learned = engine.adapt(OWLS)
        assert learned.source == "trained"
        answer = engine.generate(learned, "Where?", max_new_tokens=6).text
    keys = list(AdapterByteStore(here).yield_keys())
    (data,) = AdapterByteStore(here).mget(keys)
    assert keys == [learned.key]
    assert data is not None
    AdapterByteStore(there).mset([("the owls" if named else keys[0], data)])
    with TTTEngine(make_model("qwen3"), tokenizer, adaptation=recipe, store=there) as engine:
        found = engine.adapt(OWLS)
        assert found.source == "store"
        assert found.report == learned.report
        assert engine.generate(found, "Where?", max_new_tokens=6).text == answer
