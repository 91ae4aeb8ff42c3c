"""The engine: lifetimes, bad input, faults, concurrency, and the counted cost of a question."""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import ttt_core.learning
import ttt_core.objectives
from ttt_core import (
    AdaptationConfig,
    AdaptationError,
    ConfigError,
    DocumentError,
    DocumentTooLongError,
    ModelLoadError,
    Namespace,
    OutOfMemoryError,
    Progress,
    PromptTooLongError,
    ReleasedError,
    RuntimeConfig,
    TTTEngine,
    UnsupportedModelError,
    shared_engine,
)

KEYS = ["key", "cup", "map", "pen", "hat", "box", "jar", "net", "rug", "fan", "bag", "pot"]
TEXT = "\n".join(f"the {key} is in room {i}." for i, key in enumerate(KEYS))
OTHER = "\n".join(f"a {key} costs {7 * i} crowns!" for i, key in enumerate(KEYS))
FORCED = AdaptationConfig(steps=3, learning_rate=3e-3, gate=False, r=4, clozes_per_step=4)
QUESTION = "where is the cup?"


@pytest.fixture
def forced(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> TTTEngine:
    """An engine that adapts quickly and whatever the probe says."""
    return TTTEngine(model, tokenizer, adaptation=FORCED, store=tmp_path / "store")


def stored_files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def snapshot(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def untouched(model: PreTrainedModel, before: dict[str, torch.Tensor]) -> bool:
    after = model.state_dict()
    return before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)


# ---------------------------------------------------------------- lifetimes


def test_the_second_time_comes_from_memory_then_from_the_store(forced: TTTEngine) -> None:
    first, second = forced.adapt(TEXT), forced.adapt(TEXT.replace("\n", "\r\n"))
    assert (first.source, second.source) == ("trained", "memory")
    assert second.prefix is first.prefix
    forced.reset()
    assert forced.adapt(TEXT).source == "store"


def test_memory_holds_the_most_recent_documents(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    limits = RuntimeConfig(max_kv_bytes=0, max_adapter_bytes=0)
    engine = TTTEngine(model, tokenizer, adaptation=FORCED, runtime=limits, store=tmp_path)
    engine.adapt(TEXT)
    engine.adapt(OTHER)
    assert engine.adapt(OTHER).source == "memory"
    assert engine.adapt(TEXT).source == "store"


def test_a_released_document_cannot_be_asked(forced: TTTEngine) -> None:
    with forced.adapt(TEXT) as adapted:
        forced.generate(adapted, QUESTION, max_new_tokens=1)
    with pytest.raises(ReleasedError, match="adapt it again"):
        forced.generate(adapted, QUESTION)
    assert forced.adapt(TEXT).source == "store", "the engine must not hold what was released"


def test_a_closed_engine_says_so(forced: TTTEngine) -> None:
    with forced:
        pass
    with pytest.raises(ReleasedError, match="closed"):
        forced.adapt(TEXT)


def test_shared_engines_are_one_per_model_and_load_nothing(tmp_path: Path) -> None:
    one = shared_engine(str(tmp_path))
    assert shared_engine(str(tmp_path)) is one
    assert shared_engine(str(tmp_path), dtype="float32") is not one
    one.close()
    assert shared_engine(str(tmp_path)) is not one


def test_without_adapter_answers_as_the_base_does(forced: TTTEngine) -> None:
    adapted, read = forced.adapt(TEXT), forced.read(TEXT)
    base = forced.generate(read, QUESTION, max_new_tokens=12)
    assert forced.generate(adapted.without_adapter(), QUESTION, max_new_tokens=12).text == base.text
    assert not base.adapted
    assert forced.generate(adapted, QUESTION, max_new_tokens=12).adapted


def test_zero_steps_keep_the_base(forced: TTTEngine) -> None:
    adapted = forced.adapt(TEXT, config=AdaptationConfig(steps=0))
    assert adapted.adapter is None
    assert adapted.report is not None
    assert adapted.report.decision == "kept_base"
    assert "steps=0" in adapted.report.reasons[0]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("text", ["", " \n\t\n", "\ufeff"])
def test_an_empty_document_is_refused(engine: TTTEngine, text: str) -> None:
    with pytest.raises(DocumentError, match="empty"):
        engine.adapt(text)


def test_no_documents_are_refused(engine: TTTEngine) -> None:
    with pytest.raises(DocumentError, match="no documents"):
        engine.adapt([])


def test_a_document_beyond_the_window_is_refused_with_both_counts(engine: TTTEngine) -> None:
    with pytest.raises(DocumentTooLongError, match="on_overflow") as caught:
        engine.adapt("word " * 400)
    error = caught.value
    assert error.tokens > error.limit
    assert f"{error.tokens:,}" in str(error)
    assert f"{error.limit:,}" in str(error)
    assert "word word" not in str(error)


@pytest.mark.parametrize(("choice", "kept"), [("keep_start", "first"), ("keep_end", "last")])
def test_overflow_cuts_where_the_caller_chose(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    choice: Any,
    kept: str,
) -> None:
    engine = TTTEngine(model, tokenizer, runtime=RuntimeConfig(on_overflow=choice), store=tmp_path)
    read = engine.read("first " + "word " * 400 + "last")
    assert read.dropped_tokens > 1000
    assert kept in read.prompt.document
    assert not {"first", "last"} - {kept} & set(read.prompt.document.split())
    assert len(read.prefix) <= engine.window - engine.window // 8


def test_question_and_answer_beyond_the_window_are_refused(engine: TTTEngine) -> None:
    read = engine.read(TEXT)
    with pytest.raises(PromptTooLongError, match="max_new_tokens") as caught:
        engine.generate(read, QUESTION, max_new_tokens=500)
    assert caught.value.window == engine.window
    with pytest.raises(PromptTooLongError):
        engine.generate(read, "why? " * 200)


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question_is_refused(engine: TTTEngine, question: str) -> None:
    with pytest.raises(ConfigError, match="empty"):
        engine.generate(engine.read(TEXT), question)


def test_unknown_options_are_refused_by_name(engine: TTTEngine) -> None:
    with pytest.raises(ValueError, match="did you mean 'max_new_tokens'"):
        engine.generate(engine.read(TEXT), QUESTION, max_new_token=5)
    with pytest.raises(ValueError, match="did you mean 'steps'"):
        AdaptationConfig.model_validate({"stesp": 5})


def test_a_missing_model_folder_is_named(tmp_path: Path) -> None:
    engine = TTTEngine.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ModelLoadError, match="no model folder"):
        engine.adapt(TEXT)


def test_a_corrupt_model_folder_is_named(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelLoadError, match="undamaged"):
        TTTEngine.from_pretrained(tmp_path).adapt(TEXT)


def test_a_hub_id_without_a_connection_is_named() -> None:
    with pytest.raises(ModelLoadError, match="from the Hub"):
        TTTEngine.from_pretrained("nobody/no-such-model").adapt(TEXT)


def test_pickled_weights_are_not_loaded(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model.config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="safetensors"):
        TTTEngine.from_pretrained(tmp_path).adapt(TEXT)


def test_a_saved_model_loads_and_answers_as_the_one_in_memory(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, engine: TTTEngine, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = TTTEngine.from_pretrained(tmp_path, store=tmp_path / "store")
    expected = engine.generate(engine.read(TEXT), QUESTION, max_new_tokens=8)
    found = loaded.generate(loaded.read(TEXT), QUESTION, max_new_tokens=8)
    assert found.token_ids == expected.token_ids
    nothing = AdaptationConfig(steps=0)
    assert loaded.adapt(TEXT, config=nothing).key == engine.adapt(TEXT, config=nothing).key


@pytest.mark.parametrize("option", [{"device": "abacus"}, {"dtype": "int8"}])
def test_unknown_device_or_dtype_is_named(tmp_path: Path, option: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"unknown {next(iter(option))}"):
        TTTEngine.from_pretrained(tmp_path, **option).adapt(TEXT)


def unsupported() -> dict[str, Any]:
    import transformers as t

    small = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2}
    return {
        "mamba": lambda: t.MambaForCausalLM(t.MambaConfig(**small, state_size=4)),
        "rwkv": lambda: t.RwkvForCausalLM(t.RwkvConfig(**small, attention_hidden_size=32)),
        "t5": lambda: t.T5ForConditionalGeneration(
            t.T5Config(vocab_size=300, d_model=32, d_ff=32, num_layers=1, num_heads=2, d_kv=16)
        ),
        "qwen3-next": lambda: t.Qwen3NextForCausalLM(
            t.Qwen3NextConfig(
                **small, num_attention_heads=2, num_key_value_heads=2, intermediate_size=32,
                head_dim=16, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=16,
                shared_expert_intermediate_size=16, linear_num_value_heads=2,
                linear_num_key_heads=2, linear_key_head_dim=16, linear_value_head_dim=16,
                layer_types=["linear_attention", "full_attention"],
            )
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["mamba", "rwkv", "t5", "qwen3-next"])
@pytest.mark.filterwarnings("ignore")  # Fallback kernels announce themselves.
def test_unsupported_architectures_are_refused_by_name(
    name: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = unsupported()[name]()
    with pytest.raises(UnsupportedModelError, match="cannot be adapted") as caught:
        TTTEngine(model, tokenizer)
    assert type(model).__name__ in str(caught.value)
    assert "Supported are" in str(caught.value)


def test_attention_without_masks_serves_only_the_shared_prefix(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, engine: TTTEngine
) -> None:
    expected = engine.generate(engine.read(TEXT), QUESTION, max_new_tokens=8)
    model.config._attn_implementation = "flash_attention_2"
    found = engine.generate(engine.read(TEXT), QUESTION, max_new_tokens=8)
    assert found.token_ids == expected.token_ids
    with pytest.raises(UnsupportedModelError, match="sdpa"):
        TTTEngine(model, tokenizer, runtime=RuntimeConfig(attention="model"))


def test_a_kernel_of_another_device_is_refused(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(ConfigError, match="cuda_flash"):
        TTTEngine(model, tokenizer, runtime=RuntimeConfig(attention="cuda_flash"))


def test_another_system_prompt_than_the_frozen_one_is_refused(engine: TTTEngine) -> None:
    read = engine.read(TEXT, system="Be brief.")
    turns = [{"role": "system", "content": "Be long."}, {"role": "user", "content": QUESTION}]
    with pytest.raises(ConfigError, match="system prompt differs"):
        engine.generate(read, turns)


# ---------------------------------------------------------------- faults


def test_a_short_document_is_answered_from_the_base(engine: TTTEngine) -> None:
    adapted = engine.adapt("the cup is in the hall")
    assert adapted.report is not None
    assert adapted.report.decision == "kept_base"
    assert adapted.adapter is None
    assert engine.generate(adapted, QUESTION, max_new_tokens=3).usage.completion_tokens > 0


def test_too_few_held_out_clozes_keep_the_base_and_say_so(engine: TTTEngine) -> None:
    report = engine.adapt(TEXT).report
    assert report is not None
    assert report.decision == "kept_base"
    assert "held-out clozes" in report.reasons[0]
    assert "gate=False" in report.reasons[0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_restores_the_base(
    forced: TTTEngine, model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    before, calls = snapshot(model), []
    cross_entropy = functional.cross_entropy

    def broken(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(1)
        loss = cross_entropy(*args, **kwargs)
        return loss * bad if len(calls) == 2 else loss

    monkeypatch.setattr(ttt_core.objectives.functional, "cross_entropy", broken)
    report = forced.adapt(TEXT).report
    assert report is not None
    assert report.decision == "kept_base"
    assert "not finite at step 2" in report.reasons[0]
    assert untouched(model, before)


def test_training_that_changes_nothing_is_an_error(
    forced: TTTEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    with pytest.raises(AdaptationError, match="changed no weight"):
        forced.adapt(TEXT)


def fail_at(stage: str, done: int, error: BaseException) -> Callable[[Progress], None]:
    def callback(progress: Progress) -> None:
        if progress.stage == stage and progress.done >= done:
            raise error

    return callback


@pytest.mark.parametrize(("stage", "done"), [("prefill", 1), ("train", 2), ("probe", 1)])
def test_an_interrupted_adaptation_leaves_nothing(
    forced: TTTEngine, model: PreTrainedModel, tmp_path: Path, stage: str, done: int
) -> None:
    before, modules = snapshot(model), dict(model.named_modules())
    with pytest.raises(KeyboardInterrupt):
        forced.adapt(TEXT, on_progress=fail_at(stage, done, KeyboardInterrupt()))
    assert untouched(model, before)
    assert dict(model.named_modules()) == modules
    assert stored_files(tmp_path) == []
    assert forced.adapt(TEXT).source == "trained"


def test_running_out_of_memory_names_what_to_lower_and_changes_nothing(
    forced: TTTEngine, model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(model)

    def full(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(ttt_core.objectives.functional, "cross_entropy", full)
        with pytest.raises(OutOfMemoryError, match="train_chunk"):
            forced.adapt(TEXT)
    assert untouched(model, before)
    assert stored_files(tmp_path) == []
    assert forced.adapt(TEXT).source == "trained"


def test_a_damaged_adapter_file_is_set_aside_and_made_again(
    forced: TTTEngine, tmp_path: Path
) -> None:
    weights = forced.adapt(TEXT).adapter
    assert weights is not None
    [path] = stored_files(tmp_path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    forced.reset()
    again = forced.adapt(TEXT)
    assert again.source == "trained"
    assert sorted(p.suffix for p in stored_files(tmp_path)) == [".damaged", ".safetensors"]
    assert again.adapter is not None
    fresh, before = again.adapter.state_dict(), weights.state_dict()
    assert all(torch.equal(fresh[name], before[name]) for name in before)


# ---------------------------------------------------------------- requests side by side


def test_interleaved_streams_of_two_documents_do_not_mix(forced: TTTEngine) -> None:
    texts = [TEXT, OTHER]
    alone = [forced.generate(forced.adapt(t), QUESTION, max_new_tokens=10).text for t in texts]
    streams = [forced.stream(forced.adapt(t), QUESTION, max_new_tokens=10) for t in texts]
    found = ["", ""]
    active = [0, 1]
    while active:
        for index in list(active):
            piece = next(streams[index], None)
            if piece is None:
                active.remove(index)
            else:
                found[index] += piece
    assert found == alone


def test_threads_asking_about_different_documents_do_not_mix(forced: TTTEngine) -> None:
    texts = [TEXT, OTHER, TEXT + "\nmore", OTHER + "\nmore"]
    alone = [forced.generate(forced.adapt(t), QUESTION, max_new_tokens=10).text for t in texts]
    forced.reset()
    found: dict[int, str] = {}
    together = threading.Barrier(len(texts))

    def ask(index: int) -> None:
        together.wait(timeout=60)
        answer = forced.generate(forced.adapt(texts[index]), QUESTION, max_new_tokens=10)
        found[index] = answer.text

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert [found[i] for i in range(len(texts))] == alone


def test_an_abandoned_stream_leaves_the_model_as_it_was(
    forced: TTTEngine, model: PreTrainedModel
) -> None:
    modules, before = dict(model.named_modules()), snapshot(model)
    stream = forced.stream(forced.adapt(TEXT), QUESTION, max_new_tokens=50)
    next(stream)
    assert dict(model.named_modules()) == modules, "a paused consumer must hold nothing"
    assert untouched(model, before)
    other = forced.generate(forced.read(OTHER), QUESTION, max_new_tokens=5)
    stream.close()
    assert list(stream) == []
    assert forced.generate(forced.read(OTHER), QUESTION, max_new_tokens=5).text == other.text
    assert 0 < stream.answer.usage.completion_tokens < 50


def test_the_same_document_at_once_is_adapted_once(
    forced: TTTEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ttt_core.engine

    calls, together = [], threading.Barrier(4)
    adapt = ttt_core.learning.adapt_queries

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return adapt(*args, **kwargs)

    monkeypatch.setattr(ttt_core.learning, "adapt_queries", counted)
    sources: list[str] = []

    def work() -> None:
        together.wait(timeout=60)
        sources.append(forced.adapt(TEXT).source)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert len(calls) == 1
    assert sorted(sources) == ["memory", "memory", "memory", "trained"]


# ---------------------------------------------------------------- what is computed


class Counter:
    """Counts the tokens that go through a module."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.tokens = 0
        module.register_forward_pre_hook(self._count)

    def _count(self, module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        self.tokens += args[0].shape[1]


def test_a_later_question_computes_question_and_answer_only(
    forced: TTTEngine, model: PreTrainedModel
) -> None:
    adapted = forced.adapt(TEXT)
    embedded = Counter(model.get_input_embeddings())
    answer = forced.generate(forced.adapt(TEXT), QUESTION, max_new_tokens=6)
    suffix = answer.usage.prompt_tokens - len(adapted.prefix)
    assert embedded.tokens == suffix + len(answer.token_ids) - (answer.finish_reason == "length")
    assert answer.usage.computed_tokens == embedded.tokens
    assert answer.usage.cached_tokens == len(adapted.prefix)
    assert embedded.tokens < len(adapted.prefix) / 4


def test_reading_computes_no_logits_and_training_only_those_it_needs(
    forced: TTTEngine, model: PreTrainedModel
) -> None:
    logits = Counter(model.get_output_embeddings())
    forced.read(TEXT)
    assert logits.tokens == 0
    report = forced.adapt(TEXT, config=FORCED.model_copy(update={"steps": 1, "held_out": 2})).report
    assert report is not None
    trained = logits.tokens
    assert 0 < trained < report.positions + 100
    embedded = Counter(model.get_input_embeddings())
    forced.adapt(OTHER, config=FORCED.model_copy(update={"steps": 1, "supervision": "random_span"}))
    assert embedded.tokens > 0


def test_a_conversation_goes_on_behind_the_same_prefix(
    engine: TTTEngine, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    read = engine.read(TEXT)
    turns = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "in room 1."},
        {"role": "user", "content": "and the map?"},
    ]
    ours = engine.generate(read, turns, max_new_tokens=6)
    whole = [{"role": "user", "content": f"{TEXT}\n\n{QUESTION}"}, *turns[1:]]
    ids = tokenizer.apply_chat_template(
        whole, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    theirs = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False
    )
    assert ours.usage.prompt_tokens == ids.shape[1]
    assert list(ours.token_ids) == [
        t for t in theirs[0, ids.shape[1] :].tolist() if t not in (0, 2)
    ]


def test_answers_without_a_document_equal_transformers(
    engine: TTTEngine, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    ours = engine.generate(None, QUESTION, max_new_tokens=6)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )["input_ids"]
    theirs = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False
    )
    assert list(ours.token_ids) == [
        t for t in theirs[0, ids.shape[1] :].tolist() if t not in (0, 2)
    ]
    assert ours.usage.cached_tokens == 0


def test_sampling_is_reproducible_alone_and_in_a_batch(forced: TTTEngine) -> None:
    adapted = forced.adapt(TEXT)
    options = {"temperature": 1.0, "top_p": 0.9, "seed": 7, "max_new_tokens": 8}
    one = forced.generate(adapted, QUESTION, **options)
    two, three = forced.generate_batch(adapted, [QUESTION, "the"], **options)
    assert one.token_ids == two.token_ids
    assert forced.generate(adapted, "the", **options).token_ids == three.token_ids
    other = forced.generate(adapted, QUESTION, **{**options, "seed": 8})
    assert other.token_ids != one.token_ids


def test_logprobs_are_the_model_s_own(
    engine: TTTEngine, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    answer = engine.generate(None, QUESTION, max_new_tokens=4, logprobs=True, top_logprobs=2)
    assert answer.logprobs is not None
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    row = torch.tensor([[*ids, *answer.token_ids]])
    with torch.no_grad():
        logprobs = model(row).logits[0].log_softmax(-1)
    for index, entry in enumerate(answer.logprobs):
        expected = logprobs[len(ids) + index - 1]
        assert entry.logprob == pytest.approx(expected[entry.token].item(), abs=1e-4)
        assert entry.top[0][1] == pytest.approx(expected.max().item(), abs=1e-4)
        assert len(entry.top) == 2


def test_stop_strings_end_the_answer_the_same_way_streamed_or_not(forced: TTTEngine) -> None:
    adapted = forced.adapt(TEXT)
    free = forced.generate(adapted, QUESTION, max_new_tokens=20)
    stop = free.text[4:7]
    stopped = forced.generate(adapted, QUESTION, max_new_tokens=20, stop=(stop,))
    assert stopped.text == free.text[: free.text.index(stop)]
    assert stopped.finish_reason == "stop"
    assert free.finish_reason == "length"
    streamed = forced.stream(adapted, QUESTION, max_new_tokens=20, stop=(stop,))
    assert "".join(streamed) == stopped.text
    assert streamed.answer.usage.completion_tokens < 20


# ---------------------------------------------------------------- callers side by side


def test_two_engines_on_one_model_wait_for_each_other(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Overlapping turns would restore each other's attention, and leave the model changed."""
    engines = [TTTEngine(model, tokenizer, store=tmp_path) for _ in range(2)]
    before = model.config._attn_implementation
    expected = engines[0].generate(engines[0].read(TEXT), QUESTION, max_new_tokens=8).token_ids
    found: list[object] = []

    def ask(engine: TTTEngine) -> None:
        for _ in range(4):
            engine.reset()
            answer = engine.generate(engine.read(TEXT), QUESTION, max_new_tokens=8)
            found.append(answer.token_ids)

    threads = [threading.Thread(target=ask, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8
    assert model.config._attn_implementation == before


def test_a_caller_in_inference_mode_disturbs_nobody(forced: TTTEngine) -> None:
    with torch.inference_mode():
        adapted = forced.adapt(TEXT)
        stream = forced.stream(adapted, QUESTION, max_new_tokens=6)
        first = next(stream)
    rest = "".join(stream)
    assert first + rest == forced.generate(adapted, QUESTION, max_new_tokens=6).text


def test_a_kept_stream_holds_no_document(engine: TTTEngine) -> None:
    read = engine.read(TEXT)
    held = weakref.ref(read.prefix)
    stream = engine.stream(read, QUESTION, max_new_tokens=3)
    for _ in stream:
        pass
    read.release()
    assert held() is None
    assert stream.answer.usage.cached_tokens > 0


def test_reading_again_is_counted(engine: TTTEngine) -> None:
    read = engine.read(TEXT)
    once = engine.generate(read, QUESTION, max_new_tokens=3).usage
    engine.reset()
    again = engine.generate(read, QUESTION, max_new_tokens=3).usage
    assert (once.cached_tokens, again.cached_tokens) == (read.n_tokens, 0)
    assert again.computed_tokens == once.computed_tokens + read.n_tokens


def test_one_question_is_no_batch(engine: TTTEngine) -> None:
    with pytest.raises(ConfigError, match="list of questions"):
        engine.generate_batch(None, QUESTION)


def test_trained_adapters_keep_no_gradients(forced: TTTEngine) -> None:
    adapter = forced.adapt(TEXT).adapter
    assert adapter is not None
    assert all(weight.grad is None for weight in adapter.parameters())


def test_what_is_shown_of_a_document_is_not_its_text(engine: TTTEngine) -> None:
    read = engine.read(TEXT)
    shown = " ".join(map(repr, (read, read.prompt, read.prefix, read._prefix)))
    assert "is in room" not in shown
    assert str(list(read.prompt.input_ids[:8]))[1:-1] not in shown


@pytest.mark.parametrize(
    "error",
    [
        DocumentTooLongError(tokens=9, limit=5, window=8),
        PromptTooLongError(prefix=1, suffix=2, max_new_tokens=3, window=4),
    ],
)
def test_errors_travel_between_processes(error: Exception) -> None:
    again = copy.copy(error)  # As pickle does it.
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_a_document_of_another_namespace_is_refused(forced: TTTEngine) -> None:
    """Objects of two tenants' requests that were mixed up must not become an answer."""
    adapted = forced.adapt(TEXT)
    other = forced.in_namespace("tenant-b")
    for ask in (other.generate, other.stream):
        with pytest.raises(ConfigError, match=r"namespace 'default'.*for 'tenant-b'"):
            ask(adapted, "why?")
    sealed = forced.in_namespace(Namespace("default", "a secret of 16 b"))
    with pytest.raises(ConfigError, match="another secret"):
        sealed.generate(adapted, "why?")
    assert other.generate(other.adapt(TEXT), "why?", max_new_tokens=1).usage.completion_tokens == 1


@pytest.mark.parametrize("document", [b"bytes", 5, None, [b"bytes"], [5], Path("x")], ids=repr)
def test_what_is_no_document_is_told(engine: TTTEngine, document: Any) -> None:
    with pytest.raises(ConfigError, match="a document is text"):
        engine.adapt(document)


def test_what_is_no_question_or_no_adapted_document_is_told(engine: TTTEngine) -> None:
    for wrong in (None, 5, b"why?"):
        with pytest.raises(ConfigError, match="a question is text"):
            engine.generate(None, wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="what adapt or read returned"):
        engine.generate("text", "why?")  # type: ignore[arg-type]
