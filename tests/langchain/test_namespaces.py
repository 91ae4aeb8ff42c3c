"""Tenants: no answer, adapter, cache entry or copy of an object crosses from one to another."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.load import dumpd, dumps, load
from langchain_core.runnables import ConfigurableField
from langchain_core.tracers import BaseTracer
from pydantic import ValidationError

from langchain_ttt import ChatTTT
from ttt_core import AdaptationConfig, ConfigError, TTTEngine
from ttt_core.integration.options import EngineOptions
from ttt_core.namespace import Namespace

OWLS = "\n".join(f"the owl number {number} lives in tree {number * 7 % 10}" for number in range(5))
QUESTION = "Where?"
SECRET = "a secret of enough bytes"
OTHER_SECRET = "another secret of enough bytes"

RECIPE = AdaptationConfig(
    steps=2, learning_rate=0.01, gate=False, early_stopping=False, held_out=2, clozes_per_step=2,
    max_drift=1e9,
)  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")


@pytest.fixture
def engine(model: Any, tokenizer: Any, tmp_path: Path) -> Iterator[TTTEngine]:
    with TTTEngine(model, tokenizer, adaptation=RECIPE, store=tmp_path / "store") as engine:
        yield engine


def make(engine: TTTEngine | None = None, **options: Any) -> ChatTTT:
    chosen: dict[str, Any] = {"engine": engine} if engine else {"model": "m"}
    return ChatTTT(max_tokens=4, documents=OWLS, **chosen, **options)


def sealed(engine: TTTEngine | None = None, **options: Any) -> ChatTTT:
    return make(engine, **{"namespace": "legal", "namespace_secret": SECRET, **options})


def reload(llm: ChatTTT, **options: Any) -> ChatTTT:
    loaded = load(
        dumpd(llm), allowed_objects=[ChatTTT], valid_namespaces=["langchain_ttt"], **options
    )
    assert isinstance(loaded, ChatTTT)
    return loaded


def told(llm: Any) -> tuple[str, str]:
    """Where an answer's adapter came from, and in which namespace."""
    details = llm.invoke(QUESTION).response_metadata["ttt"]
    return details["source"], details["namespace"]


def test_tenants_learn_for_themselves(engine: TTTEngine) -> None:
    assert told(make(engine)) == ("trained", "default")
    assert told(make(engine, namespace="legal")) == ("trained", "legal")
    assert told(sealed(engine)) == ("trained", "legal")
    assert told(sealed(engine, namespace_secret=OTHER_SECRET)) == ("trained", "legal")
    assert told(make(engine)) == ("memory", "default")
    assert told(make(engine, namespace="default")) == ("memory", "default")
    assert told(make(engine, namespace="legal")) == ("memory", "legal")
    assert told(sealed(engine)) == ("memory", "legal")
    answer = sealed(engine).invoke(QUESTION)
    assert SECRET not in answer.model_dump_json()


def test_an_engines_own_namespace_is_kept_unless_another_is_named(engine: TTTEngine) -> None:
    own = engine.in_namespace("hr")
    assert make(own)._engine() is own
    assert told(make(own)) == ("trained", "hr")
    assert told(make(own, namespace="legal")) == ("trained", "legal")
    assert make(own, namespace="legal").adapt().source == "memory"


def test_shared_engines_are_of_the_namespace() -> None:
    engine = sealed()._engine()
    assert engine.namespace == Namespace("legal", SECRET.encode())
    assert engine._host is make()._engine()._host
    assert make()._engine().namespace == Namespace()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"namespace": "No Name"}, "a namespace is named by"),
        ({"namespace": "../legal"}, "a namespace is named by"),
        ({"namespace": ""}, "a namespace is named by"),
        ({"namespace": "legal", "namespace_secret": "short"}, "at least 16 bytes"),
        ({"namespace": "legal", "namespace_secret": ""}, "at least 16 bytes"),
        ({"namespace_secret": SECRET}, "name one"),
    ],
)
def test_what_is_no_namespace_fails_at_construction(options: Any, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem) as caught:
        make(**options)
    assert SECRET not in str(caught.value)


# Copies


def test_the_namespace_survives_what_chains_do(engine: TTTEngine) -> None:
    llm = sealed(engine)
    assert told(llm) == ("trained", "legal")
    for copied in (
        llm.with_documents(OWLS),
        llm.model_copy(update={"max_tokens": 5}),
        copy.copy(llm),
        copy.deepcopy(llm),
        llm.bind(stop=["\x00"]),
        llm.with_config(tags=["x"]),
        llm.with_retry(),
    ):
        assert told(copied) == ("memory", "legal")
    heat = llm.configurable_fields(temperature=ConfigurableField(id="heat"))
    config: Any = {"configurable": {"heat": 0.5}}
    answer = heat.invoke(QUESTION, config=config)
    assert answer.response_metadata["ttt"]["source"] == "memory"


def test_a_copy_may_have_another_namespace(engine: TTTEngine) -> None:
    llm = sealed(engine)
    other = llm.model_copy(update={"namespace": "hr"})
    assert other._engine().namespace == Namespace("hr", SECRET.encode())
    assert other.namespace_seal.startswith("hr:")
    tenant = llm.configurable_fields(namespace=ConfigurableField(id="tenant"))
    config: Any = {"configurable": {"tenant": "hr"}}
    answer = tenant.invoke(QUESTION, config=config)
    assert answer.response_metadata["ttt"]["namespace"] == "hr"
    opened = llm.model_copy(update={"namespace_secret": None, "namespace_seal": ""})
    assert opened._engine().namespace == Namespace("legal")
    changed = llm.model_copy(update={"namespace_secret": OTHER_SECRET, "namespace_seal": ""})
    assert changed._engine().namespace == Namespace("legal", OTHER_SECRET.encode())


def test_losing_the_secret_by_a_copy_is_noticed(engine: TTTEngine) -> None:
    llm = sealed(engine)
    for update in (
        {"namespace_secret": None},
        {"namespace_secret": OTHER_SECRET},
        {"namespace_secret": None, "namespace": "hr"},
        {"namespace_secret": None, "namespace": None},
    ):
        with pytest.raises(ConfigError, match="pass the right namespace_secret"):
            llm.model_copy(update=update).invoke(QUESTION)


# Serialised forms


def test_no_form_of_the_object_holds_the_secret() -> None:
    llm = sealed()
    forms = [dumps(llm), repr(llm), str(llm), str(vars(llm)), llm.model_dump_json(),
             str(llm.asdict()), str(llm.model_dump()), str(llm._identifying_params),
             str(llm._get_ls_params()), llm._get_llm_string()]  # fmt: skip
    assert not [form for form in forms if SECRET in form]
    kwargs = dumpd(llm)["kwargs"]
    assert (kwargs["namespace"], kwargs["namespace_seal"]) == ("legal", llm.namespace_seal)
    assert kwargs["namespace_secret"]["id"] == ["TTT_NAMESPACE_SECRET"]
    assert not {"namespace", "namespace_seal", "namespace_secret"} & dumpd(make())["kwargs"].keys()


def test_the_seal_tells_secrets_apart_and_nothing_else() -> None:
    seals = [
        llm.namespace_seal
        for llm in (sealed(), sealed(namespace="hr"), sealed(namespace_secret=OTHER_SECRET))
    ]
    assert len({seal.partition(":")[2] for seal in seals}) == 3
    assert sealed().namespace_seal == seals[0]
    assert Namespace("legal", SECRET.encode()).folder not in seals[0]
    assert make(namespace="legal").namespace_seal == make().namespace_seal == ""


def test_loading_asks_the_environment_for_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTT_NAMESPACE_SECRET", SECRET)
    loaded = reload(sealed(), secrets_from_env=True)
    assert loaded._engine().namespace == Namespace("legal", SECRET.encode())
    assert dumps(loaded) == dumps(sealed())
    given = reload(sealed(), secrets_map={"TTT_NAMESPACE_SECRET": SECRET})
    assert given._engine().namespace == Namespace("legal", SECRET.encode())


@pytest.mark.parametrize("found", [None, OTHER_SECRET])
def test_without_the_right_secret_nothing_is_answered(
    found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TTT_NAMESPACE_SECRET", raising=False)
    if found:
        monkeypatch.setenv("TTT_NAMESPACE_SECRET", found)
    loaded = reload(sealed(), secrets_from_env=True).with_documents(OWLS)
    for use in (loaded.adapt, lambda: loaded.invoke(QUESTION), lambda: loaded.get_num_tokens("")):
        with pytest.raises(ConfigError, match="made for a namespace with a secret"):
            use()
    again = loaded.model_copy(update={"namespace_secret": SECRET})
    assert again._engine().namespace == Namespace("legal", SECRET.encode())
    assert dumps(reload(loaded)) == dumps(reload(sealed()).with_documents(OWLS))


def test_pickling_never_takes_the_secret_along() -> None:
    plain = pickle.loads(pickle.dumps(make(namespace="legal")))
    assert plain._engine().namespace == Namespace("legal")
    with pytest.raises(TypeError, match="pass the secret to the other process yourself"):
        pickle.dumps(sealed())


# Caches and traces


class _Unserialisable(ChatTTT):
    @classmethod
    def is_lc_serializable(cls) -> bool:
        return False


@pytest.mark.parametrize("kind", [ChatTTT, _Unserialisable])
def test_llm_cache_keeps_tenants_apart(engine: TTTEngine, kind: type[ChatTTT]) -> None:
    tenants: list[Any] = [
        {},
        {"namespace": "legal"},
        {"namespace": "hr"},
        {"namespace": "legal", "namespace_secret": SECRET},
        {"namespace": "legal", "namespace_secret": OTHER_SECRET},
    ]
    cache = InMemoryCache()
    for tenant in tenants:
        llm = kind(engine=engine, max_tokens=4, documents=OWLS, cache=cache, **tenant)
        first = llm.invoke(QUESTION)
        assert first.response_metadata["ttt"]["source"] == "trained"
        assert first.response_metadata["ttt"]["namespace"] == tenant.get("namespace", "default")
        again = llm.with_documents(OWLS).invoke(QUESTION)
        assert again.response_metadata["ttt"]["source"] == "trained"  # The cached answer.
    assert len(cache._cache) == len(tenants)
    assert SECRET not in str(cache._cache)


class _Traces(BaseTracer):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def _persist_run(self, run: Any) -> None:
        self.seen.append(json.dumps(run.model_dump(), default=repr))


def test_traces_name_the_tenant_and_not_the_secret(engine: TTTEngine) -> None:
    traces = _Traces()
    llm = sealed(engine)
    list(llm.stream(QUESTION, config={"callbacks": [traces]}))
    (trace,) = traces.seen
    assert '"namespace": "legal"' in trace
    assert llm.namespace_seal in trace
    assert SECRET not in trace


def test_the_secret_is_excluded_wherever_options_are_inherited() -> None:
    field = EngineOptions.model_fields["namespace_secret"]
    assert field.exclude
    assert not field.repr
