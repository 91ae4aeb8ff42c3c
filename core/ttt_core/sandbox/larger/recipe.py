"""Train a larger sandbox model: `python -m ttt_core.sandbox.larger --output DIR`.

Writes a folder that `TTTEngine.from_pretrained` and `ttt eval --model` read. A run that is cut off
goes on with --resume from its last checkpoint, a few minutes back at most.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from ttt_core.sandbox.larger.checkpoint import load_checkpoint, save_checkpoint
from ttt_core.sandbox.larger.config import SIZES, LargerConfig, sized
from ttt_core.sandbox.larger.feed import feeding
from ttt_core.sandbox.larger.table import CASES, score_tasks
from ttt_core.sandbox.larger.tokenizer import load_tokenizer, train_tokenizer
from ttt_core.sandbox.larger.trainer import LargerTrainer
from ttt_core.sandbox.recipe import ModelShape, build_model, save

CHECKPOINTS = "checkpoints"
TABLE = "table.json"


def train(
    config: LargerConfig,
    output: Path,
    *,
    device: torch.device,
    seconds: float,
    resume: bool = False,
    workers: int = 0,
) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """Train, save the model to `output`, and return it.

    Args:
        config: The recipe.
        output: A folder, made if need be.
        device: Where to train.
        seconds: After so many, what is there is saved.
        resume: Whether to go on from the checkpoint in `output`.
        workers: Processes that make batches.

    Raises:
        ModelLoadError: There is no checkpoint to resume from.
        ConfigError: The checkpoint is of a run with other settings.
    """
    tokenizer = _tokenizer(config, output, resume=resume)
    model = build_model(tokenizer, seed=config.data.seed, shape=_shape(config))
    torch.nn.Module.to(model, device)
    _say(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens, on {device}")
    trainer, checkpoints = LargerTrainer(model, tokenizer, config, say=_say), output / CHECKPOINTS
    if resume:
        trainer.state = load_checkpoint(checkpoints, model, trainer.optimizer, config)
        _say(f"resumed at step {trainer.state.steps}")

    def checkpoint() -> None:
        save_checkpoint(checkpoints, model, trainer.optimizer, trainer.state, config)

    with feeding(output, config.data, workers=workers) as feed:
        trainer.train(feed, seconds=seconds, save=checkpoint)
    save(model.eval(), tokenizer, output)
    return model, tokenizer


def _tokenizer(config: LargerConfig, output: Path, *, resume: bool) -> PreTrainedTokenizerFast:
    """Train the tokenizer and save it; a resumed run has one, and its rows depend on it."""
    if not resume:
        train_tokenizer(config).save_pretrained(output)
    return load_tokenizer(output)


def _shape(config: LargerConfig) -> ModelShape:
    return ModelShape(
        width=config.width,
        inner=config.inner,
        layers=config.layers,
        heads=config.heads,
        max_position=config.data.max_position,
    )


def main(arguments: list[str] | None = None) -> None:
    """Train, save, ask the tasks' questions, and print the table."""
    options = _parser().parse_args(arguments)
    config = sized(options.size, seed=options.seed)
    if options.steps is not None:
        config = replace(config, steps=options.steps)
    device = _device(options.device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    workers = options.workers
    if workers is None:
        workers = min(12, max(1, (os.cpu_count() or 2) - 2)) if device.type == "cuda" else 0
    model, tokenizer = train(
        config,
        options.output,
        device=device,
        seconds=60 * options.minutes,
        resume=options.resume,
        workers=workers,
    )
    lines = score_tasks(model, tokenizer, CASES, questions=options.questions, say=_say)
    table = json.dumps([asdict(line) for line in lines], indent=2)
    (options.output / TABLE).write_text(table + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ttt_core.sandbox.larger", description=__doc__)
    add = parser.add_argument
    add("--output", type=Path, required=True, help="the folder to write")
    add("--size", choices=SIZES, default="base", help="34M or 4M parameters; tiny is for tests")
    add("--device", default="auto", help="cuda, cpu, or auto: CUDA if there is one")
    add("--seed", type=int, default=0)
    add("--minutes", type=float, default=25.0, help="of training, resumed runs added up")
    add("--resume", action="store_true", help="go on from the checkpoint in the folder")
    add("--workers", type=int, help="processes that make batches (CPU: 0)")
    add("--questions", type=int, default=32, help="asked for each line of the table, at least")
    add("--steps", type=int, help="instead of the size's own number")
    return parser


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
