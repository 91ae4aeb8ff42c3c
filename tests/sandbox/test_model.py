"""The bundled model: loads as any other, and reads registries."""

from functools import cache

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen3ForCausalLM,
)

from ttt_core.sandbox import bundled_model_path, is_correct, make_registry
from ttt_core.sandbox.score import score


@cache
def bundled() -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    model = AutoModelForCausalLM.from_pretrained(bundled_model_path())
    tokenizer = AutoTokenizer.from_pretrained(bundled_model_path())
    assert isinstance(model, Qwen3ForCausalLM)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return model, tokenizer


@torch.no_grad()
def reply(messages: list[dict[str, str]]) -> str:
    model, tokenizer = bundled()
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert isinstance(text, str)
    prompt = torch.tensor([tokenizer.encode(text)])
    output = model.generate(prompt, max_new_tokens=8)  # type: ignore[misc]
    assert isinstance(output, torch.Tensor)
    return str(tokenizer.decode(output[0, prompt.shape[1] :], skip_special_tokens=True))


def test_is_small_and_complete() -> None:
    files = {file.name: file.stat().st_size for file in bundled_model_path().iterdir()}
    assert sum(files.values()) < 5_500_000
    assert {"config.json", "generation_config.json", "model.safetensors", "README.md"} <= set(files)


@pytest.mark.parametrize("lines", [4, 16, 64])
def test_reads_short_registries(lines: int) -> None:
    scores = [score(*bundled(), make_registry(lines, seed=seed)).joint for seed in range(4)]
    assert sum(scores) / 4 > 0.9


def test_long_registries_dilute_it() -> None:
    assert score(*bundled(), make_registry(2048, seed=0)).joint < 0.8


@pytest.mark.parametrize("system", [None, "You are a helpful assistant."])
def test_holds_a_conversation(system: str | None) -> None:
    registry = make_registry(12, seed=5)
    messages = [{"role": "system", "content": system}] if system else []
    right = []
    for index, question in enumerate(registry.questions[:4]):
        content = question.text if index else f"{registry.text}\n\n{question.text}"
        messages.append({"role": "user", "content": content})
        answer = reply(messages)
        messages.append({"role": "assistant", "content": answer})
        right.append(is_correct(answer, question))
    assert right[0]
    assert sum(right) >= 2  # Later turns are the weaker skill; the model card says so.
