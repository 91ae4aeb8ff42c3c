"""What do all programs take? `--model`, `--layers`, `--tokens` and the like; see `--help`.

Without options a program measures what the README's goals name: on CPU the small model in fp32,
on CUDA a 4B-shaped one in bf16.
"""

from __future__ import annotations

import argparse
import gc
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from bench.models import SHAPES, Shape, build_model, random_tokens
from ttt_core.runtime import Runtime

_FIRST_QUESTION = 1_000  # Seeds: the document has 0, question i has this plus i.


@dataclass(frozen=True)
class Setting:
    """One model and where it runs, fixed for one run of a program."""

    shape: Shape
    model: PreTrainedModel
    runtime: Runtime
    device: torch.device
    dtype: torch.dtype

    def document(self, tokens: int) -> list[int]:
        """Tokens of the document."""
        return random_tokens(self.shape, tokens, seed=0)

    def questions(self, count: int, tokens: int) -> list[list[int]]:
        """Tokens of questions, each its own."""
        seeds = range(_FIRST_QUESTION, _FIRST_QUESTION + count)
        return [random_tokens(self.shape, tokens, seed=seed) for seed in seeds]


def make_parser(doc: str, *, output: str, tokens: str) -> argparse.ArgumentParser:
    """Return a parser with the common options; `doc` is the program's docstring."""
    on_cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--device", default="cuda" if on_cuda else "cpu")
    parser.add_argument("--model", choices=SHAPES, help="default: small; on CUDA qwen3-4b")
    parser.add_argument("--layers", type=int, help="cut the model to so many layers")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=int, help="of torch on the CPU")
    parser.add_argument("--tokens", type=int, nargs="+", help=f"document lengths; {tokens}")
    parser.add_argument("--repeat", type=int, default=3, help="interleaved rounds; medians of them")
    parser.add_argument("--output", type=Path, default=Path(f"results/{output}.json"))
    return parser


def make_setting(
    options: argparse.Namespace, *, cpu: Sequence[int], cuda: Sequence[int]
) -> Setting:
    """Build the model that `options` ask for; fills in what they leave open.

    Args:
        options: What `make_parser` parsed.
        cpu: Document lengths if none were given.
        cuda: Likewise.
    """
    on_cuda = options.device.startswith("cuda")
    options.model = options.model or ("qwen3-4b" if on_cuda else "small")
    options.dtype = options.dtype or ("bfloat16" if on_cuda else "float32")
    options.tokens = options.tokens or list(cuda if on_cuda else cpu)
    if options.threads:
        torch.set_num_threads(options.threads)
    shape = SHAPES[options.model]
    shape = shape._replace(layers=options.layers or shape.layers)
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    model = build_model(shape, dtype=dtype, device=device)
    gc.collect()
    gc.freeze()  # Collections between measurements need not look at the libraries again.
    return Setting(shape, model, Runtime(model), device, dtype)


def environment(setting: Setting) -> dict[str, Any]:
    """What the figures depend on besides the options."""
    on_cuda = setting.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(setting.device) if on_cuda else _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "attention": setting.model.config._attn_implementation,
        "parameters": sum(weight.numel() for weight in setting.model.parameters()),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
