"""Tenants, for TTTLLM: see the tests of the same name for ChatTTT."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.schema import TextNode, TransformComponent
from pydantic import ValidationError

from llamaindex_ttt import TTTLLM
from ttt_core import AdaptationConfig, ConfigError, TTTEngine
from ttt_core.namespace import Namespace

OWLS = "\n".join(f"the owl number {number} lives in tree {number * 7 % 10}" for number in range(5))
QUESTION = "Where?"
SECRET = "a secret of enough bytes"
OTHER_SECRET = "another secret of enough bytes"

RECIPE = AdaptationConfig(
    steps=2, learning_rate=0.01, gate=False, early_stopping=False, held_out=2, clozes_per_step=2,
    max_drift=1e9,
)  # fmt: skip


@pytest.fixture
def engine(model: Any, tokenizer: Any, tmp_path: Path) -> Iterator[TTTEngine]:
    with TTTEngine(model, tokenizer, adaptation=RECIPE, store=tmp_path / "store") as engine:
        yield engine


def make(engine: TTTEngine | None = None, **options: Any) -> TTTLLM:
    chosen: dict[str, Any] = {"engine": engine} if engine else {"model": "m"}
    return TTTLLM(max_tokens=4, documents=OWLS, **chosen, **options)


def sealed(engine: TTTEngine | None = None, **options: Any) -> TTTLLM:
    return make(engine, **{"namespace": "legal", "namespace_secret": SECRET, **options})


def told(llm: TTTLLM) -> tuple[str, str]:
    """Where an answer's adapter came from, and in which namespace."""
    raw = llm.complete(QUESTION).raw
    assert isinstance(raw, dict)
    return raw["ttt"]["source"], raw["ttt"]["namespace"]


def test_tenants_learn_for_themselves(engine: TTTEngine) -> None:
    assert told(make(engine)) == ("trained", "default")
    assert told(make(engine, namespace="legal")) == ("trained", "legal")
    assert told(sealed(engine)) == ("trained", "legal")
    assert told(sealed(engine, namespace_secret=OTHER_SECRET)) == ("trained", "legal")
    assert told(make(engine)) == ("memory", "default")
    assert told(make(engine, namespace="legal")) == ("memory", "legal")
    assert told(sealed(engine)) == ("memory", "legal")


def test_the_namespace_survives_copies(engine: TTTEngine) -> None:
    llm = sealed(engine)
    assert told(llm) == ("trained", "legal")
    for copied in (
        llm.for_documents(OWLS),
        llm.model_copy(update={"max_tokens": 5}),
        copy.copy(llm),
        copy.deepcopy(llm),
    ):
        assert told(copied) == ("memory", "legal")
    other = llm.model_copy(update={"namespace": "hr"})
    assert other._engine().namespace == Namespace("hr", SECRET.encode())


def test_what_is_no_namespace_fails_at_construction() -> None:
    with pytest.raises(ValidationError, match="a namespace is named by"):
        make(namespace="No Name")
    with pytest.raises(ValidationError, match="at least 16 bytes"):
        make(namespace="legal", namespace_secret="short")
    with pytest.raises(ValidationError, match="name one") as caught:
        make(namespace_secret=SECRET)
    assert SECRET not in str(caught.value)


def test_dict_and_back() -> None:
    plain = make(namespace="legal")
    assert TTTLLM.from_dict(plain.to_dict())._engine().namespace == Namespace("legal")
    llm = sealed()
    assert SECRET not in llm.to_json() + repr(llm) + str(vars(llm)) + str(llm.to_payload())
    data = llm.to_dict()
    loaded = TTTLLM.from_dict(dict(data)).for_documents(OWLS)
    assert loaded.to_dict() == data
    for wrong in (loaded, loaded.model_copy(update={"namespace_secret": OTHER_SECRET})):
        with pytest.raises(ConfigError, match="made for a namespace with a secret"):
            wrong.complete(QUESTION)
    again = TTTLLM.from_dict(dict(data), namespace_secret=SECRET)
    assert again._engine().namespace == Namespace("legal", SECRET.encode())


def test_payload_names_the_namespace() -> None:
    assert sealed().to_payload()["namespace"] == "legal"


def test_pickling_never_takes_the_secret_along(engine: TTTEngine) -> None:
    plain = pickle.loads(pickle.dumps(make(engine, namespace="legal")))
    assert (plain.engine, plain.namespace) == (None, "legal")
    with pytest.raises(TypeError, match="pass the secret to the other process yourself"):
        pickle.dumps(sealed(engine))


class _Extractor(TransformComponent):
    llm: TTTLLM

    def __call__(self, nodes: Any, **kwargs: Any) -> Any:
        return nodes


def test_ingestion_caches_keep_tenants_apart() -> None:
    nodes = [TextNode(text="a page", id_="1")]
    llms = [
        make(),
        make(namespace="legal"),
        sealed(),
        sealed(namespace_secret=OTHER_SECRET),
    ]
    hashes = {get_transformation_hash(nodes, _Extractor(llm=llm)) for llm in llms}
    assert len(hashes) == len(llms)
