"""Small random models of every supported architecture, built in memory; no downloads."""

from __future__ import annotations

import asyncio
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ttt_core import TTTEngine

# How long an example takes says how busy the machine is, and nothing of the code.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

torch.set_num_threads(1)  # Tiny models: more threads only wait for each other.

WINDOW = 512

COMMON: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": WINDOW,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEADS: dict[str, Any] = {**COMMON, "head_dim": 8}
SLIDING: dict[str, Any] = {**HEADS, "sliding_window": 7}
MLA: dict[str, Any] = {
    **COMMON,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
}
MOE: dict[str, Any] = {
    **HEADS,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}
MIXED_LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", COMMON),
    "mistral-sliding": ("MistralConfig", SLIDING),
    "qwen2-mixed": (
        "Qwen2Config",
        {**COMMON, "sliding_window": 7, "use_sliding_window": True, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3Config", HEADS),
    "qwen3-moe": ("Qwen3MoeConfig", MOE),
    # Eager: older transformers take SDPA for it, which knows no soft cap.
    "gemma2-mixed-softcap": (
        "Gemma2Config",
        {**SLIDING, "query_pre_attn_scalar": 8, "attn_implementation": "eager"},
    ),
    "gemma3-mixed": ("Gemma3TextConfig", {**SLIDING, "layer_types": MIXED_LAYERS}),
    "phi3-fused-sliding": ("Phi3Config", {**COMMON, "sliding_window": 7}),
    "gpt-neox-fused": (
        "GPTNeoXConfig",
        {key: value for key, value in COMMON.items() if key != "num_key_value_heads"},
    ),
    "olmo2": ("Olmo2Config", COMMON),
    "smollm3-nope": ("SmolLM3Config", {**COMMON, "no_rope_layer_interval": 2}),
    "gpt-oss-sinks": (
        "GptOssConfig",
        {**SLIDING, "num_local_experts": 4, "num_experts_per_tok": 2, "layer_types": MIXED_LAYERS},
    ),
    "deepseek-v3-mla": ("DeepseekV3Config", {**MLA, "q_lora_rank": 16}),
    "deepseek-v3-mla-no-q-rank": ("DeepseekV3Config", {**MLA, "q_lora_rank": None}),
}


def build_model(name: str, *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Build a random model whose attention is far from uniform, so that masks matter."""
    config_class, options = ARCHITECTURES[name]
    config = getattr(transformers, config_class)(**{**options, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(8)
    return model.eval()


@pytest.fixture(params=list(ARCHITECTURES))
def any_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """One model of each supported architecture in turn."""
    return build_model(request.param)


@pytest.fixture
def make_model() -> Callable[..., PreTrainedModel]:
    """The builder itself."""
    return build_model


@pytest.fixture
def model() -> PreTrainedModel:
    """A small Qwen3."""
    return build_model("qwen3")


def build_tokenizer(chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with ChatML markers and a few merges, so that seams can merge."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<pad>", "<s>", "<|im_end|>", "<|im_start|>"]
    merges = [("Ċ", "Ċ"), ("ĊĊ", "Ċ"), ("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ċ", "the")]
    vocabulary = [*specials, *alphabet, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(
        models.BPE(vocab={text: i for i, text in enumerate(vocabulary)}, merges=merges)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in specials])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.chat_template = chat_template
    return fast


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def make_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """The builder itself."""
    return build_tokenizer


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with a ChatML template."""
    return build_tokenizer(CHATML)


@pytest.fixture
def engine(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> Iterator[TTTEngine]:
    """An engine on a small Qwen3 with a store of its own."""
    with TTTEngine(model, tokenizer, store=tmp_path / "store") as engine:
        yield engine


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's store."""
    monkeypatch.setenv("TTT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TTT_MODEL", raising=False)


@pytest.fixture(autouse=True)
def _no_pickled_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that these tests do needs a pickle to be read; a library that tried would fail."""

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("torch.load reads pickles")

    monkeypatch.setattr(torch, "load", refuse)


_EQUALITIES = pytest.StashKey[dict[tuple[str, str], float]]()


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[str, float], None]:
    """Note how far two sides of an equality were apart, for the table at the end of the run."""
    table = request.config.stash.setdefault(_EQUALITIES, {})
    callspec = getattr(request.node, "callspec", None)
    architecture = str(callspec.params.get("any_model")) if callspec else ""

    def note(equality: str, difference: float) -> None:
        cell = (equality, architecture)
        table[cell] = max(difference, table.get(cell, 0.0))

    return note


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the equalities by architecture."""
    table = config.stash.get(_EQUALITIES, {})
    if not table:
        return
    names = [name for name in ARCHITECTURES if any(name == a for _, a in table)]
    terminalreporter.section("equalities: largest relative difference by architecture")
    for equality in dict.fromkeys(equality for equality, _ in table):
        terminalreporter.write_line(equality)
        cells = [f"{n} {_shown(table[equality, n])}" for n in names if (equality, n) in table]
        for start in range(0, len(cells), 4):
            terminalreporter.write_line("    " + "   ".join(cells[start : start + 4]))


def _shown(difference: float) -> str:
    return "exact" if difference == 0 else f"{difference:.0e}"


@pytest.fixture
def no_event_loop() -> None:
    """Of its own accord LlamaIndex makes an event loop where there may be one, and leaves it open.

    Where there is none it runs one and closes it, in its blocking methods.
    """
    asyncio.set_event_loop(None)
