"""Lifetimes: namespaces, forked and pickled engines, what memory holds, and how long; closing."""

from __future__ import annotations

import copy
import fcntl
import gc
import multiprocessing
import os
import pickle
import select
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import ttt_core.host
import ttt_core.loaded
import ttt_core.origin
from ttt_core import (
    AdaptationConfig,
    AdapterStore,
    ModelLoadError,
    Progress,
    ReleasedError,
    RuntimeConfig,
    TTTEngine,
    shared_engine,
)
from ttt_core.loading import load
from ttt_core.locks import locked, pin, remove_unused
from ttt_core.namespace import Namespace
from ttt_core.runtime import Runtime

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")

KEYS = ["key", "cup", "map", "pen", "hat", "box", "jar", "net", "rug", "fan", "bag", "pot"]
TEXTS = ["\n".join(f"the {key} is in room {n}{i}." for i, key in enumerate(KEYS)) for n in range(3)]
TEXT, OTHER, THIRD = TEXTS
FORCED = AdaptationConfig(steps=2, learning_rate=3e-3, gate=False, r=4, clozes_per_step=4)
QUESTION = "where is the cup?"
SECRET = b"sixteen bytes or more"
PATIENCE = 60.0
"""Seconds after which something hangs."""

Make = Callable[..., TTTEngine]


def ask(engine: TTTEngine, document: Any) -> tuple[int, ...]:
    return engine.generate(document, QUESTION, max_new_tokens=8).token_ids


def in_child(work: Callable[[], Any]) -> Any:
    """Do `work` in a forked child; return what it returns, raise what it raises."""
    with forked(work) as result:
        return result()


@contextmanager
def forked(work: Callable[[], Any]) -> Iterator[Callable[[], Any]]:
    """Fork a child that does `work`; yield who waits for its result. Kills it if it hangs."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads.
        child = os.fork()
    if child == 0:
        os.close(reading)
        _report(work, writing)
    os.close(writing)

    def result() -> Any:
        if not select.select([reading], [], [], PATIENCE)[0]:
            raise AssertionError("the child hangs")
        with os.fdopen(reading, "rb", closefd=False) as pipe:
            ended_well, found = pickle.load(pipe)
        if not ended_well:
            raise found
        return found

    try:
        yield result
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _report(work: Callable[[], Any], writing: int) -> None:
    try:
        try:
            found = True, work()
        except BaseException as error:
            found = False, error
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(found, pipe)
    finally:
        os._exit(0)


class Gate:
    """Where those who compute with a model can be stopped, in the middle of a forward pass."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()
        self._open.set()
        model.get_input_embeddings().register_forward_pre_hook(self._pass)

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Let nobody through for the length of the block."""
        self.reached.clear()
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    def wait(self) -> None:
        """Wait until somebody stands before it."""
        assert self.reached.wait(PATIENCE)

    def _pass(self, module: torch.nn.Module, args: object) -> None:
        if not self._open.is_set():
            self.reached.set()
            assert self._open.wait(PATIENCE)


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def base_of(engine: TTTEngine) -> PreTrainedModel:
    return engine._resident().model.runtime.model


@pytest.fixture
def folder(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    """A model on disk."""
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def make(folder: Path, tmp_path: Path) -> Make:
    """Make an engine that can load its model again, in whatever process."""

    def make(**options: Any) -> TTTEngine:
        given = {"adaptation": FORCED, "store": tmp_path / "store", **options}
        return TTTEngine.from_pretrained(folder, **given)

    return make


@pytest.fixture
def around(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Make:
    """Make an engine around a model object."""

    def make(**limits: Any) -> TTTEngine:
        runtime = RuntimeConfig(**limits)
        return TTTEngine(
            model, tokenizer, adaptation=FORCED, runtime=runtime, store=tmp_path / "store"
        )

    return make


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(4)
    yield pool
    pool.shutdown(wait=True)


@pytest.fixture
def gate(model: PreTrainedModel) -> Gate:
    return Gate(model)


# ---------------------------------------------------------------- namespaces


@pytest.mark.parametrize("disk", [0, 1 << 24])
@pytest.mark.parametrize(
    "tenants",
    [
        ("a", "b"),
        ("a", Namespace("a", SECRET)),
        (Namespace("a", SECRET), Namespace("a", SECRET * 2)),
    ],
)
def test_tenants_share_the_model_and_nothing_of_a_document(
    around: Make, tmp_path: Path, tenants: tuple[Any, Any], disk: int
) -> None:
    base = around(max_disk_kv_bytes=disk)
    one, two = (base.in_namespace(tenant) for tenant in tenants)
    first, second = one.adapt(TEXT), two.adapt(TEXT)
    for found in (first, second):
        assert (found.source, found.prefix_source) == ("trained", "computed")
    assert base_of(one) is base_of(two) is base_of(base)
    assert first.key != second.key
    assert first.prefix is not second.prefix
    assert first.adapter is not second.adapter
    assert first.document_hash == second.document_hash
    files = [
        {path.name for path in engine._store._folder.path.rglob("*.*")} for engine in (one, two)
    ]
    assert all(files)
    assert not files[0] & files[1]
    assert len(list((tmp_path / "store" / "kv").rglob("*.safetensors"))) == 2 * bool(disk)
    third = base.read(TEXT)
    assert third.prefix_source == "computed"
    assert ask(one, first) == ask(two, second), "the recipe is the same"
    assert one.adapt(TEXT).source == two.adapt(TEXT).source == "memory"


def test_a_closed_view_leaves_the_others_as_they_are(around: Make) -> None:
    base = around()
    with base.in_namespace("a") as view:
        kept = view.adapt(TEXT)
        nested = view.in_namespace("b")
    assert view.closed
    assert not base.closed
    for use in (lambda: view.adapt(TEXT), lambda: kept.prefix, lambda: ask(view, None)):
        with pytest.raises(ReleasedError, match="closed"):
            use()
    assert base.adapt(TEXT).source == "trained"
    assert nested.adapt(TEXT).source == "trained"
    assert base.in_namespace("a").adapt(TEXT).source == "memory"


def test_closing_an_engine_ends_its_views(around: Make) -> None:
    base = around()
    view = base.in_namespace("a")
    kept = view.adapt(TEXT)
    base.close()
    assert view.closed
    for use in (lambda: view.adapt(TEXT), lambda: kept.adapter, lambda: ask(view, None)):
        with pytest.raises(ReleasedError, match="closed"):
            use()


def test_what_was_reset_is_forgotten_in_all_namespaces(around: Make) -> None:
    base = around()
    view = base.in_namespace("a")
    kept = view.adapt(TEXT)
    expected = ask(view, kept)
    base.reset()
    assert ask(view, kept) == expected
    base.reset()
    again = view.adapt(TEXT)
    assert (again.source, again.prefix_source) == ("store", "computed")


def test_shared_engines_share_a_model_between_namespaces(folder: Path) -> None:
    one = shared_engine(str(folder), namespace="a")
    two = shared_engine(str(folder), namespace="b")
    base = shared_engine(str(folder))
    assert (one.namespace.name, two.namespace.name, base.namespace.name) == ("a", "b", "default")
    assert one._host is two._host is base._host
    one.close()
    assert not shared_engine(str(folder), namespace="a").closed
    base.close()
    fresh = shared_engine(str(folder), namespace="a")
    assert two.closed
    assert not fresh.closed
    shared_engine(str(folder)).close()


def test_a_model_folder_stays_the_same_wherever_the_process_goes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    engine = TTTEngine.from_pretrained(folder.name, store="here")
    shared = shared_engine(folder.name)
    monkeypatch.chdir("/")
    assert engine.count_tokens("abc") == 3
    assert engine._store.path == tmp_path / "here"
    assert shared_engine(str(folder)) is shared
    shared.close()


# ---------------------------------------------------------------- forked


@pytest.fixture
def two_threads() -> Iterator[None]:
    """What a parent that computed with OpenMP leaves its children."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("two_threads")
def test_a_child_of_one_who_computed_answers_the_same(tmp_path: Path) -> None:
    engine = TTTEngine.from_pretrained(store=tmp_path, adaptation=FORCED)
    text = "\n".join(f"{key} falcon: room {i}" for i, key in enumerate(KEYS))
    adapted = engine.adapt(text)
    expected = ask(engine, adapted)

    def work() -> list[Any]:
        assert engine._host.loaded is None
        found: list[Any] = [ask(engine, adapted)]
        again = engine.adapt(text)
        found += [again.source, ask(engine, again)]
        found += [engine.adapt(text + "\nno falcon: room 99").source]
        with ThreadPoolExecutor(1) as pool:
            found += [pool.submit(ask, engine, again).result()]
        return found

    assert in_child(work) == [expected, "memory", expected, "trained", expected]
    assert in_child(lambda: engine.adapt(text).source) == "store"
    assert engine.adapt(text).source == "memory", "the parent lost nothing"


@pytest.mark.usefixtures("two_threads")
def test_a_child_of_one_who_has_closed_its_engine_does_not_hang(make: Make) -> None:
    with make() as engine:
        engine.adapt(TEXT)
    torch.ones(2_000_000).add_(1)
    assert in_child(lambda: (make().adapt(TEXT).source, torch.get_num_threads())) == ("store", 1)


@pytest.mark.usefixtures("two_threads")
def test_a_child_of_one_who_has_loaded_nothing_keeps_its_threads(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ttt_core.host, "_has_computed", False)
    assert make()._host.loaded is None
    assert in_child(torch.get_num_threads) == 2


@pytest.mark.parametrize("doing", ["generate", "adapt", "read"])
def test_a_child_forked_while_another_thread_computes(
    make: Make, threads: ThreadPoolExecutor, doing: str
) -> None:
    engine = make(runtime=RuntimeConfig(adaptation_timeout=0.5))
    known = engine.adapt(TEXT)
    expected = ask(engine, known)
    gate = Gate(base_of(engine))
    with gate.shut():
        if doing == "generate":
            running: Future[Any] = threads.submit(ask, engine, known)
        else:
            running = threads.submit(getattr(engine, doing), OTHER)
        gate.wait()

        def work() -> list[Any]:
            found = [ask(engine, known), engine.adapt(TEXT).source]
            # Locks of the store are the parent's still; they are waited for, but not for ever.
            return [*found, engine.adapt(OTHER).source, engine.read(OTHER).prefix_source]

        assert in_child(work) == [expected, "memory", "trained", "device"]
    assert running.result(PATIENCE)


@pytest.mark.parametrize("where", ["load", "weights_fingerprint"])
def test_a_child_forked_while_another_thread_loads(
    make: Make, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    module = ttt_core.origin if where == "load" else ttt_core.loaded
    work, parent = getattr(module, where), os.getpid()
    reached, go = threading.Event(), threading.Event()

    def slow(*args: Any, **options: Any) -> Any:
        if os.getpid() == parent:
            reached.set()
            assert go.wait(PATIENCE)
        return work(*args, **options)

    monkeypatch.setattr(module, where, slow)
    engine = make()
    running = threads.submit(engine.adapt, TEXT)
    try:
        assert reached.wait(PATIENCE)
        assert in_child(lambda: engine.adapt(TEXT).source) == "trained"
    finally:
        go.set()
    assert running.result(PATIENCE).source == "store"


def test_an_idle_model_object_works_in_a_child(around: Make) -> None:
    engine = around()
    adapted = engine.adapt(TEXT)
    expected = ask(engine, adapted)

    def work() -> list[Any]:
        return [ask(engine, adapted), engine.adapt(TEXT).source, engine.adapt(OTHER).source]

    assert in_child(work) == [expected, "memory", "trained"]
    assert ask(engine, adapted) == expected


def test_a_busy_model_object_does_not_work_in_a_child(
    around: Make, gate: Gate, threads: ThreadPoolExecutor
) -> None:
    engine = around()
    adapted = engine.adapt(TEXT)
    view = engine.in_namespace("a")
    with gate.shut():
        running = threads.submit(ask, engine, adapted)
        gate.wait()
        for use in (
            lambda: engine.adapt(TEXT),
            lambda: ask(engine, adapted),
            lambda: view.read(TEXT),
            lambda: adapted.prefix,
            lambda: in_child(lambda: engine.adapt(TEXT)),
        ):
            with pytest.raises(ReleasedError, match=r"forked while .* computing; make the engine"):
                in_child(use)
    assert running.result(PATIENCE)


@pytest.fixture
def on_accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Let models seem to be on a GPU, when they are forked; the result undoes it."""
    with monkeypatch.context() as patch:
        patch.setattr(Runtime, "device", property(lambda self: torch.device("cuda")))
        yield patch.undo


def test_a_model_object_on_an_accelerator_stays_with_its_process(
    around: Make, request: pytest.FixtureRequest
) -> None:
    engine = around()
    adapted = engine.adapt(TEXT)
    undo = request.getfixturevalue("on_accelerator")

    def work() -> Any:
        undo()
        return engine.generate(adapted, QUESTION)

    with pytest.raises(ReleasedError, match="accelerator"):
        in_child(work)


def test_what_lives_on_an_accelerator_is_loaded_again_and_never_freed_by_a_child(
    make: Make, request: pytest.FixtureRequest
) -> None:
    engine = make()
    adapted = engine.adapt(TEXT)
    expected = ask(engine, adapted)
    parents = weakref.ref(base_of(engine)), weakref.ref(adapted.prefix)
    undo = request.getfixturevalue("on_accelerator")

    def work() -> list[Any]:
        undo()
        found = ask(engine, adapted)
        engine.close()
        gc.collect()
        return [found, [parent() is not None for parent in parents]]

    assert in_child(work) == [expected, [True, True]]


def test_a_child_that_cannot_use_the_accelerator_is_told_what_to_do(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert make().window == 512, "a build for CUDA on a machine without"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for device in ("auto", "cuda", "cuda:0"):
        with pytest.raises(ModelLoadError, match="'spawn' or 'forkserver'"):
            make(device=device).adapt(TEXT)
    assert make(device="cpu").window == 512


def test_a_stream_stays_with_its_process(around: Make) -> None:
    engine = around()
    adapted = engine.adapt(TEXT)
    expected = engine.generate(adapted, QUESTION, max_new_tokens=12).text
    stream = engine.stream(adapted, QUESTION, max_new_tokens=12)
    begin = next(stream)

    def work() -> str:
        with pytest.raises(ReleasedError, match="ask again"):
            next(stream)
        stream.close()
        return engine.generate(adapted, QUESTION, max_new_tokens=12).text

    assert in_child(work) == expected
    assert begin + "".join(stream) == expected


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_worker_processes_take_engines_and_return_documents(make: Make, method: str) -> None:
    engine = make(namespace="tenant")
    expected = ask(engine, engine.adapt(TEXT))
    with multiprocessing.get_context(method).Pool(1) as pool:
        found = pool.apply_async(TTTEngine.adapt, (engine, TEXT)).get(2 * PATIENCE)
        assert found.source == "store"
        asked = TTTEngine.generate, (engine, found, QUESTION), {"max_new_tokens": 8}
        assert pool.apply_async(*asked).get(2 * PATIENCE).token_ids == expected
    assert ask(engine, found) == expected
    assert found._prefix.func.__self__ is engine, "a handle finds its engine again"


# ---------------------------------------------------------------- forked: files


def is_free(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """For a child that lives until something is written, or the writing end is closed."""
    reading, writing = os.pipe()
    try:
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


def test_a_lock_stays_with_the_process_that_took_it(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    path, held, go = tmp_path / "a.lock", threading.Event(), threading.Event()

    def hold() -> None:
        with locked(path, timeout=PATIENCE):
            held.set()
            assert go.wait(PATIENCE)

    running = threads.submit(hold)
    assert held.wait(PATIENCE)
    in_child(lambda: None)
    assert not is_free(path), "a child that ends frees nothing"
    with pipe() as (inherited, alive), forked(lambda: os.read(inherited, 1)) as result:
        go.set()
        running.result(PATIENCE)
        assert is_free(path), "a child that lives holds nothing"
        os.write(alive, b"x")
        assert result() == b"x"


def test_a_child_that_leaves_the_block_leaves_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"

    def leave(block: Any) -> None:
        block.__exit__(None, None, None)

    block = locked(path, timeout=PATIENCE)
    assert block.__enter__()
    in_child(lambda: leave(block))
    assert path.exists()
    assert not is_free(path)
    leave(block)
    assert not path.exists()


def test_a_lock_ends_with_its_process_although_a_child_of_that_lives(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    block = locked(path, timeout=PATIENCE)
    with pipe() as (inherited, alive):

        def hold() -> bool:
            held = block.__enter__()
            if os.fork() == 0:
                os.close(alive)
                os.read(inherited, 1)
                os._exit(0)
            return held and not is_free(path)

        with forked(hold) as result:
            assert result()
        assert path.exists(), "nobody could tidy up"
        assert is_free(path)


def test_a_child_lets_go_even_of_pins_that_somebody_still_refers_to(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    held = pin(path)
    assert held is not None
    with pipe() as (inherited, alive), forked(lambda: os.read(inherited, 1)) as result:
        assert not in_child(lambda: remove_unused(path))
        held.close()
        assert remove_unused(path)
        os.write(alive, b"x")
        assert result() == b"x"


def test_a_pin_stays_with_the_process_that_holds_the_adapter(make: Make) -> None:
    engine = make()
    engine.adapt(TEXT)
    store = engine._store
    with pipe() as (inherited, alive), forked(lambda: os.read(inherited, 1)) as result:
        assert not in_child(lambda: store.prune(max_bytes=0)).removed
        engine.reset()
        assert len(in_child(lambda: store.prune(max_bytes=0)).removed) == 1, "the child has no pin"
        os.write(alive, b"x")
        assert result() == b"x"


# ---------------------------------------------------------------- pickled and copied


def test_copies_are_the_engine_itself(make: Make, around: Make) -> None:
    for engine in (make(), around(), around().in_namespace(Namespace("a", SECRET))):
        assert copy.copy(engine) is copy.deepcopy(engine) is engine
        assert copy.deepcopy({"engine": [engine]})["engine"][0] is engine
    engine = make()
    assert pickle.loads(pickle.dumps(engine)) is engine


def test_a_pickled_engine_loads_again_when_it_is_needed(make: Make) -> None:
    engine = make(namespace="a")
    expected = ask(engine, engine.adapt(TEXT))
    data = pickle.dumps(engine)
    del engine
    gc.collect()
    again = pickle.loads(data)
    assert again._host.loaded is None
    assert pickle.loads(data) is again
    assert again.namespace == Namespace("a")
    adapted = again.adapt(TEXT)
    assert adapted.source == "store"
    assert ask(again, adapted) == expected


def test_pickled_views_share_one_model(make: Make) -> None:
    engine = make()
    data = [
        pickle.dumps(one) for one in (engine.in_namespace("a"), engine.in_namespace("b"), engine)
    ]
    view = pickle.loads(data[0])
    assert view is not engine
    assert (view._host, view.namespace.name) == (engine._host, "a")
    del engine, view
    gc.collect()
    one, two, base = (pickle.loads(each) for each in data)
    assert [each.namespace.name for each in (one, two, base)] == ["a", "b", "default"]
    assert one._host is two._host is base._host
    one.close()
    assert two.adapt(TEXT).source == "trained"


def test_what_would_carry_a_secret_or_a_model_is_not_pickled(make: Make, around: Make) -> None:
    for engine in (
        make(namespace=Namespace("a", SECRET)),
        make().in_namespace(Namespace("a", SECRET)),
    ):
        with pytest.raises(TypeError, match="secret") as caught:
            pickle.dumps(engine)
        assert SECRET.decode() not in str(caught.value)
    for engine in (around(), around().in_namespace("a")):
        with pytest.raises(TypeError, match="from_pretrained"):
            pickle.dumps(engine)
    closed = make()
    closed.close()
    with pytest.raises(ReleasedError, match="closed"):
        pickle.dumps(closed)


def test_a_pickled_document_brings_its_engine(make: Make, around: Make) -> None:
    engine = make()
    documents = [engine.adapt(TEXT), engine.read(OTHER)]
    expected = [ask(engine, document) for document in documents]
    data = [pickle.dumps(document) for document in documents]
    assert ask(engine, pickle.loads(data[0])) == expected[0]
    del engine, documents
    gc.collect()
    first, second = (pickle.loads(each) for each in data)
    engine = first._prefix.func.__self__
    assert second._prefix.func.__self__ is engine
    assert engine._host.loaded is None
    assert (first.source, first.n_tokens) == ("trained", len(first.prefix))
    assert [ask(engine, document) for document in (first, second)] == expected
    with pytest.raises(TypeError, match="model object"):
        pickle.dumps(around().adapt(TEXT))


def test_an_answer_in_the_making_is_not_pickled(around: Make) -> None:
    engine = around()
    stream = engine.stream(engine.adapt(TEXT), QUESTION, max_new_tokens=2)
    for refused in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="answer in the making"):
            refused(stream)
    "".join(stream)
    assert pickle.loads(pickle.dumps(stream.answer)) == stream.answer


def test_a_store_is_pickled_as_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    url = (tmp_path / "remote").as_uri()
    store = AdapterStore(
        "here", namespace="a", max_bytes=7, max_age=8.0, remote=url, remote_mode="write-behind"
    ).in_namespace("b")
    data = pickle.dumps(store)
    monkeypatch.chdir("/")
    again = pickle.loads(data)
    assert again.path == store.path == tmp_path / "here"
    assert (again.namespace, again.limits) == (Namespace("b"), store.limits)
    assert pickle.dumps(again) == data
    assert copy.copy(store) is copy.deepcopy(store) is store


@pytest.mark.parametrize(
    "options",
    [
        {"remote": "memory://a", "remote_options": {"secret": "hidden"}},
        {"remote": "s3://me:hidden@bucket/a"},
        {"remote": "https://host/a?token=hidden"},
        {"namespace": Namespace("a", SECRET)},
    ],
)
def test_a_store_that_may_hold_secrets_is_not_pickled(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    store = AdapterStore(tmp_path, **options)
    for one in (store, store.in_namespace(options.get("namespace", "b"))):
        with pytest.raises(TypeError, match="other process") as caught:
            pickle.dumps(one)
        assert "hidden" not in str(caught.value)
        assert copy.deepcopy(one) is one


# ---------------------------------------------------------------- held in memory


def test_a_running_request_keeps_what_memory_has_let_go_of(around: Make) -> None:
    engine = around(max_kv_bytes=0, max_adapter_bytes=0)
    adapted = engine.adapt(TEXT)
    expected = engine.generate(adapted, QUESTION, max_new_tokens=16).text
    held = weakref.ref(adapted.prefix), weakref.ref(adapted.adapter)
    stream = engine.stream(adapted, QUESTION, max_new_tokens=16)
    begin = next(stream)
    engine.adapt(OTHER)
    engine.reset()
    gc.collect()
    assert all(one() is not None for one in held)
    assert begin + "".join(stream) == expected
    gc.collect()
    assert all(one() is None for one in held)


def kept_in_use(store: AdapterStore) -> int:
    """How many adapters another process finds to be in use."""
    return len(in_child(lambda: store.prune(max_bytes=0, dry_run=False)).kept_in_use)


@pytest.mark.parametrize("way", ["reset", "close", "evict", "release"])
def test_a_file_is_pinned_while_its_adapter_is_in_memory(around: Make, way: str) -> None:
    engine = around(max_adapter_bytes=0)
    store = engine._store
    adapted = engine.adapt(TEXT)
    assert kept_in_use(store) == 1
    if way == "reset":
        engine.reset()
    elif way == "close":
        engine.close()
    elif way == "evict":
        engine.adapt(OTHER)
        assert kept_in_use(store) == 1, "the other one, in its place"
        assert store.get(adapted.key) is None
        return
    else:
        adapted.release()
    assert kept_in_use(store) == 0
    assert store.get(adapted.key) is None


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts in /proc")
def test_no_descriptors_are_left(make: Make) -> None:
    def use() -> None:
        with make(runtime=RuntimeConfig(max_disk_kv_bytes=1 << 24)) as engine:
            engine.adapt_many(TEXTS)
            engine.in_namespace("a").adapt(TEXT)
            engine.reset()
            engine.adapt(TEXT)
        del engine
        gc.collect()

    use()
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        use()
    assert len(os.listdir("/proc/self/fd")) <= len(before)


# ---------------------------------------------------------------- closing


def test_closing_gives_the_model_back(
    make_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = make_model("qwen3")
    engine = TTTEngine(model, tokenizer, adaptation=FORCED, store=tmp_path)
    adapted = engine.adapt(TEXT)
    stream = engine.stream(adapted, QUESTION, max_new_tokens=4)
    "".join(stream)
    held = [weakref.ref(one) for one in (model, adapted.prefix, adapted.adapter)]
    del model
    with engine:
        assert held[0]() is not None
    engine.close()
    engine.reset()
    gc.collect()
    assert [one() for one in held] == [None] * 3, "although engine, handle and stream still exist"
    assert adapted.report is not None


def test_closing_waits_for_nobody_and_spoils_nothing(
    around: Make, gate: Gate, threads: ThreadPoolExecutor
) -> None:
    engine = around()
    known = engine.adapt(TEXT)
    expected = ask(engine, known)
    with gate.shut():
        answering = threads.submit(ask, engine, known)
        gate.wait()
        requests = [threads.submit(engine.adapt, OTHER) for _ in range(2)]
        flights = engine._host.single_flight._flights
        eventually(lambda: [users for _, users in flights.values()] == [2])
        engine.close()
        eventually(lambda: any(request.done() for request in requests))
        adapting, waiting = sorted(requests, key=Future.done)
        assert not adapting.done()
        with pytest.raises(ReleasedError, match="closed"):
            waiting.result(PATIENCE)
    assert answering.result(PATIENCE) == expected
    assert adapting.result(PATIENCE).source == "trained"
    with pytest.raises(ReleasedError, match="closed"):
        _ = adapting.result().prefix
    assert around().adapt(OTHER).source == "store", "what was begun is kept"


def test_closing_does_not_wait_for_the_model(
    make: Make, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go = threading.Event(), threading.Event()
    models: list[weakref.ref[PreTrainedModel]] = []

    def slow(*args: Any, **options: Any) -> Any:
        reached.set()
        assert go.wait(PATIENCE)
        found = load(*args, **options)
        models.append(weakref.ref(found[0]))
        return found

    monkeypatch.setattr(ttt_core.origin, "load", slow)
    engine = make()
    loading = [threads.submit(engine.adapt, TEXT) for _ in range(2)]
    assert reached.wait(PATIENCE)
    engine.close()
    assert not any(one.done() for one in loading)
    go.set()
    for one in loading:
        with pytest.raises(ReleasedError, match="closed"):
            one.result(PATIENCE)
    del loading, one
    gc.collect()
    assert [model() for model in models] == [None]


def test_closing_a_view_releases_only_those_who_wait_for_it(
    around: Make, gate: Gate, threads: ThreadPoolExecutor
) -> None:
    engine = around()
    views = [engine.in_namespace("a") for _ in range(2)]
    waits = [threading.Event() for _ in views]

    def told(event: threading.Event) -> Callable[[Progress], None]:
        return lambda progress: event.set() if progress.stage == "wait" else None

    with gate.shut():
        working = threads.submit(views[0].adapt, TEXT)
        gate.wait()
        waiting = [
            threads.submit(view.adapt, TEXT, on_progress=told(event))
            for view, event in zip(views, waits, strict=True)
        ]
        assert all(event.wait(PATIENCE) for event in waits)
        views[0].close()
        with pytest.raises(ReleasedError, match="closed"):
            waiting[0].result(PATIENCE)
        assert not waiting[1].done()
    assert working.result(PATIENCE).source == "trained"
    assert waiting[1].result(PATIENCE).source == "memory"


# ---------------------------------------------------------------- waiting for each other


class GaveUpError(Exception):
    """A caller's own."""


@pytest.mark.parametrize("doing", ["adapt", "read"])
def test_who_gives_up_waiting_disturbs_nobody(
    around: Make, gate: Gate, threads: ThreadPoolExecutor, doing: str
) -> None:
    engine = around()
    waited = threading.Event()

    def give_up(progress: Progress) -> None:
        if progress.stage == "wait":
            raise GaveUpError

    def go_on(progress: Progress) -> None:
        if progress.stage == "wait":
            waited.set()

    work = getattr(engine, doing)
    with gate.shut():
        first = threads.submit(work, TEXT)
        gate.wait()
        patient = threads.submit(work, TEXT, on_progress=go_on)
        with pytest.raises(GaveUpError):
            work(TEXT, on_progress=give_up)
        assert waited.wait(PATIENCE)
        assert not first.done()
        assert not patient.done()
    assert first.result(PATIENCE).prefix_source == "computed"
    assert patient.result(PATIENCE).prefix_source == "device"
    assert not engine._host.single_flight._flights
    assert engine.adapt(TEXT).prefix_source == "device"


def test_who_takes_over_from_one_that_failed_does_the_work(
    around: Make, gate: Gate, threads: ThreadPoolExecutor
) -> None:
    engine = around()
    waited = threading.Event()

    def fail(progress: Progress) -> None:
        if progress.stage == "train":
            raise GaveUpError

    with gate.shut():
        first = threads.submit(engine.adapt, TEXT, on_progress=fail)
        gate.wait()
        second = threads.submit(engine.adapt, TEXT, on_progress=lambda report: waited.set())
        assert waited.wait(PATIENCE)
    with pytest.raises(GaveUpError):
        first.result(PATIENCE)
    assert second.result(PATIENCE).source == "trained"
