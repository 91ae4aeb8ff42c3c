"""Options of an integration object: what cannot be is said at once, with what to do instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ttt_core import AdaptationConfig, ConfigError, Document, DocumentError, RuntimeConfig
from ttt_core import TTTEngine as Engine
from ttt_core.integration import EngineMixin, to_documents
from ttt_core.integration.options import CALL_OPTIONS
from ttt_core.integration.registry import registry_for

OWLS = "the owl lives in an oak"
FOXES = "the fox lives in a den"
OWLS_ONLY = (Document.of(OWLS),)
ENGINES_OWN = [
    *((name, f"adaptation=AdaptationConfig({name}=") for name in AdaptationConfig.model_fields),
    *((name, f"runtime=RuntimeConfig({name}=") for name in RuntimeConfig.model_fields),
    *((name, f"(model, {name}=") for name in ("adaptation", "runtime", "store")),
]


class Options(EngineMixin[Any]):
    """The plainest integration: documents are text."""

    @staticmethod
    def _to_documents(documents: Any) -> tuple[Document, ...]:
        return to_documents(documents, text_of=lambda _: None, expected="str")


class Lookalike:
    """Has what is asked of an engine."""

    adapt = stream = None


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Engine]:
    with Engine.from_pretrained("nobody/nothing", store=tmp_path / "store") as engine:
        yield engine


# An engine beside a model


@pytest.mark.parametrize(
    ("engine", "found"), [("auto", "str"), (3, "int"), (Engine, "a class"), (object(), "object")]
)
def test_what_is_no_engine_is_said(engine: Any, found: str) -> None:
    with pytest.raises(ValidationError, match=f"engine is a TTTEngine, not {found}"):
        Options(engine=engine)


def test_what_looks_like_an_engine_is_one() -> None:
    lookalike: Any = Lookalike()
    assert Options(engine=lookalike).model.startswith("in-memory:Lookalike-")


@pytest.mark.parametrize(
    "option", [{"revision": "main"}, {"dtype": "float32"}, {"device": "cpu"}], ids=str
)
def test_how_to_load_goes_with_a_model_to_load(hub: Engine, option: dict[str, Any]) -> None:
    [name] = option
    with pytest.raises(ValidationError, match=rf"from_pretrained\(model, {name}=\.\.\.\)"):
        Options(engine=hub, **option)
    with pytest.raises(ValidationError, match=name):
        Options(model="m", **option).model_copy(update={"engine": hub})
    assert getattr(Options(model="m", **option), name) == option[name]


def test_copies_keep_the_engine(hub: Engine) -> None:
    options = Options(engine=hub, temperature=0.5)
    every = {name: getattr(options, name) for name in Options.model_fields}
    assert Options(**every) == options
    assert options.model_copy(update={"max_tokens": 3}).engine is hub


def test_an_engine_lends_its_name(hub: Engine, engine: Engine) -> None:
    assert Options(engine=hub).model == hub.name == "nobody/nothing"
    assert Options(engine=hub.in_namespace("legal")).model == "nobody/nothing"
    assert Options(engine=hub, model="mine").model == "mine"
    assert Options(engine=hub, model_name="mine").model == "mine"  # type: ignore[call-arg]
    assert engine.name is None
    assert Options(engine=engine).model.startswith("in-memory:TTTEngine-")
    assert Options(engine=engine).model == Options(engine=engine).model


def test_an_object_without_its_engine_says_so(engine: Engine) -> None:
    named = Options(engine=engine).model
    with pytest.raises(ConfigError, match="pass engine= again"):
        Options(model=named).adapt("A document.")
    assert Options(model=named, engine=engine).model == named


def test_an_engines_window_is_known_without_loading_it(
    tmp_path: Path, engine: Engine, hub: Engine
) -> None:
    with Engine.from_pretrained(store=tmp_path) as bundled:
        known = Options(engine=bundled)._known_window()
        assert bundled._host.loaded is None
        assert known == bundled.window
        assert Options(engine=bundled)._known_window() == known
    assert Options(engine=bundled)._known_window() is None
    assert Options(engine=engine)._known_window() == engine.window
    assert Options(engine=hub)._known_window() is None


def test_a_folders_name_holds_in_other_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with Engine.from_pretrained("folder", store=tmp_path / "store") as engine:
        assert engine.name == str(tmp_path / "folder")


VARIANTS: list[dict[str, Any]] = [
    {},
    {"revision": "main"},
    {"dtype": "float32"},
    {"adaptation": AdaptationConfig(gate=False)},
    {"adaptation": AdaptationConfig(steps=3)},
    {"runtime": RuntimeConfig(on_overflow="keep_start")},
    {"template_kwargs": {"a": 1}},
]


def test_engines_of_one_name_are_told_apart(tmp_path: Path) -> None:
    def seen(options: dict[str, Any]) -> str:
        with Engine.from_pretrained("a/b", store=tmp_path, **options) as engine:
            made = Options(engine=engine, engine_variant="made up")
            assert made.engine_variant == engine.in_namespace("legal").variant
        assert made.model == "a/b"
        return made.model_dump_json()

    assert len({seen(options) for options in VARIANTS}) == len(VARIANTS)
    assert [seen(options) for options in VARIANTS] == [seen(options) for options in VARIANTS]


@pytest.mark.parametrize(
    "options",
    [{"device": "cpu"}, {"adaptation": AdaptationConfig()}, {"runtime": RuntimeConfig()}],
    ids=str,
)
def test_an_engine_of_defaults_is_what_its_model_is(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    with Engine.from_pretrained("a/b", store=tmp_path, **options) as engine:
        assert Options(engine=engine).model_dump() == Options(model="a/b").model_dump()


# Options that are none


@pytest.mark.parametrize(("name", "said"), ENGINES_OWN, ids=str)
def test_what_is_the_engines_is_said_to_be(name: str, said: str) -> None:
    if name not in Options.model_fields:
        with pytest.raises(ValidationError) as made:
            Options.model_validate({"model": "m", name: 1})
        assert f"engine=TTTEngine.from_pretrained(model, {said.removeprefix('(model, ')}" in str(
            made.value
        )
    if name not in CALL_OPTIONS:
        with pytest.raises(ConfigError) as called:
            Options(model="m")._check_call({name: 1})
        assert said in str(called.value)


def test_local_files_only_is_a_variable_of_the_environment() -> None:
    with pytest.raises(ValidationError, match="HF_HUB_OFFLINE=1"):
        Options(model="m", local_files_only=True)  # type: ignore[call-arg]


def test_other_names_are_shown_those_that_there_are() -> None:
    with pytest.raises(ValidationError, match=r"did you mean 'temperature'\? the options are"):
        Options(model="m", temprature=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (True, "required"),
        ("any", "required"),
        ({"type": "tool", "name": "look"}, "look"),
        (False, None),
        (None, None),
    ],
    ids=str,
)
def test_a_calls_tool_choice_is_taken_in_all_shapes(given: Any, taken: str | None) -> None:
    assert Options(model="m")._check_call({"tool_choice": given}).get("tool_choice") == taken


# Documents


@pytest.mark.parametrize("nothing", [(), None])
def test_documents_are_dropped_with_their_ids(nothing: Any) -> None:
    loaded = Options(model="m", document_ids=("a" * 64,))
    with pytest.raises(DocumentError, match="pass the documents again"):
        loaded._check_texts(loaded.documents)
    assert loaded.model_copy(update={"temperature": 1.0}).document_ids == loaded.document_ids
    for options in (loaded, Options(model="m", documents=OWLS_ONLY)):
        bare = options.model_copy(update={"documents": nothing})
        assert (bare.documents, bare.document_ids) == ((), ())
        bare._check_texts(bare.documents)


def test_other_documents_bring_their_ids() -> None:
    copy = Options(model="m", documents=OWLS_ONLY).model_copy(update={"documents": FOXES})
    assert copy.document_ids == Options(model="m", documents=(Document.of(FOXES),)).document_ids


@given(
    st.integers(2, 50).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))),
    st.sampled_from(["", "  \n", 3, b"x", None]),
)
def test_of_several_documents_the_wrong_one_is_named(place: tuple[int, int], wrong: Any) -> None:
    total, number = place
    parts: list[Any] = [f"{OWLS} {n}" for n in range(total)]
    parts[number - 1] = wrong
    for documents in (parts, iter(parts)):
        with pytest.raises((ConfigError, DocumentError), match=f"^document {number}: ") as caught:
            Options._to_documents(documents)
        assert "owl" not in str(caught.value)


@pytest.mark.parametrize("documents", ["", [""]], ids=str)
def test_a_single_document_needs_no_number(documents: str | Sequence[str]) -> None:
    with pytest.raises(DocumentError, match=r"^the document is empty"):
        Options._to_documents(documents)


# What leads to the engine


def test_the_registry_is_that_of_engine_and_namespace(engine: Engine) -> None:
    legal = Options(engine=engine, namespace="legal")
    identifier = legal._registry().register((Document.of(OWLS),))
    assert registry_for(engine.in_namespace("legal")).get(identifier) == (Document.of(OWLS),)
    assert registry_for(engine).get(identifier) is None


@given(text=st.text(max_size=40))
def test_tokens_are_the_models(text: str) -> None:
    from tests.conftest import build_model, build_tokenizer

    options = _shared.setdefault(
        "options", Options(engine=Engine(build_model("qwen3"), build_tokenizer()))
    )
    ids = options._token_ids(text)
    assert len(ids) == options._engine().count_tokens(text)
    assert options._engine().tokenizer.decode(ids) == text


_shared: dict[str, Options] = {}
