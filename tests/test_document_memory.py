"""The engine's document memory: nothing is computed twice, or held beyond the limits."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import ttt_core
import ttt_core.learning
import ttt_core.reading
from ttt_core import (
    AdaptationConfig,
    AdapterStore,
    ConfigError,
    Document,
    DocumentError,
    DocumentTooLongError,
    Progress,
    ReleasedError,
    RuntimeConfig,
    TTTEngine,
)
from ttt_core.prefix import FrozenPrefix
from ttt_core.store import StoredAdapter

KEYS = ["key", "cup", "map", "pen", "hat", "box", "jar", "net", "rug", "fan", "bag", "pot"]
TEXTS = ["\n".join(f"the {key} is in room {n}{i}." for i, key in enumerate(KEYS)) for n in range(5)]
FORCED = AdaptationConfig(steps=2, learning_rate=3e-3, gate=False, r=4, clozes_per_step=4)
QUESTION = "where is the cup?"
DISK = 1 << 24

Make = Callable[..., TTTEngine]


class Forwards:
    """Counts the tokens that are embedded."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.tokens = 0
        model.get_input_embeddings().register_forward_pre_hook(self._count)

    def _count(self, module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        self.tokens += args[0].shape[1]


@pytest.fixture
def forwards(model: PreTrainedModel) -> Forwards:
    return Forwards(model)


@pytest.fixture
def make(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Make:
    """Make an engine on the same model and store, with limits of its own."""

    def make(**limits: Any) -> TTTEngine:
        runtime = RuntimeConfig(**limits)
        return TTTEngine(
            model, tokenizer, adaptation=FORCED, runtime=runtime, store=tmp_path / "store"
        )

    return make


def ask(engine: TTTEngine, document: Any) -> tuple[int, ...]:
    return engine.generate(document, QUESTION, max_new_tokens=8).token_ids


def test_reading_and_adapting_share_one_prefix(make: Make, forwards: Forwards) -> None:
    engine = make()
    read = engine.read(TEXTS[0])
    assert (read.source, read.prefix_source) == ("read", "computed")
    before = forwards.tokens
    again = engine.read(TEXTS[0])
    assert (again.prefix_source, forwards.tokens) == ("device", before)
    adapted = engine.adapt(TEXTS[0])
    assert (adapted.source, adapted.prefix_source) == ("trained", "device")
    other = engine.adapt(TEXTS[0], config=FORCED.model_copy(update={"seed": 1}))
    assert read.prefix is again.prefix is adapted.prefix is other.prefix
    assert adapted.seconds.keys() == {"prefill", "adaptation"}


def test_an_evicted_document_is_read_again_and_not_adapted_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(max_kv_bytes=0)
    first = engine.adapt(TEXTS[0])
    expected = ask(engine, first)
    engine.adapt(TEXTS[1])
    monkeypatch.setattr(ttt_core.learning, "adapt_queries", None)
    assert ask(engine, first) == expected, "the handle reads it again by itself"
    engine.adapt(TEXTS[1])
    again = engine.adapt(TEXTS[0])
    assert (again.source, again.prefix_source) == ("memory", "computed")
    assert again.seconds["prefill"] > 0
    assert ask(engine, again) == expected


def test_adapters_have_a_limit_too_and_come_back_from_the_store(make: Make) -> None:
    engine = make(max_adapter_bytes=0)
    first, second = engine.adapt(TEXTS[0]), engine.adapt(TEXTS[1])
    assert first.adapter is not None
    assert second.adapter is not None
    found = [first.adapter.state_dict(), second.adapter.state_dict()]
    for document, weights in zip((first, second), found, strict=True):
        adapter = document.adapter
        assert adapter is not None
        assert all(torch.equal(adapter.state_dict()[name], weights[name]) for name in weights)
    assert engine.adapt(TEXTS[0]).source == "store"


def test_an_adapter_that_even_the_store_has_lost_is_learned_again(
    make: Make, tmp_path: Path
) -> None:
    engine = make()
    adapted = engine.adapt(TEXTS[0])
    expected = ask(engine, adapted)
    engine.reset()
    for path in (tmp_path / "store").rglob("*.safetensors"):
        path.unlink()
    assert ask(engine, adapted) == expected


def test_a_released_document_frees_its_memory(make: Make) -> None:
    engine = make()
    adapted = engine.adapt(TEXTS[0])
    prefix = weakref.ref(adapted.prefix)
    other = engine.read(TEXTS[0])
    adapted.release()
    gc.collect()
    assert prefix() is None
    with pytest.raises(ReleasedError, match="adapt it again"):
        _ = adapted.prefix
    assert len(other.prefix) == other.n_tokens, "who has not released it can go on"


def test_what_was_read_can_be_released_too(make: Make) -> None:
    engine = make()
    with engine.read(TEXTS[0]) as read:
        pass
    with pytest.raises(ReleasedError):
        ask(engine, read)
    assert engine.read(TEXTS[0]).prefix_source == "computed"


def test_documents_in_use_survive_a_reset_but_not_the_engine(make: Make) -> None:
    engine = make(max_disk_kv_bytes=DISK)
    adapted = engine.adapt(TEXTS[0])
    expected = ask(engine, adapted)
    engine.reset()
    assert ask(engine, adapted) == expected
    engine.close()
    with pytest.raises(ReleasedError, match="closed"):
        _ = adapted.prefix


def test_a_stream_keeps_what_it_reads(make: Make) -> None:
    engine = make(max_kv_bytes=0)
    adapted = engine.adapt(TEXTS[0])
    expected = engine.generate(adapted, QUESTION, max_new_tokens=12).text
    stream = engine.stream(adapted, QUESTION, max_new_tokens=12)
    begin = next(stream)
    engine.read(TEXTS[1])
    adapted.release()
    assert begin + "".join(stream) == expected


# ---------------------------------------------------------------- on disk


def kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "store" / "kv").rglob("*.safetensors"))


def test_nothing_of_the_document_is_on_disk_unless_asked_for(make: Make, tmp_path: Path) -> None:
    make().adapt(TEXTS[0])
    assert not (tmp_path / "store" / "kv").exists()


def test_a_new_engine_reads_from_disk_without_a_forward_pass(
    make: Make, forwards: Forwards, tmp_path: Path
) -> None:
    first = make(max_disk_kv_bytes=DISK)
    expected = ask(first, first.adapt(TEXTS[0]))
    assert len(kept(tmp_path)) == 1
    second, before = make(max_disk_kv_bytes=DISK), forwards.tokens
    adapted = second.adapt(TEXTS[0])
    assert (adapted.source, adapted.prefix_source) == ("store", "disk")
    assert forwards.tokens == before
    assert ask(second, adapted) == expected
    assert second.read(TEXTS[0]).prefix_source == "device"


AGAIN = """
import json, sys
from pathlib import Path
from ttt_core import AdaptationConfig, RuntimeConfig, TTTEngine

folder, config, text, question = sys.argv[1:]
engine = TTTEngine.from_pretrained(
    folder,
    adaptation=AdaptationConfig.model_validate_json(config),
    runtime=RuntimeConfig(max_disk_kv_bytes=1 << 24),
    store=Path(folder) / "store",
)
tokens = []
embeddings = engine._resident().model.runtime.model.get_input_embeddings()
embeddings.register_forward_pre_hook(lambda _, args: tokens.append(args[0].numel()))
adapted = engine.adapt(text)
print(json.dumps({
    "computed": sum(tokens),
    "sources": [adapted.source, adapted.prefix_source],
    "answer": engine.generate(adapted, question, max_new_tokens=8).token_ids,
}))
"""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tomorrow_another_process_answers_the_same(
    make_model: Callable[..., PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    dtype: torch.dtype,
) -> None:
    make_model("qwen3").to(dtype).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    core = Path(ttt_core.__file__).parents[1]
    found = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", AGAIN, str(tmp_path), FORCED.model_dump_json(), TEXTS[0],
             QUESTION],
            env={**os.environ, "PYTHONPATH": str(core)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    today, tomorrow = found
    assert today["sources"] == ["trained", "computed"]
    assert tomorrow["sources"] == ["store", "disk"]
    assert tomorrow["computed"] == 0
    assert tomorrow["answer"] == today["answer"]


def test_damaged_keys_and_values_are_computed_again(make: Make, tmp_path: Path) -> None:
    engine = make(max_disk_kv_bytes=DISK)
    expected = ask(engine, engine.adapt(TEXTS[0]))
    [path] = kept(tmp_path)
    data = bytearray(path.read_bytes())
    data[-500] ^= 1
    path.write_bytes(bytes(data))
    engine.reset()
    adapted = engine.adapt(TEXTS[0])
    assert (adapted.source, adapted.prefix_source) == ("store", "computed")
    assert ask(engine, adapted) == expected
    assert path.with_suffix(".damaged").exists()


def test_other_weights_have_other_keys_and_values(
    make: Make,
    make_model: Callable[..., PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    make(max_disk_kv_bytes=DISK).read(TEXTS[0])
    runtime = RuntimeConfig(max_disk_kv_bytes=DISK)
    other = TTTEngine(
        make_model("qwen3", seed=1), tokenizer, runtime=runtime, store=tmp_path / "store"
    )
    assert other.read(TEXTS[0]).prefix_source == "computed"
    assert len(kept(tmp_path)) == 2


def test_an_unwritable_disk_fails_no_answer(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "kv").write_text("in the way")
    engine = make(max_disk_kv_bytes=DISK)
    assert len(ask(engine, engine.read(TEXTS[0]))) == 8
    assert "cannot keep keys and values" in caplog.text
    assert "room" not in caplog.text


# ---------------------------------------------------------------- many documents


def test_many_documents_come_back_in_their_order(make: Make) -> None:
    engine = make()
    documents = [TEXTS[0], Document.of(TEXTS[1], title="one"), TEXTS[0], TEXTS[2]]
    found = engine.adapt_many(documents)
    assert [one.source for one in found] == ["trained", "trained", "memory", "trained"]
    assert [one.document_hash for one in found] == [
        Document.of(text).hash for text in (TEXTS[0], TEXTS[1], TEXTS[0], TEXTS[2])
    ]
    assert [one.key for one in found] == [engine.adapt(one).key for one in documents]
    assert engine.adapt_many([]) == []
    assert [ask(engine, one) for one in found] == [
        ask(engine, engine.adapt(text)) for text in documents
    ]


def test_progress_says_which_document_of_how_many(make: Make) -> None:
    reports: list[Progress] = []
    make().adapt_many(iter(TEXTS[:3]), on_progress=reports.append)
    whole = [(one.done, one.total) for one in reports if one.stage == "documents"]
    assert whole == [(0, 3), (1, 3), (2, 3), (3, 3)]
    inner = [one for one in reports if one.stage != "documents"]
    assert {one.document for one in inner if one.stage == "prefill"} == {1, 2, 3}
    assert {one.documents for one in inner} == {3}


@pytest.mark.parametrize("bad", ["", "word " * 400])
def test_a_bad_document_is_refused_before_work_is_spent_on_the_others(
    make: Make, forwards: Forwards, bad: str
) -> None:
    engine = make()
    forwards.tokens = 0  # A model is tried on a few tokens when it is loaded.
    with pytest.raises((DocumentError, DocumentTooLongError)):
        engine.adapt_many([TEXTS[0], bad])
    assert forwards.tokens == 0


def test_one_text_is_not_many_documents(make: Make) -> None:
    with pytest.raises(ConfigError, match="list of documents"):
        make().adapt_many("abc")  # type: ignore[arg-type]


def test_an_interrupted_corpus_goes_on_where_it_stopped(make: Make, forwards: Forwards) -> None:
    def stop(progress: Progress) -> None:
        if progress.document == 3:
            raise KeyboardInterrupt

    engine = make(max_kv_bytes=0)
    with pytest.raises(KeyboardInterrupt):
        engine.adapt_many(TEXTS[:3], on_progress=stop)
    engine.reset()
    found = engine.adapt_many(TEXTS[:3])
    assert [one.source for one in found] == ["store", "store", "trained"]


def test_documents_beyond_memory_are_not_read_only_to_be_dropped(
    make: Make, forwards: Forwards
) -> None:
    make().adapt_many(TEXTS)
    one = make().read(TEXTS[0]).prefix.nbytes
    engine, before = make(max_kv_bytes=2 * one + one // 2), forwards.tokens
    found = engine.adapt_many(TEXTS)
    assert [document.source for document in found] == ["store"] * 5
    assert [document.prefix_source for document in found] == ["computed"] * 2 + [None] * 3
    assert forwards.tokens - before == sum(document.n_tokens for document in found[:2])
    assert len(ask(engine, found[4])) == 8


@pytest.mark.parametrize("disk", [0, DISK])
def test_memory_stays_within_the_limits_however_many_documents(
    make: Make, monkeypatch: pytest.MonkeyPatch, disk: int
) -> None:
    alive: weakref.WeakSet[FrozenPrefix] = weakref.WeakSet()
    peak = 0
    prefill = ttt_core.reading.prefill

    def watched(*args: Any, **options: Any) -> FrozenPrefix:
        nonlocal peak
        made = prefill(*args, **options)
        alive.add(made)
        peak = max(peak, sum(prefix.nbytes for prefix in alive))
        return made

    monkeypatch.setattr(ttt_core.reading, "prefill", watched)
    one = make().read(TEXTS[0]).prefix.nbytes
    alive.clear()
    peak = 0
    engine = make(max_kv_bytes=2 * one + one // 2, max_disk_kv_bytes=disk)
    found = engine.adapt_many(TEXTS)
    assert 0 < peak <= 3 * one + one // 2
    assert len(found) == 5
    if disk:
        engine.reset()
        assert engine.adapt(TEXTS[0]).prefix_source == "disk"


def test_what_is_evicted_before_it_is_pinned_is_written_once_more(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else memory would hold what no file has, and the process would take it to its grave."""
    engine, real = make(), AdapterStore.put
    removed = []

    def put_and_lose(store: AdapterStore, key: str, entry: StoredAdapter) -> bool:
        written = real(store, key, entry)
        if not removed:
            removed.append(store.remove(key))
        return written

    monkeypatch.setattr(AdapterStore, "put", put_and_lose)
    adapted = engine.adapt(TEXTS[0])
    assert removed == [True]
    assert AdapterStore(tmp_path / "store").get(adapted.key) is not None
    assert not AdapterStore(tmp_path / "store").prune(max_bytes=0).removed
